"""Settings of the cache, and the message without its client."""

import sys

import pytest
from pydantic import ValidationError

from headrace.connectors.redis.client import connect
from headrace.connectors.redis.settings import RedisSettings
from headrace.engine.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    ["http://x", "localhost:6379", "redis://x:0", "redis://x:99999", "redis://x?decode_responses=1", "env:NOT_SET"],
)
def test_wrong_urls(url: str) -> None:
    """Are refused, without being quoted: they may hold a password."""
    with pytest.raises(ValidationError, match=r"redis://|port|parameters|not set"):
        RedisSettings.model_validate({"url": url})


@pytest.mark.parametrize("wrong", [{"prefix": "a*"}, {"prefix": ""}, {"status_ttl": 601}, {"rollup_ttl": 0}])
def test_wrong_values(wrong: dict[str, object]) -> None:
    """No entry may live longer than ten minutes, and a prefix is no pattern."""
    with pytest.raises(ValidationError):
        RedisSettings.model_validate(wrong)


def test_url_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL comes from where it is named, and is not shown."""
    monkeypatch.setenv("CACHE_URL", "rediss://:hush@cache:6380/1?ssl_ca_certs=/ca.pem")

    settings = RedisSettings.model_validate({"url": "env:CACHE_URL"})

    assert settings.url is not None
    assert settings.url.get_secret_value().startswith("rediss://:hush@")
    assert "hush" not in repr(settings)


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(ConfigError, match=r"pip install headrace\[redis\]"):
        connect(RedisSettings.model_validate({"url": "redis://localhost"}), "test")

"""Who may post, and for whom."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from headrace.cli.settings import Settings
from headrace.connectors.http.settings import HttpSettings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from tests.connectors.http.serving import READING, TELEMETRY, serving, statuses
from tests.connectors.http.test_batches import array, reading
from tests.connectors.http.test_guard import HEAD, kind

KEY, ROOF = "0123456789abcdef-all", "0123456789abcdef-roof"
KEYS = [{"name": "all", "key": KEY}, {"name": "roof", "key": ROOF, "devices": ["roof-*", "d1"]}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_API_Key": KEY}, 202),
        ({"Authorization": f"Bearer {KEY}"}, 202),
        ({"Authorization": f"bearer {ROOF}"}, 202),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"X_API_Key": KEY[:-1]}, 401),
        ({"X_API_Key": ""}, 401),
        ({}, 401),
    ],
)
async def test_keys(headers: dict[str, str], status: int) -> None:
    """In either header; without one that is known nobody gets in."""
    async with serving(api_keys=KEYS) as server:
        answer = await server.post(TELEMETRY, READING, **headers)

        assert answer.status == status
        assert status != 401 or (kind(answer), answer.headers["WWW-Authenticate"][:6]) == ("unauthorized", "Bearer")


async def test_asked_before_the_body() -> None:
    """Whoever has no key is sent away without being read."""
    async with serving(api_keys=KEYS) as server:
        assert (await server.raw(HEAD + b"Content-Length: 1000\r\n\r\n")).status == 401


async def test_devices_of_a_key() -> None:
    """For others it may not post; in a batch those are refused alone."""
    async with serving(api_keys=KEYS) as server:
        answer = await server.post("/devices/wall-1/telemetry", READING, X_API_Key=ROOF)
        batch = await server.post("/batch", array(reading(1), reading(1, "d2"), reading(1, "roof-2")), X_API_Key=ROOF)
        newest = await server.ask("GET", "/api/data", X_API_Key=ROOF)

        assert (answer.status, kind(answer)) == (403, "forbidden")
        assert statuses(batch) == ["accepted", "refused", "accepted"]
        assert newest.status in (403, 503)


async def test_keys_of_clients_are_apart() -> None:
    """Idempotency keys of one are none of another's."""
    async with serving(api_keys=KEYS) as server:
        await server.post("/batch", array(reading(1)), X_API_Key=KEY, Idempotency_Key="k")
        other = await server.post("/batch", array(reading(2)), X_API_Key=ROOF, Idempotency_Key="k")

        assert other.status == 202


async def test_open_to_everybody() -> None:
    """Health and description need no key."""
    async with serving(api_keys=KEYS) as server:
        described = await server.ask("GET", "/openapi.json")

        assert (await server.ask("GET", "/health")).status == 200
        assert described.document["security"] == [{"header": []}, {"bearer": []}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0", "port": 1}, "api_keys"),
        ({"host": "example.org", "port": 1}, "api_keys"),
        ({"certificate": "x.pem"}, "come together"),
        ({"api_keys": [{"name": "a", "key": "short"}]}, "16 or more"),
        ({"api_keys": [{"name": "a", "key": KEY}, {"name": "a", "key": ROOF}]}, "same name"),
        ({"api_keys": [{"name": "a", "key": KEY}, {"name": "b", "key": KEY}]}, "are the same"),
        ({"api_keys": [{"name": "a", "key": "env:HEADRACE_TEST_NO_SUCH"}]}, "is not set"),
        ({"max_waiting_bytes": 1 << 20}, "must be at least max_body_bytes"),
    ],
)
def test_mistakes(settings: dict[str, object], said: str) -> None:
    """Settings that cannot be are refused, and no key is shown."""
    with pytest.raises(ValidationError) as found:
        HttpSettings.model_validate(settings)

    assert said in str(found.value.errors(include_input=False))


def test_one_mistake_hides_no_other() -> None:
    """All of them are told, also those of settings that must fit together."""
    wrong = {"certificate": "c.pem", "max_itmes": 3, "host": "0.0.0.0", "port": 1, "max_waiting_bytes": 1 << 20}
    with pytest.raises(ValidationError) as found:
        HttpSettings.model_validate(wrong)

    assert {each["loc"][0] for each in found.value.errors()} == {"key", "max_itmes", "api_keys", "max_waiting_bytes"}


def test_settings_that_there_are_not(tmp_path: Path) -> None:
    """Each is named, with the one that was meant, beside every other mistake."""
    file = tmp_path / "h.toml"
    wrong = '[http]\nmax_itmes = 3\ncertificate = "c.pem"\n[brigde]\ninto = "log"\n[[http.api_keys]]\nnmae = "x"\n'
    file.write_text(wrong)
    with pytest.raises(ConfigError) as found:
        load(Settings, file)

    told = [each.removeprefix(f"{file}: ") for each in found.value.mistakes]
    assert "http.max_itmes: is not a setting; did you mean 'max_items'?" in told
    assert "brigde: is not a setting; did you mean 'bridge'?" in told
    assert "http.key: certificate and key come together: name both, or none" in told
    assert "http.api_keys.0.nmae: is not a setting" in told


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come by reference, and do not show."""
    monkeypatch.setenv("HEADRACE_TEST_KEY", KEY)
    settings = HttpSettings.model_validate({"api_keys": [{"name": "a", "key": "env:HEADRACE_TEST_KEY"}]})

    assert settings.api_keys[0].key.get_secret_value() == KEY
    assert KEY not in repr(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    """Nobody else can come there."""
    assert HttpSettings(host=host, port=1).wanted

"""Settings and errors of Kinesis."""

import subprocess
import sys

import pytest
from aiohttp import web
from pydantic import ValidationError

from headrace.cli.settings import Settings
from headrace.connectors.kinesis.settings import KinesisSettings
from headrace.connectors.kinesis.sink import open_kinesis
from headrace.engine.clock import SystemClock
from headrace.engine.config import load
from headrace.engine.errors import ConfigError, HeadraceError, LogError
from tests.connectors.kinesis.aws import settings


@pytest.mark.parametrize(
    ("values", "mistake"),
    [
        ({"stream": "my stream"}, "must be the name of a stream"),
        ({"endpoint_url": "https://me:secret@host"}, "must be https://host:port"),
        ({"access_key_id": "one"}, "come together"),
        ({"session_token": "alone"}, "needs access_key_id"),
        ({"secret_access_key": "env:NOT_THERE_AT_ALL"}, "NOT_THERE_AT_ALL is not set"),
    ],
)
def test_mistakes_are_found(values: dict[str, str], mistake: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(ValidationError, match=mistake):
        KinesisSettings.model_validate(values)


def test_secrets_are_followed_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """References are read; neither key appears in what is printed."""
    monkeypatch.setenv("THE_KEY", "hush")
    found = KinesisSettings.model_validate({"access_key_id": "env:THE_KEY", "secret_access_key": "quiet"})

    assert found.access_key_id is not None
    assert found.access_key_id.get_secret_value() == "hush"
    assert "hush" not in f"{found!r} {found}"
    assert "quiet" not in f"{found!r} {found}"


def test_a_bridge_into_kinesis_needs_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the command ends with that mistake, beside all others."""
    monkeypatch.setenv("HEADRACE_BRIDGE__INTO", "kinesis")
    with pytest.raises(ConfigError, match=r"kinesis\.stream must name the stream"):
        load(Settings, None)

    monkeypatch.setenv("HEADRACE_KINESIS__STREAM", "fleet")
    assert load(Settings, None).kinesis.stream == "fleet"


def test_profiles_with_a_format_lead_into_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they need travels in headers, which records of Kinesis do not have."""
    lorawan = {"name": "lorawan", "topic": "a/{device}/up", "device_type": "tilt", "format": "chirpstack"}
    numbered = {"name": "numbered", "topic": "b/{device}", "device_type": "tilt", "sequence": {"field": "n"}}
    settings = {"bridge": {"into": "kinesis"}, "kinesis": {"stream": "fleet"}, "profiles": [lorawan, numbered]}

    with pytest.raises(
        ValidationError, match="profile lorawan, numbered has a format or a sequence, which needs the log"
    ):
        Settings.model_validate(settings)


async def test_a_missing_region_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting and the variable that would name it."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(ConfigError, match="region is missing"):
        async with open_kinesis(settings("http://127.0.0.1:9", region=None), SystemClock()):
            pass


def test_without_aiobotocore_the_command_to_run_is_named() -> None:
    """Importing the connector needs nothing; opening a stream says what to install."""
    program = """
import asyncio, sys
sys.modules["aiobotocore.config"] = None
from headrace.connectors.kinesis.sink import open_kinesis
from headrace.connectors.kinesis.settings import KinesisSettings
from headrace.engine.clock import SystemClock
async def main():
    async with open_kinesis(KinesisSettings(stream="fleet"), SystemClock()):
        pass
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "ConfigError: Kinesis needs aiobotocore: pip install headrace[kinesis]" in done.stderr


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("AccessDeniedException", ConfigError, "allow them kinesis:PutRecords"),
        ("UnrecognizedClientException", ConfigError, "AWS does not know the access key"),
        ("ExpiredTokenException", ConfigError, "has expired"),
        ("KMSDisabledException", ConfigError, "KMS key is disabled"),
        ("ValidationException", LogError, "refuses a request to stream fleet: ValidationException"),
    ],
)
async def test_errors_that_stay_end_the_append(code: str, kind: type[HeadraceError], text: str) -> None:
    """Each with what to mend; the secret is in none of them."""

    async def refuse(request: web.Request) -> web.Response:
        if request.headers["X-Amz-Target"].endswith("DescribeStreamSummary"):
            code_here = "AccessDeniedException"  # the role may only write
        else:
            code_here = code
        return web.json_response({"__type": code_here, "message": "no"}, status=400)

    application = web.Application()
    application.router.add_post("/", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        secret = {"access_key_id": "AKID", "secret_access_key": "very-secret"}
        async with open_kinesis(settings(f"http://127.0.0.1:{port}", **secret), SystemClock()) as intake:
            with pytest.raises(kind, match=text) as raised:
                await intake.append([b"a"], [b"1"])
        assert "very-secret" not in str(raised.value)
    finally:
        await runner.cleanup()

"""Which channels there are, as the configuration says, and every mistake in it in one message."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headrace.cli.settings import Settings
from headrace.connectors.notifications.channel import Channel
from headrace.connectors.notifications.channels import open_channels
from headrace.connectors.notifications.content import make_renderer
from headrace.connectors.notifications.example_notifications import example
from headrace.connectors.notifications.settings import ChannelsSettings
from headrace.engine.clock import SystemClock
from headrace.engine.config import load
from headrace.engine.errors import ConfigError

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
KEY = "0123456789abcdefGEHEIM0123456789"


async def names(**settings: object) -> set[str]:
    """Channels that are opened."""
    async with open_channels(ChannelsSettings.model_validate(settings), SystemClock()) as channels:
        for name, channel in channels.items():
            checked: Channel = channel
            assert checked.name == name
            assert checked.at_once >= 1
        return set(channels)


async def test_webhooks_are_always_there() -> None:
    """They need no configuration; nothing else is on by itself."""
    assert await names() == {"webhook"}


async def test_channels_are_those_that_are_configured() -> None:
    """One for each kind of integration, however many there are of it."""
    found = await names(
        email={"host": "smtp.example.com", "sender": "alerts@example.com"},
        push={"ntfy_url": "https://ntfy.sh"},
        sms={"enabled": True, "region": "eu-central-1", "access_key_id": "a", "secret_access_key": "b"},
        integrations={
            "ops": {"kind": "pagerduty", "routing_key": KEY},
            "dev": {"kind": "pagerduty", "routing_key": KEY},
            "am": {"kind": "alertmanager", "url": "http://alertmanager:9093"},
            "chat": {"kind": "apprise", "url": "json://localhost/hook"},
            "hook": {"kind": "webhook", "url": "https://hooks.example.com/x"},
        },
    )

    assert found == {"email", "push", "sms", "pagerduty", "alertmanager", "apprise", "webhook"}


async def test_mistake_of_one_channel_leaves_none_open() -> None:
    """Those that were opened before it are closed: a connection that is left over would be a warning here."""
    account = {"project_id": "iot", "client_email": "a@b", "private_key": "none"}
    with pytest.raises(ConfigError, match="private_key is no key"):
        await names(push={"fcm_credentials": json.dumps(account)})
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ConfigError, match="is no RSA key"):
        await names(push={"fcm_credentials": json.dumps(account | {"private_key": key.decode()})})


def test_renderer_has_the_links_of_the_settings() -> None:
    """And `{device}` stands for the device's id."""
    settings = ChannelsSettings(dashboard_url="https://iot.example.com/d/{device}#{alert}")

    assert make_renderer(settings).render(example("alert")).link == "https://iot.example.com/d/sensor-123#alert-123"


@pytest.mark.parametrize(
    ("section", "mistake"),
    [
        ('dashboard_url = "iot.example.com"', "must be an address, as in https://host/path"),
        ('dashboard_url = "https://x/{id}"', "{alert} and {device} stand for ids, and nothing else"),
        ('dashboard_url = "https://{alert}.x/"', "one in its host"),
        ('dashboard_url = "https://a:b@x/"', "has a user or password"),
        ('email = { host = "smtp" }', "sender is missing"),
        ('email = { host = "smtp", sender = "Alerts" }', "must be an address, or as in"),
        ('email = { user = "a" }', "user and password come together"),
        ('email = { security = "none", user = "a", password = "b" }', "a password goes over no plain connection"),
        ('webhook = { secret = "geheim" }', "whsec_ and 24 to 64 random bytes"),
        (f'webhook = {{ old_secret = "{SECRET}" }}', "old_secret goes with secret"),
        ('webhook = { private_networks = ["10.0.0.1/8"] }', "write networks, as in 10.1.0.0/16"),
        ('push = { fcm_credentials = "{}" }', "must be a service account's JSON file"),
        ('push = { fcm_credentials = "file:/nonexistent" }', "cannot be read"),
        ('push = { ntfy_token = "a" }', "ntfy_token goes with ntfy_url"),
        ('sms = { access_key_id = "a" }', "access_key_id and secret_access_key come together"),
        ('sms = { sender_id = "12345" }', "pattern"),
        ('integrations = { ops = { kind = "pager" } }', "pager"),
        ('integrations = { ops = { kind = "pagerduty", routing_key = "geheim" } }', "32 letters and digits"),
        ('integrations = { Ops = { kind = "apprise", url = "json://h" } }', "pattern"),
        ('integrations = { am = { kind = "alertmanager", url = "http://h", token = "a", user = "b", password = "c" } }',
         "either user and password, or token"),
        ('integrations = { chat = { kind = "apprise", url = "env:NOT_SET_AT_ALL" } }', "NOT_SET_AT_ALL is not set"),
    ],
)  # fmt: skip
def test_mistake_is_told_without_its_secret(tmp_path: Path, section: str, mistake: str) -> None:
    """With the key, and with what to write instead."""
    path = tmp_path / "headrace.toml"
    path.write_text(f"[channels]\n{section}\n")

    with pytest.raises(ConfigError) as raised:
        load(Settings, path)

    assert mistake in str(raised.value)
    assert "channels" in str(raised.value)
    assert "geheim" not in str(raised.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Not one run each."""
    path = tmp_path / "headrace.toml"
    path.write_text(
        '[channels]\ndashboard_url = "x"\n[channels.email]\nuser = "a"\n[channels.sms]\nsession_token = "b"\n'
    )

    with pytest.raises(ConfigError) as raised:
        load(Settings, path)

    assert len(raised.value.mistakes) == 3


def test_secrets_are_not_shown() -> None:
    """Not by `repr`, which logs would have."""
    settings = ChannelsSettings.model_validate(
        {
            "email": {"user": "a", "password": KEY},
            "webhook": {"secret": SECRET},
            "push": {"ntfy_url": "https://ntfy.sh", "ntfy_token": KEY},
            "integrations": {
                "a": {"kind": "pagerduty", "routing_key": KEY},
                "b": {"kind": "apprise", "url": f"json://{KEY}"},
                "c": {"kind": "alertmanager", "url": "http://h", "token": KEY},
                "d": {"kind": "webhook", "url": "http://h", "secret": SECRET},
            },
        }
    )

    assert KEY not in repr(settings)
    assert SECRET not in repr(settings)

"""The settings and payloads of docs/guides/payload-formats.md work as they stand there."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import orjson

from headrace.cli.settings import Settings
from headrace.connectors.formats import Message
from headrace.connectors.formats.profile_format import FormatName
from headrace.schemas.device_type import DeviceType

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "payload-formats.md").read_text()
BLOCKS = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)]
SETTINGS = [Settings.model_validate({**block, "listener": {}}) for block in BLOCKS if "profiles" in block]


def test_every_format_has_settings() -> None:
    """Profiles of the guide load, and those of ThingsBoard with their listener; Sparkplug has a guide of its own."""
    formats = {profile.format for settings in SETTINGS for profile in settings.profiles}

    assert formats == set(get_args(FormatName)) - {"senml-cbor", "sparkplug"}
    listener = BLOCKS[0]["listener"] | {"passwords": None, "anonymous": True}
    assert Settings.model_validate(BLOCKS[0] | {"listener": listener}).listener.own_level == "me"


def test_the_device_type_reads_what_chirpstack_sends() -> None:
    """It has the fields that an uplink brings beside its object."""
    (device_type,) = [DeviceType.model_validate(block) for block in BLOCKS if "fields" in block]

    assert {"rssi", "snr", "gateway", "gateways", "dr", "fPort", "margin", "batteryLevel"} <= device_type.fields.keys()


def test_the_envelope_of_the_guide() -> None:
    """Two readings, one with the common time and one with its own."""
    (payload,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    (profile,) = [each for settings in SETTINGS for each in settings.profiles if each.format == "envelope"]
    unpack = profile.unpacker()
    assert unpack is not None

    parts = unpack(Message(["gw", "7", "readings"], "", payload.encode(), 0))

    assert isinstance(parts, list)
    assert [orjson.loads(part.payload) for part in parts] == [
        {"gateway": "gw-7", "timestamp": 1750000000000, "device_id": "hall", "temperature": 20.5},
        {"gateway": "gw-7", "timestamp": 1750000001000, "device_id": "roof", "temperature": 21},
    ]

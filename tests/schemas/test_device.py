"""Devices of the registry as documents."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from headrace.schemas.device import Device, decode_device, encode_device

#: One device per line, as written by the first version that knew devices.
GOLDEN = Path(__file__).parent / "golden" / "devices.ndjson"

DOCUMENT: dict[str, Any] = {
    "deviceId": "sim-0001",
    "deviceType": "environmental",
    "organizationId": "acme",
    "name": "Roof sensor 1",
    "location": {"lat": 48.1, "lon": 11.5, "address": "Dachauer Str. 1"},
    "gateway": "gw-1",
    "status": "maintenance",
    "firmwareVersion": "2.1",
    "tags": ["roof", "east"],
    "metadata": {"installDate": 1700000000, "model": "TH-2"},
    "connectivity": {"signalStrength": -71.5, "type": "lorawan"},
}


def test_golden_bytes_are_read_and_written_as_they_were() -> None:
    """What is in a topic today can be read tomorrow, and the same device gives the same bytes."""
    lines = GOLDEN.read_bytes().splitlines()

    devices = [decode_device(line) for line in lines]

    assert devices == [Device.model_validate(DOCUMENT), Device(id="d2", name="Other")]
    assert [encode_device(device) for device in devices] == lines


def test_details_have_one_order() -> None:
    """However they are written."""
    turned = {**DOCUMENT, "metadata": dict(reversed(DOCUMENT["metadata"].items()))}

    assert encode_device(Device.model_validate(turned)) == encode_device(Device.model_validate(DOCUMENT))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "ab"},
        {"name": "x" * 101},
        {"name": "\ud800\ud800\ud800"},
        {"deviceId": ""},
        {"deviceId": "?"},
        {"deviceId": "a\nb"},
        {"status": "online"},
        {"deviceType": "No Type"},
        {"location": {"lat": 91}},
        {"location": {"lat": float("nan")}},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {"a": float("inf")}},
        {"tags": [""]},
        {"owner": "me"},
    ],
)
def test_what_no_device_can_be_is_refused(change: dict[str, Any]) -> None:
    """Each of these is a mistake."""
    with pytest.raises(ValidationError):
        Device.model_validate({**DOCUMENT, **change})


def test_a_device_is_whole_in_json() -> None:
    """Every field is there under its public name."""
    assert orjson.loads(encode_device(Device.model_validate(DOCUMENT))) == DOCUMENT

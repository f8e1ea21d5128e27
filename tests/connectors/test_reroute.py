"""Quarantined messages under the profiles of today."""

import pytest

from headrace.connectors.reroute import Reroute
from headrace.connectors.topic_profile import SHIPPED
from headrace.engine.records import Record
from headrace.schemas import topics


def message(topic: bytes, value: bytes = b"{}", key: bytes = b"?", profile: bytes = b"") -> Record:
    """A raw message as it was accepted."""
    headers = {topics.MESSAGE_ID: b"m", topics.PROFILE: profile, topics.DEVICE_TYPE: b"", topics.SOURCE: topic}
    return Record(key, value, 0, headers)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (message(b"dt/devices/roof-7/telemetry"), (b"roof-7", b"devices", b"environmental")),
        (message(b"iot/data", b'{"device_id": "c-1"}'), (b"c-1", b"collector", b"collector")),
        (message(b"iot/data", b'{"device_id": "c-1"}', profile=b"devices"), (b"c-1", b"collector", b"collector")),
    ],
)
def test_what_has_a_device_now(before: Record, now: tuple[bytes, bytes, bytes]) -> None:
    """Device, profile and type are those of today; the rest is as it was."""
    after = Reroute(SHIPPED)(before)

    assert (after.key, after.headers[topics.PROFILE], after.headers[topics.DEVICE_TYPE]) == now
    assert after.value == before.value
    assert after.headers.keys() == before.headers.keys()


@pytest.mark.parametrize(
    "before",
    [
        message(b"dt/device/roof-7/telemetry"),
        message(b"iot/data"),
        message(b"dt/devices/roof-7/telemetry", key=b"other", profile=b"devices"),
        message(b"dt/devices/roof-7/telemetry", profile=b"replay"),
        Record(b"?", None, 0, {topics.PROFILE: b""}),
        Record(None, b"{}", 0, {}),
    ],
)
def test_everything_else_stays(before: Record) -> None:
    """Topics that are still unknown, messages of somebody, and those of other sources."""
    assert Reroute(SHIPPED)(before) == before

"""Quarantined messages under the profiles of today."""

import pytest

from headrace.connectors.reroute import Reroute
from headrace.connectors.topic_profile import SHIPPED, TopicProfile
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
    (after,) = Reroute(SHIPPED)(before)

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
    assert Reroute(SHIPPED)(before) == [before]


FORMATS = [
    TopicProfile(name="gateways", topic="v1/gateway/#", device_type="environmental", format="thingsboard-gateway"),
    TopicProfile(name="senml", topic="senml/{device}", device_type="environmental", format="senml-json"),
    TopicProfile(name="plain", topic="plain/{device}", device_type="environmental"),
]


def test_a_format_of_today_unpacks() -> None:
    """A message becomes its records, each with an id of its own, and the same ones every time."""
    before = message(b"v1/gateway/telemetry", b'{"a": [{"t": 1}], "b": [{"ts": 7, "values": {"t": 2}}]}')

    after = Reroute(FORMATS)(before)

    assert [(each.key, each.value) for each in after] == [(b"b", b'{"timestamp":7,"t":2}'), (b"a", b'{"t":1}')]
    assert {each.headers[topics.PROFILE] for each in after} == {b"gateways"}
    assert after[0].headers[topics.MESSAGE_ID] == b"m"
    assert after[1].headers[topics.MESSAGE_ID] not in (b"m", b"")
    assert Reroute(FORMATS)(before) == after


def refused(topic: bytes, value: bytes, profile: bytes) -> Record:
    """A message that could not be unpacked, of some device."""
    before = message(topic, value, b"d", profile)
    headers = before.headers | {topics.REFUSED: b"why", topics.SEQUENCE: b"1 256"}
    return before._replace(timestamp=1_000_000, headers=headers)


def test_what_could_not_be_unpacked_is_tried_again() -> None:
    """As the settings are now, with times relative to when it came; what still cannot be has the reason of today."""
    good, bad = b'[{"n": "t", "t": -5, "v": 1}]', b'[{"n": "t"}]'

    (unpacked,) = Reroute(FORMATS)(refused(b"senml/d", good, b"senml"))
    (still,) = Reroute(FORMATS)(refused(b"senml/d", bad, b"senml"))
    (plain,) = Reroute(FORMATS)(refused(b"plain/d", b"{}", b"senml"))

    assert (unpacked.key, unpacked.value) == (b"d", b'{"timestamp":995000,"t":1}')
    assert unpacked.headers.keys().isdisjoint({topics.REFUSED, topics.SEQUENCE})
    assert (still.key, still.value, still.headers[topics.REFUSED]) == (b"d", bad, b"record 0: it has no value")
    assert (plain.value, plain.headers.get(topics.REFUSED), plain.headers[topics.PROFILE]) == (b"{}", None, b"plain")


def test_what_is_no_reading_stays_a_dead_letter() -> None:
    """It says so; a message that was cut stays as it is."""
    (event,) = Reroute(FORMATS)(message(b"v1/gateway/connect", b'{"device": "a"}'))
    cut = message(b"v1/gateway/telemetry", b'{"a": [')
    cut = cut._replace(headers=cut.headers | {topics.PAYLOAD_BYTES: b"9999999"})

    assert event.headers[topics.REFUSED].startswith(b"it is no reading but the event connect")
    assert Reroute(FORMATS)(cut) == [cut]

"""What is looked up in a payload before the append."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.payload_fields import PayloadFields
from headrace.connectors.topic_profile import Alarm

TILT = PayloadFields(["device_id", "sensor.id"], Alarm(field="status", values=("alarm", 2, True)))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"device_id": "w", "status": "alarm"}', (b"w", True)),
        (b'{"device_id": "w", "status": "normal"}', (b"w", False)),
        (b'{"device_id": "w", "status": "ALARM"}', (b"w", False)),
        (b'{"device_id": "w", "status": 2.0}', (b"w", True)),
        (b'{"device_id": "w", "status": 1}', (b"w", False)),
        (b'{"device_id": "w", "status": true}', (b"w", True)),
        (b'{"device_id": "w", "status": ["alarm"]}', (b"w", False)),
        (b'{"device_id": "w"}', (b"w", False)),
        (b'{"sensor.id": "s", "status": "alarm"}', (b"s", True)),
        (b'{"device_id": 7, "sensor.id": "s"}', (b"s", False)),
        (b'{"device_id": "", "status": "alarm"}', (b"", True)),
        (b'{"device_id": {"device_id": "w"}}', (b"", False)),
        (b'{"device_id": "w", "status": "alarm"', (b"", False)),
        (b'["device_id", "status"]', (b"", False)),
        (b'{"device_id": "\\ud800"}', (b"", False)),
        (b'{"device_id": "\xff"}', (b"", False)),
        (b'{"deep": ' + b"[" * 100_000, (b"", False)),
        (b"", (b"", False)),
    ],
)
def test_fields_of_a_payload(payload: bytes, said: tuple[bytes, bool]) -> None:
    """Device id and alarm are read where they are what they should be; anything else is nobody's, and no alarm."""
    assert TILT.read(payload) == said


@given(st.binary())
def test_no_payload_raises(payload: bytes) -> None:
    """Whatever comes, there is an answer."""
    TILT.read(payload)


IDS = [
    b'{"device_id": "w"}',
    b'{"device_id": "\xc3\xa9"}',
    b'{"sensor.id": "s"}',
    b'{"device_id": 7, "sensor.id": "s"}',
    b'{"device_id": "\\ud800"}',
    b'{"device_id": ""}',
    b'{"device_id": "%b"}' % (b"x" * 300),
    b"{",
    b"[]",
    b"",
]


@given(st.lists(st.sampled_from([*IDS, IDS[0], IDS[0]])), st.sampled_from([["device_id", "sensor.id"], ["id"], []]))
def test_device_ids_of_many_payloads(payloads: list[bytes], names: list[str]) -> None:
    """They are those of each, whatever the others are."""
    fields = PayloadFields(names, None)

    assert fields.device_ids(payloads) == [fields.read(payload)[0] for payload in payloads]


def test_a_profile_of_alarms_looks_at_nothing() -> None:
    """Where all messages are alarms, one that cannot be read is one too."""
    assert PayloadFields([], Alarm()).read(b"{") == (b"", True)
    assert PayloadFields(["id"], Alarm()).read(b'{"id": "w"}') == (b"w", True)
    assert PayloadFields(["id"], Alarm()).read(b"{") == (b"", True)


def test_a_long_device_id_stays_too_long() -> None:
    """It is cut, as it would be remembered in many places, to what ingest still refuses."""
    device_id, _ = PayloadFields(["id"], None).read(b'{"id": "' + b"x" * 100_000 + b'"}')

    assert device_id == b"x" * 257

"""Ingest of the priority lane."""

import orjson

from headrace.agents.ingest import Ingest
from headrace.agents.ingest_priority import IngestPriority
from headrace.engine.records import Header, Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.schemas.readings import decode_readings
from headrace.tables.device_types import load_device_types

T0 = 1_700_000_000_000
TYPES = load_device_types()


def raw(*payloads: bytes) -> Records:
    """Raw messages of one device, a second apart."""
    stamps = [T0 + 1000 * place for place in range(len(payloads))]
    ids = [b"id-%d" % place for place in range(len(payloads))]
    headers: dict[str, Header] = {topics.DEVICE_TYPE: b"environmental", topics.MESSAGE_ID: list(ids)}
    return Records([b"d-1"] * len(payloads), list(payloads), stamps, headers)


def test_a_copy_is_read_as_the_ordinary_message_is() -> None:
    """Same bytes; what is wrong, or said again, is left to the ordinary one."""
    good = orjson.dumps({"timestamp": T0, "temp": 22.5, "humidity": 40.0})
    records = raw(good, b"{", good, orjson.dumps({"timestamp": T0 + 1000, "temp": 1e9}))

    ordinary, priority = drive(Ingest(TYPES), records), drive(IngestPriority(TYPES), records)

    (one,) = ordinary.sent[topics.READINGS]
    found = priority.sent[topics.READINGS_PRIORITY]
    assert [record.value for record in found[:1]] == [one.value]
    assert [columns.message_ids for columns in decode_readings([record.value for record in found])] == [
        ["id-0", "id-2"]
    ]
    assert list(priority.sent) == [topics.READINGS_PRIORITY]
    assert priority.dead_letters == []
    assert len(ordinary.dead_letters) == 2

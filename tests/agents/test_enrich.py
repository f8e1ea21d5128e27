"""Ingest with the device registry: what readings get, whose type counts, and who is refused."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.enrich import Entry, registry_table
from headrace.agents.ingest import Ingest, IngestConfig
from headrace.engine.log import Tally, TopicPartition
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, drive, fetched
from headrace.schemas import topics
from headrace.schemas.device import Device, encode_device
from headrace.schemas.readings import decode_readings
from headrace.tables.device_types import load_device_types
from headrace.tables.replicated import Replicated

TYPES = load_device_types()
#: 2024-01-01T00:00:00Z
T0 = 1_704_067_200_000
FIELDS = IngestConfig().enrich
QUARANTINE = IngestConfig(unregistered="quarantine")

#: Append time (ms after `T0`), device id, what it is from then on; None: gone.
Change = tuple[int, str, Device | None]


def device(device_id: str = "a", **fields: Any) -> Device:
    return Device(id=device_id, **{"name": f"Device {device_id}", **fields})


def registry(*changes: Change) -> Replicated[Entry]:
    """The registry, as it comes out of its topic."""
    table = registry_table(FIELDS)
    records = Records(
        [device_id.encode() for _, device_id, _ in changes],
        [None if found is None else encode_device(found) for _, _, found in changes],
        [T0 + time for time, _, _ in changes],
    )
    assert table.take(fetched(records, *TopicPartition(topics.DEVICES, 0))) == 0
    return table


def raw(*messages: tuple[int, str], device_type: str = "environmental") -> Records:
    """Messages by append time (ms after `T0`) and device; each measures its own place."""
    return Records(
        [device_id.encode() for _, device_id in messages],
        [orjson.dumps({"timestamp": T0 + place, "temperature": place}) for place in range(len(messages))],
        [T0 + time for time, _ in messages],
        {
            topics.MESSAGE_ID: [b"m%d" % place for place in range(len(messages))],
            topics.DEVICE_TYPE: device_type.encode(),
        },
    )


def given_to(driven: Driven) -> list[Any]:
    return [orjson.loads(record.value or b"").get("device") for record in driven.sent.get(topics.READINGS, [])]


def test_a_reading_gets_what_the_registry_says() -> None:
    """The fields of the settings in their order; a device that is not registered gets nothing."""
    here = {"lat": 48.1, "lon": 11.5}
    known = device(organisation="acme", gateway="gw-1", location=here, tags=("roof",))

    driven = drive(Ingest(TYPES, devices=registry((0, "a", known))), raw((1, "a"), (1, "b")))

    place = {"organisation": "acme", "name": "Device a", "location": here, "gateway": "gw-1"}
    assert given_to(driven) == [place, None]
    (readings,) = decode_readings([record.value for record in driven.sent[topics.READINGS]])
    assert [readings.device(0), readings.device(1)] == [place, {}]
    assert list(readings.device(0)) == list(place)
    assert driven.sent[topics.READINGS][0].headers == {}


def test_a_change_applies_from_its_append_time_on() -> None:
    """In the middle of a batch, in order or not; a device that was removed is not known any more."""
    changes: list[Change] = [(2, "a", device(name="Old")), (4, "a", device(name="New")), (6, "a", None)]
    order = [5, 3, 1, 6, 2, 4]

    names = [given and given["name"] for given in given_to(
        drive(Ingest(TYPES, devices=registry(*changes)), raw(*((time, "a") for time in order)))
    )]  # fmt: skip

    assert names == ["New", "Old", None, None, "Old", "New"]


def test_an_empty_registry_changes_no_byte() -> None:
    """What is sent is what was sent when there was none."""
    records = raw((1, "a"), (2, "b"), (3, "a"))

    assert drive(Ingest(TYPES, devices=registry()), records) == drive(Ingest(TYPES), records)


def test_the_registry_s_type_counts() -> None:
    """Over the header's, and where there is none; the reading says under which it was appended, for the ledger."""
    table = registry((0, "a", device(type="environmental")), (0, "b", device("b")))
    records = raw((1, "a"), (1, "b"), device_type="tilt")
    records.values = [orjson.dumps({"timestamp": T0, name: 1}) for name in ("temperature", "tilt_angle")]

    driven = drive(Ingest(TYPES, devices=table), records)
    del records.headers[topics.DEVICE_TYPE]
    without = drive(Ingest(TYPES, devices=table), records)

    found = driven.sent[topics.READINGS]
    assert [orjson.loads(record.value or b"")["device_type"] for record in found] == ["environmental", "tilt"]
    assert [record.headers for record in found] == [{topics.DEVICE_TYPE: b"tilt"}, {}]
    (typed,) = without.sent[topics.READINGS]
    assert typed.headers == {topics.DEVICE_TYPE: b"unknown"}
    assert without.dead_letters[0][1].startswith("no device type")


def test_repeats_are_counted_under_the_type_they_came_with() -> None:
    """As the message was counted when it was accepted."""
    operator = Ingest(TYPES, devices=registry((0, "a", device(type="environmental"))))
    records = raw((1, "a"), (2, "a"), (3, "b"), device_type="tilt")
    records.values = [orjson.dumps({"timestamp": T0, "temperature": 1})] * 3

    drive(operator, records)

    assert operator.counters.totals() == {Tally(T0, "tilt"): {"duplicate": 1}}


def test_who_is_not_registered_is_quarantined_if_so_set() -> None:
    """And counted; with what to do in the reason. Whether the message could be read is not asked then."""
    metrics = Metrics()
    records = raw((1, "a"), (1, "b"), (1, "c"))
    records.values[2] = b"{"

    driven = drive(Ingest(TYPES, QUARANTINE, registry((0, "a", device())), metrics), records)

    assert len(given_to(driven)) == 1
    (_, reason), (_, other) = driven.dead_letters
    assert "headrace devices set b --add" in reason
    assert "headrace dlq replay" in reason
    assert "device 'c' is not in the registry" in other
    assert metrics.value("headrace_quarantined_total", reason="unregistered") == 2
    assert len(drive(Ingest(TYPES, QUARANTINE, registry()), raw((1, "a"))).dead_letters) == 1


def test_a_retired_device_is_quarantined_always() -> None:
    """From when it was retired until it is taken back."""
    table = registry((2, "a", device(status="retired")), (4, "a", device(status="maintenance")))

    driven = drive(Ingest(TYPES, devices=table), raw((1, "a"), (2, "a"), (3, "a"), (4, "a")))

    assert [offset for offset, _ in driven.dead_letters] == [1, 2]
    assert "headrace devices set a status=active" in driven.dead_letters[0][1]


def test_what_comes_back_from_the_dead_letters_is_judged_anew() -> None:
    """By the registry of when it was sent back; its append time is that of the first time."""
    table = registry((5, "b", device("b")))
    records = raw((1, "b"), (1, "b"))
    records.headers[topics.REDRIVEN_AT] = [b"%d" % (T0 + 6), None]

    driven = drive(Ingest(TYPES, QUARANTINE, table), records)

    assert [offset for offset, _ in driven.dead_letters] == [1]


def test_an_unknown_type_of_the_registry_is_said() -> None:
    """A worker without that device type file refuses, rather than reading with another one."""
    driven = drive(Ingest(TYPES, devices=registry((0, "a", device(type="nosuch")))), raw((1, "a")))

    assert "device type 'nosuch' is unknown" in driven.dead_letters[0][1]


DEVICES = st.sampled_from(["a", "b", "c"])
REGISTERED = st.one_of(
    st.none(),
    st.builds(
        device,
        name=st.sampled_from(["Old", "New"]),
        type=st.sampled_from([None, "environmental", "tilt"]),
        status=st.sampled_from(["active", "active", "retired"]),
    ),
)


@given(
    messages=st.lists(st.tuples(st.integers(0, 20), DEVICES), min_size=1, max_size=20),
    changes=st.lists(st.tuples(st.integers(0, 20), DEVICES, REGISTERED), max_size=8).map(
        lambda changes: sorted(changes, key=lambda change: change[0])
    ),
    sizes=st.lists(st.integers(1, 5)),
    config=st.sampled_from([IngestConfig(), QUARANTINE]),
)
def test_boundaries_and_restarts_change_nothing(
    messages: list[tuple[int, str]], changes: list[Change], sizes: list[int], config: IngestConfig
) -> None:
    """The same log and the same changes give the same bytes, whatever is read at once, and after any crash."""

    def ingest() -> Ingest:
        return Ingest(TYPES, config, registry(*changes))

    whole = drive(ingest(), raw(*messages))

    for driven in (
        drive(ingest(), raw(*messages), batch_sizes=sizes),
        drive(ingest(), raw(*messages), batch_sizes=[1] * len(messages), restart=ingest),
    ):
        assert driven.sent.get(topics.READINGS) == whole.sent.get(topics.READINGS)
        assert driven.dead_letters == whole.dead_letters


@pytest.mark.parametrize("fields", [(), ("tags", "status", "firmware_version")])
def test_any_fields_can_be_chosen(fields: Any) -> None:
    """None at all, or others."""
    config = IngestConfig(enrich=fields)
    table = registry_table(config.enrich)
    records = Records([b"a"], [encode_device(device(tags=("roof",)))], [T0])
    table.take(fetched(records, *TopicPartition(topics.DEVICES, 0)))

    found = given_to(drive(Ingest(TYPES, config, table), raw((1, "a"))))

    assert found == [{"tags": ["roof"], "status": "active"} if fields else None]

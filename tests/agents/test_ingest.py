"""Ingest as a whole: what becomes of good messages and of repeats, for any batches and restarts."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.ingest import Ingest, IngestConfig
from headrace.engine.batch import Batch, Shared
from headrace.engine.log import Tally
from headrace.engine.records import Record, Records
from headrace.engine.testkit import Changelog, Driven, drive, fetched
from headrace.schemas import topics
from headrace.schemas.conflict import decode_conflict
from headrace.schemas.readings import decode_readings
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()
#: 2024-01-01T00:00:00Z
T0 = 1_704_067_200_000


def raw(*payloads: dict[str, Any] | bytes, device: str = "d1", device_type: str = "environmental") -> Records:
    values: list[bytes | None] = [item if isinstance(item, bytes) else orjson.dumps(item) for item in payloads]
    return Records(
        [device.encode()] * len(values),
        values,
        [T0 + 1000] * len(values),
        {
            topics.MESSAGE_ID: [f"m{place}".encode() for place in range(len(values))],
            topics.DEVICE_TYPE: device_type.encode(),
        },
    )


def ingest(*payloads: dict[str, Any] | bytes, device: str = "d1", device_type: str = "environmental") -> Driven:
    return drive(Ingest(TYPES), raw(*payloads, device=device, device_type=device_type))


def readings(driven: Driven) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in driven.sent.get(topics.READINGS, [])]


def test_a_message_becomes_a_reading() -> None:
    """Measures are kept by name, unknown fields and texts in extra; key, append time and ids are carried on."""
    driven = ingest({"timestamp": T0, "temperature": 21.5, "co2": 415, "note": "x", "deviceId": "d1", "noise": None})

    (record,) = driven.sent[topics.READINGS]
    assert record.key == b"d1"
    assert record.timestamp == T0 + 1000
    assert record.headers == {}
    assert orjson.loads(record.value or b"") == {
        "message_id": "m0",
        "device_id": "d1",
        "device_type": "environmental",
        "time": T0,
        "measures": {"temperature": 21.5, "co2": 415.0},
        "extra": {"note": "x"},
    }
    assert driven.dead_letters == []


def test_units_are_converted_and_metrics_derived() -> None:
    """An alias with a unit of its own is converted; the dew point follows where both its inputs are."""
    driven = ingest(
        {"timestamp": T0, "temp_f": 77, "humidity": 50},
        {"timestamp": T0 + 1, "temp": 25, "rssi": -70},
        {"timestamp": T0 + 2, "temperature": 25, "humidity": 0},
    )

    measures = [reading["measures"] for reading in readings(driven)]
    assert measures[0] == pytest.approx({"temperature": 25.0, "humidity": 50.0, "dew_point": 13.86}, abs=0.01)
    assert measures[1] == {"temperature": 25.0, "signalStrength": -70.0}
    assert measures[2] == {"temperature": 25.0, "humidity": 0.0}


@pytest.mark.parametrize(
    ("written", "time"),
    [
        (T0, T0),
        (float(T0), T0),
        ("2024-01-01T00:00:00Z", T0),
        ("2024-01-01T00:00:00.123456Z", T0 + 123),
        ("2024-01-01T08:00:00+08:00", T0),
    ],
)
def test_event_times_are_read_as_declared(written: Any, time: int) -> None:
    """Numbers are ms since 1970, texts ISO 8601 with an offset."""
    assert readings(ingest({"timestamp": written, "co2": 400}))[0]["time"] == time


def test_tilt_and_beijing_air_messages_are_read() -> None:
    """The sensor of the source documents, and a row of the Beijing data, with their texts in extra."""
    tilt = ingest(
        {"timestamp": "2024-01-01T00:00:00Z", "tilt_angle": 15.5, "status": "normal", "battery_level": 85},
        device="s-1",
        device_type="tilt",
    )
    beijing = ingest({"timestamp": T0, "pm25": 4, "co": 10000, "wind_direction": "NNW"}, device_type="beijing-air")

    assert readings(tilt)[0]["measures"] == {"tilt_angle": 15.5, "battery_level": 85.0}
    assert readings(tilt)[0]["extra"] == {"status": "normal"}
    assert readings(beijing)[0]["measures"] == {"pm25": 4.0, "co": 10000.0}
    assert readings(beijing)[0]["extra"] == {"wind_direction": "NNW"}


def test_a_repeat_is_counted_and_goes_nowhere() -> None:
    """The same values again, however written, are a duplicate."""
    operator = Ingest(TYPES)
    payloads: list[dict[str, Any] | bytes] = [{"timestamp": T0, "temperature": 21, "note": [1]}]
    payloads.append(b'{"note":[1],"temp":21.0,"timestamp":%d}' % T0)

    driven = drive(operator, raw(*payloads))

    assert len(readings(driven)) == 1
    assert operator.counters.totals() == {Tally(T0, "environmental"): {"duplicate": 1}}


def test_a_completion_is_passed_on_whole_and_names_what_is_repeated() -> None:
    """What was absent is filled; the reading has all that is known, derived metrics too, and says what was told."""
    operator = Ingest(TYPES)

    driven = drive(
        operator,
        raw(
            {"timestamp": T0, "temperature": 25, "co2": 400},
            {"timestamp": T0, "humidity": 50, "co2": 400},
            {"timestamp": T0, "note": "x"},
        ),
    )

    first, second, third = readings(driven)
    assert first["measures"] == {"temperature": 25.0, "co2": 400.0}
    assert second["measures"] == pytest.approx(
        {"temperature": 25, "humidity": 50, "co2": 400, "dew_point": 13.86}, abs=0.01
    )
    assert second["repeats"] == ["temperature", "co2"]
    assert third["measures"] == second["measures"]
    assert third["repeats"] == ["temperature", "humidity", "co2", "dew_point"]
    assert third["extra"] == {"note": "x"}
    (columns,) = decode_readings([record.value for record in driven.sent[topics.READINGS]])
    assert columns.news()["temperature"].tolist()[0] == 25.0
    assert [str(value) for value in columns.news()["temperature"].tolist()[1:]] == ["nan", "nan"]
    assert operator.counters.totals() == {}


def test_a_conflict_is_kept_aside_whole() -> None:
    """One metric that differs makes the whole message a conflict, with both sides' values and its place in the log."""
    operator = Ingest(TYPES)

    driven = drive(
        operator,
        raw({"timestamp": T0, "temperature": 25, "note": "x"}, {"timestamp": T0, "temperature": 26, "humidity": 50}),
        base_offset=40,
    )

    assert len(readings(driven)) == 1
    (record,) = driven.sent[topics.CONFLICTS]
    conflict = decode_conflict(record.value or b"")
    assert (record.key, conflict.message_id, record.timestamp) == (b"d1", "m1", T0 + 1000)
    assert (conflict.message_id, conflict.device_id, conflict.device_type) == ("m1", "d1", "environmental")
    assert conflict.time == T0
    assert conflict.measures == {"temperature": 26.0, "humidity": 50.0}
    assert conflict.accepted == {"temperature": 25.0}
    assert (conflict.extra, conflict.accepted_extra) == (None, {"note": "x"})
    assert (conflict.origin.topic, conflict.origin.partition, conflict.origin.offset) == (topics.RAW, 0, 41)
    assert operator.counters.totals() == {Tally(T0, "environmental"): {"conflict": 1}}


def test_a_text_that_differs_is_a_conflict_too() -> None:
    """An alarm is never silently taken for the normal reading of the same time."""
    driven = ingest(
        {"timestamp": T0, "tilt_angle": 1, "status": "normal"},
        {"timestamp": T0, "tilt_angle": 1, "status": "alarm"},
        device_type="tilt",
    )

    assert len(readings(driven)) == len(driven.sent[topics.CONFLICTS]) == 1


def test_beyond_the_horizon_messages_are_passed_on() -> None:
    """Older than the horizon by the device's own clock, a repeat is left to the sink."""
    operator = Ingest(TYPES, IngestConfig(dedup_horizon=10))

    driven = drive(operator, raw(*({"timestamp": T0 - ms, "co2": 400} for ms in (10_001, 0, 10_001, 10_000, 10_000))))

    assert [reading["time"] for reading in readings(driven)] == [T0 - 10_001, T0, T0 - 10_001, T0 - 10_000]


def test_device_types_in_one_batch_keep_log_order() -> None:
    """A batch of mixed device types gives readings in the order of the log."""
    parts = [
        raw({"timestamp": T0 + place, "tilt_angle" if kind == "tilt" else "co2": 100}, device_type=kind)
        for place, kind in enumerate(["tilt", "environmental", "tilt", "tilt", "environmental"])
    ]

    driven = drive(Ingest(TYPES), Records.concat(parts))

    assert [reading["time"] - T0 for reading in readings(driven)] == [0, 1, 2, 3, 4]
    assert [orjson.loads(record.value or b"")["device_type"].encode() for record in driven.sent[topics.READINGS]] == [
        name.encode() for name in ("tilt", "environmental", "tilt", "tilt", "environmental")
    ]


def test_unknown_fields_are_counted() -> None:
    """What a device type does not know is counted by name, so that somebody can add it."""
    operator = Ingest(TYPES)

    drive(operator, raw({"timestamp": T0, "co2": 400, "tvoc": 1}, {"timestamp": T0 + 1, "tvoc": 2, "x": None}))

    assert operator.strangers.fields == {("environmental", "tvoc"): 2}


def test_a_batch_that_is_not_finished_leaves_no_trace() -> None:
    """Processing alone changes no table: when the batch is offered again, its messages are no repeats."""
    operator = Ingest(TYPES)
    records = raw({"timestamp": T0, "co2": 400, "tvoc": 1}, {"timestamp": T0, "co2": 400})

    operator.process(Batch(Shared(fetched(records, topics.RAW))))

    assert all(table.changes(0) == {} for table in operator.tables)
    assert (operator.counters.totals(), operator.strangers.fields) == ({}, {})
    assert len(readings(drive(operator, records))) == 1


def test_messages_without_a_usable_id_get_one_from_their_place_in_the_log() -> None:
    """The id is the same whenever the record is read."""
    records = raw({"timestamp": T0, "co2": 400}, {"timestamp": T0 + 1, "co2": 400})
    records.headers[topics.MESSAGE_ID] = [None, b"\xff"]

    first, again = (readings(drive(Ingest(TYPES), records, base_offset=7)) for _ in range(2))

    assert first == again
    assert len({reading["message_id"] for reading in first}) == 2


@st.composite
def logs(draw: st.DrawFn) -> Records:
    """Messages of two devices and two types: good, repeated, completed, contradicted, out of order, and bad."""
    parts = []
    for place in range(draw(st.integers(1, 40))):
        time = T0 + 1000 * (place // 4 + draw(st.integers(-14, 3)))
        kind = draw(st.sampled_from(["environmental", "environmental", "tilt"]))
        fields = ["tilt_angle", "battery_level"] if kind == "tilt" else ["temperature", "humidity"]
        payload: dict[str, Any] = {"timestamp": time}
        payload |= {field: draw(st.sampled_from([20, 30])) for field in fields if draw(st.booleans())}
        if draw(st.integers(0, 4)) == 0:
            payload["status"] = draw(st.sampled_from(["ok", "alarm"]))
        value = draw(st.sampled_from([orjson.dumps(payload)] * 9 + [b"{"]))
        records = raw(value, device=draw(st.sampled_from(["d1", "d2"])), device_type=kind)
        records.headers[topics.MESSAGE_ID] = [f"m{place}".encode()]
        records.timestamps[0] = T0 + 1000 * place
        parts.append(records)
    return Records.concat(parts)


@given(logs(), st.data())
@settings(max_examples=40, deadline=None)
def test_any_batches_and_restarts_give_the_same_bytes(records: Records, data: st.DataObject) -> None:
    """However the log is cut into batches, and restarted between them, every output and counter is the same."""
    config = IngestConfig(dedup_horizon=10)
    whole = Ingest(TYPES, config)
    expected = drive(whole, records)
    operator = Ingest(TYPES, config)
    sent: dict[str, list[Record]] = {}
    dead: list[tuple[int, str]] = []
    changelog = Changelog()
    start = 0

    while start < len(records):
        stop = min(start + data.draw(st.integers(1, 12)), len(records))
        driven = drive(operator, records.slice(start, stop), base_offset=start)
        dead += driven.dead_letters
        for topic, found in driven.sent.items():
            sent.setdefault(topic, []).extend(found)
        start = stop
        if data.draw(st.booleans()):
            changelog.commit(operator)
            operator = Ingest(TYPES, config)
            changelog.restore(operator)

    assert sent == expected.sent
    assert dead == expected.dead_letters
    assert operator.counters.totals() == whole.counters.totals()

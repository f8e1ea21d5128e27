"""What ingest does with the finer points of a device type."""

from datetime import datetime
from typing import Any

import orjson
import pytest

from headrace.agents.ingest import Ingest, IngestConfig
from headrace.agents.strangers import MAX_NAMES, Strangers
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

#: 2026-01-18T10:30:00Z.
TIME = 1_768_732_200_000
TYPES = load_device_types()
NAMES = (b"toaster", b"meter", None, b"\xff")


def labelled(device_type: bytes | None, *payloads: dict[str, Any]) -> Records:
    """Messages of one device, appended a second after `TIME`."""
    return Records(
        [b"d1"] * len(payloads),
        [orjson.dumps(payload) for payload in payloads],
        [TIME + 1000] * len(payloads),
        {topics.DEVICE_TYPE: [device_type] * len(payloads)},
    )


def ingest(device_type: DeviceType, *payloads: dict[str, Any]) -> Driven:
    """What becomes of messages of one device type."""
    return drive(Ingest({device_type.name: device_type}), labelled(device_type.name.encode(), *payloads))


def made(**parts: Any) -> DeviceType:
    """A device type named "meter"."""
    return DeviceType.model_validate({"name": "meter", **parts})


def test_null_is_refused_where_a_field_is_not_nullable() -> None:
    """Under its own name and under an alias; absence is no null, and null elsewhere is absence."""
    meter = made(fields={"power": {"nullable": False, "aliases": {"watts": "1"}}, "state": {"type": "text"}})

    driven = ingest(
        meter,
        {"timestamp": TIME, "power": None, "state": "on"},
        {"timestamp": TIME, "watts": None, "state": "on"},
        {"timestamp": TIME + 1, "power": 5, "state": None},
        {"timestamp": TIME + 2, "state": "on"},
    )

    said = "power is null, which its device type does not allow"
    assert driven.dead_letters == [(0, said), (1, said)]
    assert len(driven.sent[topics.READINGS]) == 2


METER = made(fields={"power": {}})
COLLECTOR = TYPES["collector"]
AGGREGATOR = TYPES["aggregator"]


def measures(driven: Driven) -> list[dict[str, float]]:
    return [orjson.loads(record.value or b"").get("measures", {}) for record in driven.sent.get(topics.READINGS, [])]


def extras(driven: Driven) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"").get("extra", {}) for record in driven.sent.get(topics.READINGS, [])]


def times(driven: Driven) -> list[int]:
    return [orjson.loads(record.value or b"")["time"] for record in driven.sent.get(topics.READINGS, [])]


@pytest.mark.parametrize(
    ("unit", "value", "kept"),
    [
        ({"unit": "C"}, 21.5, 21.5),
        ({"unit": "degC"}, 21.5, 21.5),
        ({"unit": "F"}, 212, 100.0),
        ({"unit": "K"}, 273.15, 0.0),
        ({"unit": None}, 21.5, 21.5),
        ({}, 21.5, 21.5),
    ],
)
def test_the_unit_that_a_message_reports_is_converted(unit: dict[str, Any], value: float, kept: float) -> None:
    """Message by message; without a unit it is that of the field."""
    driven = ingest(COLLECTOR, {"timestamp": TIME, "sensor_type": "temperature", "value": value, **unit})

    assert measures(driven) == [{"temperature": pytest.approx(kept)}]


def test_messages_of_one_device_are_told_apart_by_metric() -> None:
    """Two metrics of one time are one reading, completed; what the message says beside them is kept."""
    driven = ingest(
        AGGREGATOR,
        {"sensor_id": "d1", "type": "temperature", "value": 21.5, "location": "hall", "timestamp": TIME},
        {"sensor_id": "d1", "type": "humidity", "value": 40, "location": "hall", "timestamp": TIME},
    )

    assert driven.dead_letters == []
    assert measures(driven) == [{"temperature": 21.5}, {"temperature": 21.5, "humidity": 40}]
    assert extras(driven) == [{"location": "hall"}] * 2


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"value": 1}, "sensor_type is missing, which names the metric"),
        ({"sensor_type": 5, "value": 1}, "sensor_type is a number, not a text"),
        ({"sensor_type": "temperature", "value": 1, "unit": 5}, "unit is a number, not a text"),
        ({"sensor_type": "temperature", "value": "hot"}, "temperature is the text 'hot', not a number"),
        ({"sensor_type": "temperature", "value": "hot", "unit": "F"}, "temperature is the text 'hot', not a number"),
        ({"sensor_type": "temperature", "value": 999}, "temperature is 999, greater than 150 degC"),
        ({"sensor_type": "temperature", "value": 999, "unit": "F"}, "temperature is 537.2"),
        ({"sensor_type": "temperature", "value": None}, "no measure and no other field"),
        ({"sensor_type": "temperature"}, "no measure and no other field"),
        ({"sensor_type": "timestamp", "value": 5}, "sensor_type is 'timestamp', which is no metric"),
        ({"sensor_type": "value", "value": 5}, "sensor_type is 'value', which is no metric"),
        ({"sensor_type": "temperature", "value": 1, "temperature": 2}, "temperature is given twice"),
        ({"sensor_type": "temp", "value": 1, "temperature": 2}, "temperature is given twice, once as temp"),
        (
            {"sensor_type": "temperature", "value": 1, "unit": "hPa"},
            "unit of temperature is 'hPa', which is none of K, degF, degC, C, Celsius, F, Fahrenheit",
        ),
        (
            {"sensor_type": "temperature", "value": 1, "unit": "m**9**9**9" * 100},
            "unit of temperature is 'm**9**9**9m**9**9**9",
        ),
    ],
)
def test_named_metrics_that_cannot_be_read(payload: dict[str, Any], why: str) -> None:
    """The message is dead-lettered with a reason, and its neighbours are not disturbed."""
    good = {"timestamp": TIME, "sensor_type": "humidity", "value": 40}

    driven = ingest(COLLECTOR, good, {"timestamp": TIME + 1, **payload}, {**good, "timestamp": TIME + 2})

    ((place, reason),) = driven.dead_letters
    assert (place, reason[: len(why)]) == (1, why)
    assert measures(driven) == [{"humidity": 40}] * 2


def test_a_metric_that_is_not_known_is_an_unknown_field() -> None:
    """Kept in extra, with its unit if it has one, or dead-lettered, as the device type says."""
    payloads = (
        {"timestamp": TIME, "sensor_type": "tvoc", "value": 12},
        {"timestamp": TIME + 1, "sensor_type": "tvoc", "value": 12, "unit": "ppb"},
    )
    strict = COLLECTOR.model_copy(update={"unknown_fields": "quarantine"})

    kept, refused = ingest(COLLECTOR, *payloads), ingest(strict, *payloads)

    assert extras(kept) == [{"tvoc": 12}, {"tvoc": {"value": 12, "unit": "ppb"}}]
    assert [reason for _, reason in refused.dead_letters] == ["unknown field tvoc"] * 2


def test_a_time_that_is_missing_may_be_the_append_time() -> None:
    """Only where the payload has none: one that cannot be read is refused all the same."""
    driven = ingest(
        AGGREGATOR,
        {"type": "temperature", "value": 1, "location": "hall"},
        {"type": "temperature", "value": 2, "location": "hall", "timestamp": TIME},
        {"type": "temperature", "value": 3, "location": "hall", "timestamp": "yesterday"},
    )

    assert times(driven) == [TIME + 1000, TIME]
    assert driven.dead_letters == [(2, "timestamp 'yesterday' is not an ISO 8601 time")]


def test_messages_without_a_time_that_were_appended_together_are_a_millisecond_apart() -> None:
    """Nothing of a burst is a conflict, or a repeat for saying the same; a dead letter sent back stays where it was."""
    meter = made(time={"missing": "append"}, fields={"power": {}})
    burst: list[dict[str, Any]] = [{"power": place // 2} for place in range(200)]
    back = labelled(b"meter", {"power": 0}, {"power": 7})
    back.headers[topics.REDRIVEN_FROM] = [b"0-1", b"0-2"]

    driven = drive(Ingest({"meter": meter}), Records.concat([labelled(b"meter", *burst), back]), batch_sizes=[70])

    assert times(driven) == [TIME + 1000 + place for place in range(200)]
    (conflict,) = driven.sent[topics.CONFLICTS]
    assert orjson.loads(conflict.value or b"")["time"] == TIME + 1000


def test_no_message_is_put_further_ahead_than_one_may_be() -> None:
    """`max_ahead` holds for the times that ingest gives; what has no room is compared with the first."""
    meter = made(time={"missing": "append"}, fields={"power": {}})
    burst: list[dict[str, Any]] = [{"power": place} for place in range(9)]

    driven = drive(Ingest({"meter": meter}, IngestConfig(max_ahead=0.005)), labelled(b"meter", *burst))

    assert times(driven) == [TIME + 1000 + place for place in range(6)]
    assert len(driven.sent[topics.CONFLICTS]) == 3


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        ("Europe/Berlin", "2026-01-18T11:30:00", "2026-01-18T10:30:00+00:00"),
        ("Europe/Berlin", "2026-01-18 11:30:00", "2026-01-18T10:30:00+00:00"),
        ("Europe/Berlin", "2026-01-18T10:30:00Z", "2026-01-18T10:30:00+00:00"),
        ("Europe/Berlin", "2025-10-26T02:30:00", "2025-10-26T00:30:00+00:00"),
    ],
)
def test_texts_without_an_offset_are_in_the_zone(zone: str, text: str, utc: str) -> None:
    """An hour that the clocks repeat is read with the offset before the change."""
    meter = made(time={"formats": ["iso8601"], "zone": zone}, fields={"power": {}})

    driven = ingest(meter, {"timestamp": text, "power": 1})

    assert times(driven) == [datetime.fromisoformat(utc).timestamp() * 1000]


def test_unknown_fields_are_dead_lettered_where_the_type_wants_it() -> None:
    """The reason names them; null is no field; both kinds are counted."""
    meter = made(unknown_fields="quarantine", fields={"power": {}})
    operator = Ingest({"meter": meter})
    payloads: list[dict[str, Any]] = [{"power": 1, "powr": 2}, {"power": 1, "b": 1, "a b": 2}, {"power": 1, "c": None}]
    records = labelled(b"meter", *({"timestamp": TIME + place, **each} for place, each in enumerate(payloads)))

    driven = drive(operator, records)

    assert driven.dead_letters == [
        (0, "unknown field powr; did you mean 'power'?"),
        (1, "unknown fields 'a b', b"),
    ]
    assert operator.strangers.fields == {("meter", "powr"): 1, ("meter", "b"): 1, ("meter", "a b"): 1}


def test_messages_of_unknown_types_may_be_kept() -> None:
    """As type unknown, in log order, with the name they came with and all they say in extra."""
    metrics = Metrics()
    operator = Ingest({"meter": METER}, IngestConfig(unknown_types="keep"), metrics=metrics)
    parts = [labelled(name, {"timestamp": TIME + place, "power": place}) for place, name in enumerate(NAMES)]

    driven = drive(operator, Records.concat(parts))

    assert driven.dead_letters == []
    kinds = [orjson.loads(record.value or b"")["device_type"] for record in driven.sent[topics.READINGS]]
    assert kinds == ["unknown", "meter", "unknown", "unknown"]
    assert extras(driven) == [
        {"power": 0, "reported_type": "toaster"},
        {},
        {"power": 2},
        {"power": 3, "reported_type": "\ufffd"},
    ]
    assert operator.strangers.types == {"toaster": 1, "": 1, "\ufffd": 1}
    assert metrics.value("headrace_unknown_types_total", device_type="toaster") == 1


def test_repeats_of_messages_of_unknown_types_are_recognised() -> None:
    """Whatever names they come under within one batch."""
    operator = Ingest({}, IngestConfig(unknown_types="keep"))
    message = {"timestamp": TIME, "power": 1}

    driven = drive(operator, Records.concat([labelled(b"toaster", message), labelled(b"toaster", message)]))

    assert extras(driven) == [{"power": 1, "reported_type": "toaster"}]


def test_what_is_counted_has_a_bound() -> None:
    """Names come from devices: after the first thousand they are counted together."""
    strangers = Strangers()

    for number in range(MAX_NAMES + 5):
        strangers.count_type(f"t{number}", 1)
        strangers.count_fields("meter", {f"f{number}": 1})

    assert len(strangers.types) == len(strangers.fields) == MAX_NAMES + 1
    assert strangers.types["..."] == strangers.fields["meter", "..."] == 5

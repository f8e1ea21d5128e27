"""Every kind of window against the oracle: disorder, silence, backlogs, retries, crashes, and time that passes."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.agents.rollup import Rollup
from headrace.engine.batch import Batch, Idle, Shared
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import Changelog, Driven, drive, readings_log, view
from headrace.schemas import topics
from headrace.schemas.rollup import Rollup as RollupRecord
from headrace.tables.aggregates import Aggregation
from tests.agents.rollup_oracle import MINUTE, SECOND, Oracle, Row, days, fixed

#: An hour before a night in which Berlin's clocks go back: that day has 25 hours.
T0 = 1_761_426_000_000
HOUR = 60 * MINUTE
GRACE, KEEP = 30, 400

KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {"grid": {"10s": fixed(10 * SECOND), "1m": fixed(MINUTE)}},
    "hopping": {"grid": {"1m every 20s": fixed(MINUTE, 20 * SECOND), "1m": fixed(MINUTE)}},
    "sessions": {"grid": {}, "sessions": {"session 8s": 8 * SECOND, "session 30s": 30 * SECOND}},
    "sliding": {"grid": {}, "sliding": {"sliding 20s": 20 * SECOND}},
    "counts": {"grid": {}, "counts": {"count 3": 3, "count 7": 7}},
    "all": {
        "grid": {"20s": fixed(20 * SECOND), "40s every 10s": fixed(40 * SECOND, 10 * SECOND)},
        "sessions": {"session 15s": 15 * SECOND},
        "sliding": {"sliding 12s": 12 * SECOND},
        "counts": {"count 4": 4},
    },
}
MORE = Aggregation(variance=True, percentiles=(0, 50, 90, 100))


def names(kinds: dict[str, Any]) -> list[str]:
    return [name for group in kinds.values() for name in group]


def rollup_of(kinds: dict[str, Any], **options: Any) -> Rollup:
    return Rollup(names(kinds), GRACE, keep=KEEP, aggregation=MORE, **options)


#: Whole numbers, whose sums are exact in any order: sessions add up sums.
whole = st.integers(-1000, 1000).map(float)
measured = st.dictionaries(st.sampled_from(["temperature", "co2"]), whole, max_size=2)
#: Steps of event time from the device's last one: mostly forward, with silences, backlogs and jumps of its clock.
steps = st.sampled_from([0, 1, 1000, 2000, 4000, 7999, 8000, 9000, 31_000, 200_000, -1, -3000, -9000, -25_000, -400_000])
stepped = st.lists(
    st.tuples(st.sampled_from(["a", "a", "b", "c"]), st.sampled_from(["env", "env", "air"]), steps, measured),
    max_size=40,
)


def along(clocks: dict[str, int], rows: list[Row]) -> list[Row]:
    """Event times from steps."""
    out = []
    for device, device_type, step, measures in rows:
        clocks[device] = clocks.get(device, T0) + step
        out.append((device, device_type, clocks[device], measures))
    return out


def rollups_of(driven: Driven, kinds: tuple[str, ...] = ("closed", "correction", "retraction")) -> list[Any]:
    records = driven.sent.get(topics.ROLLUPS, [])
    documents = [{**orjson.loads(record.value or b""), "at": record.timestamp} for record in records]
    return [document for document in documents if document["kind"] in kinds]


def in_order(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("at", "window", "start", "device_id", "device_type", "revision")
    return sorted(documents, key=lambda document: tuple(document[key] for key in keys))


def check(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Every record is as the oracle says; percentiles within the error that they state."""
    assert len(found) == len(expected)
    for one, other in zip(in_order(found), in_order(expected), strict=True):
        assert {**one, "measures": 0, "previous": 0, "window_seconds": 0} == {
            **other, "measures": 0, "previous": 0, "window_seconds": 0
        }  # fmt: skip
        for side in ("measures", "previous"):
            assert (one.get(side) is None) == (other[side] is None)
            check_measures(one.get(side) or {}, other[side] or {})


def check_measures(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, cell in found.items():
        wanted = dict(expected[name])
        values, variance = wanted.pop("values"), wanted.pop("variance")
        assert {key: cell[key] for key in wanted} == wanted
        assert cell.get("variance") == (None if variance is None else pytest.approx(variance, rel=1e-9, abs=1e-9))
        for percentile in MORE.percentiles:
            exact = values[math.floor(percentile / 100 * (len(values) - 1))]
            error = cell["percentile_error"] * abs(exact)
            assert cell["percentiles"][f"p{percentile:g}"] == pytest.approx(exact, rel=1e-12, abs=error * (1 + 1e-9))


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@settings(max_examples=25, deadline=None)
@given(rows=stepped, sizes=st.lists(st.integers(1, 9), max_size=20))
def test_equals_the_oracle(kinds: dict[str, Any], rows: list[Row], sizes: list[int]) -> None:
    """Every record that is sent is what the plain definition says."""
    rows = along({}, rows)
    oracle = Oracle(grace=GRACE * SECOND, keep=KEEP * SECOND, **kinds)
    for place, row in enumerate(rows):
        oracle.feed(place, row, T0 + place)

    driven = drive(rollup_of(kinds), readings_log(rows, T0), batch_sizes=sizes)

    check(rollups_of(driven), oracle.sent)
    late = [orjson.loads(record.value or b"") for record in driven.sent.get(topics.LATE, [])]
    assert [(one["message_id"], set(one["missed_windows"])) for one in late] == oracle.late
    for record in driven.sent.get(topics.ROLLUPS, []):
        RollupRecord.model_validate_json(record.value or b"")


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@settings(max_examples=25, deadline=None)
@given(rows=stepped, sizes=st.lists(st.integers(1, 9), max_size=20), scale=st.sampled_from([1.0, 0.1, 1e9]))
def test_batches_and_crashes_do_not_matter(
    kinds: dict[str, Any], rows: list[Row], sizes: list[int], scale: float
) -> None:
    """Any cut into batches, and a crash with restore after each of them, gives the same bytes in the same order."""
    log = readings_log(
        [(d, t, time, {name: value * scale for name, value in m.items()}) for d, t, time, m in along({}, rows)], T0
    )
    whole_log = drive(rollup_of(kinds), log)

    assert drive(rollup_of(kinds), log, batch_sizes=sizes) == whole_log
    assert drive(rollup_of(kinds), log, batch_sizes=sizes, restart=lambda: rollup_of(kinds)) == whole_log

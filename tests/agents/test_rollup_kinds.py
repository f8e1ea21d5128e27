"""Every kind of window against the oracle: disorder, silence, backlogs, retries, crashes, and time that passes."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from headrace.agents.rollup import Rollup
from headrace.engine.batch import Batch, Idle, Shared
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import Changelog, Driven, drive, readings_log, view
from headrace.schemas import topics
from headrace.schemas.rollup import Rollup as RollupRecord
from headrace.tables.aggregates import Aggregation
from tests.agents.rollup_oracle import MINUTE, SECOND, Oracle, Row, fixed

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
FORWARD, BACK = [0, 1, 1000, 2000, 4000, 7999, 8000, 9000, 31_000, 200_000], [-1, -3000, -9000, -25_000, -400_000]
steps = st.sampled_from([*FORWARD, *BACK])
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


class RollupMachine(RuleBasedStateMachine):
    """A rollup in a worker: batches come, fail and are offered again; it commits, crashes, and gives partitions away.

    What is committed in the end must be what the oracle makes of the log, and of the idle times that were committed.
    """

    @initialize(kinds=st.sampled_from(list(KINDS.values())))
    def begin(self, kinds: dict[str, Any]) -> None:
        self.kinds = kinds
        self.clocks: dict[str, int] = {}
        self.log: list[Row] = []
        self.idles: list[tuple[int, int]] = []  # position in the log, ms
        self.rollup, self.changelog = rollup_of(kinds, emit="both"), Changelog()
        self.position = self.committed = self.committed_idles = 0
        self.visible, self.staged = Driven({}, []), Driven({}, [])

    @rule(rows=stepped)
    def append(self, rows: list[Row]) -> None:
        """Devices speak."""
        self.log += along(self.clocks, rows)

    @rule(count=st.integers(1, 25), fails=st.booleans())
    def work(self, count: int, fails: bool) -> None:
        """A batch; dropped half-way, it is offered again, perhaps cut otherwise."""
        part = self.log[self.position : self.position + count]
        records = readings_log(part, T0 + self.position)
        self._process(records, self.position, None, fails)
        self.position += 0 if fails else len(part)

    @rule(elapsed=st.integers(1, 600_000), fails=st.booleans())
    def pass_time(self, elapsed: int, fails: bool) -> None:
        """Nothing comes."""
        if self.position == len(self.log):
            self._process(Records([], [], []), self.position, Idle(elapsed, T0 + self.position), fails)
            if not fails:
                self.idles.append((self.position, elapsed))

    def _process(self, records: Records, offset: int, idle: Idle | None, fails: bool) -> None:
        target = TopicPartition(self.rollup.topic, 0)
        batch = Batch(Shared(Fetched(target, offset, offset + len(records), records)), idle)
        self.rollup.process(batch)
        if fails:
            return
        batch.finish()
        for send in batch.sends:
            self.staged.sent.setdefault(send.topic, []).extend(send.records)

    @rule()
    def commit(self) -> None:
        """Everything staged becomes visible with the tables that belong to it."""
        self.changelog.commit(self.rollup)
        view(self.rollup, self.staged)
        for topic, records in self.staged.sent.items():
            self.visible.sent.setdefault(topic, []).extend(records)
        self.staged = Driven({}, [])
        self.committed, self.committed_idles = self.position, len(self.idles)

    @rule(how=st.sampled_from(["crash", "crash_in_commit", "crash_in_restore", "give_away"]))
    def restart(self, how: str) -> None:
        """What was not committed never happened."""
        if how == "crash_in_commit":
            Changelog().commit(self.rollup)
        if how == "give_away":
            for table in self.rollup.tables:
                table.forget(0)
        else:
            self.rollup = rollup_of(self.kinds, emit="both")
        if how == "crash_in_restore":
            for table in self.rollup.tables:
                entries = list(self.changelog.tables.get(table.name, {}).items())
                table.restore(0, entries[: len(entries) // 2])
            self.rollup = rollup_of(self.kinds, emit="both")
        self.changelog.restore(self.rollup)
        self.staged = Driven({}, [])
        self.position = self.committed
        del self.idles[self.committed_idles :]

    def teardown(self) -> None:
        """The rest is worked on; then everything is compared."""
        if not hasattr(self, "kinds"):
            return
        while self.position < len(self.log):
            self.work(1000, False)
        self.commit()
        oracle = Oracle(grace=GRACE * SECOND, keep=KEEP * SECOND, **self.kinds)
        for place in range(len(self.log) + 1):
            for position, elapsed in self.idles:
                if position == place:
                    oracle.idle(elapsed, T0 + place)
            if place < len(self.log):
                oracle.feed(place, self.log[place], T0 + place)
        check(rollups_of(self.visible), oracle.sent)
        self.check_updates(oracle)

    def check_updates(self, oracle: Oracle) -> None:
        """The last update of a window that is still open is what it holds."""
        last = {
            (one["window"], one["start"], one["device_id"], one["device_type"]): one
            for one in rollups_of(self.visible, ("update",))
        }
        growing = [(who, window) for who, windows in oracle.windows.items() for window in windows if not window.closed]
        growing += [((device, kind), window) for (device, kind, _), window in oracle.filling.items()]
        for who, window in growing:
            found = last[window.name, window.start, *who]
            assert (found["end"], found["revision"]) == (window.end, window.revision)
            check_measures(found["measures"], window.measures())


@pytest.mark.states
def test_any_history_ends_as_the_oracle_says(pytestconfig: pytest.Config) -> None:
    """Batches, retries, commits, crashes, hand-overs and idle times in any order."""
    run_state_machine_as_test(
        RollupMachine,
        settings=settings(
            max_examples=pytestconfig.getoption("--examples"),
            stateful_step_count=15,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_merged_sessions_leave_nothing_behind_among_updates() -> None:
    """Whoever keeps the newest update of each window, and drops what is retracted, has what the windows hold."""
    rows = [("a", "env", T0 + second * SECOND, {"co2": float(second)}) for second in (0, 12, 24, 7, 9, 28)]
    rollup, driven = Rollup(("session 8s",), GRACE, emit="update"), Driven({}, [])
    kept: dict[int, int] = {}
    for place, row in enumerate(rows):
        for topic, records in drive(rollup, readings_log([row], T0), base_offset=place).sent.items():
            driven.sent.setdefault(topic, []).extend(records)

    for document in rollups_of(driven, ("update", "retraction")):
        if document["kind"] == "retraction":
            del kept[document["start"]]
        else:
            kept[document["start"]] = document["measures"]["co2"]["count"]

    assert len(rollups_of(driven)) == 1  # the retraction
    assert {(start - T0) // SECOND: count for start, count in kept.items()} == {0: 4, 24: 2}

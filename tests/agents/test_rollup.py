"""The rollup agent, against a plain-Python oracle that works record by record."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.rollup import Rollup
from headrace.engine.batch import Batch, Shared
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.engine.testkit import Changelog, Driven, drive, fetched, readings_log
from headrace.schemas import topics
from headrace.schemas.rollup import LateReading
from headrace.schemas.rollup import Rollup as RollupRecord
from tests.agents.rollup_oracle import SECOND, Oracle, Row, fixed

T0 = 1_700_000_000_000 // 3_600_000 * 3_600_000
PARAMETERS: dict[str, Any] = {"windows": ("10s", "60s"), "grace": 30, "keep": 120, "cadences": {"slow": 30}}


def log_of(rows: list[Row]) -> Records:
    return readings_log(rows, first_append=T0)


SECONDS = {"10s": 10, "1m": 60}


def oracle() -> Oracle:
    """The oracle of `PARAMETERS`."""
    grid = {name: fixed(seconds * SECOND) for name, seconds in SECONDS.items()}
    return Oracle(grid, grace=30 * SECOND, keep=120 * SECOND, skipped=[("slow", "10s")])


def as_sent(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The oracle's records as they are without variance and percentiles; those of one reading in their order."""
    found = []
    for document in documents:
        one = {**document, "window_seconds": SECONDS[document["window"]]}
        for side in ("measures", "previous"):
            if one[side] is None:
                del one[side]
            else:
                one[side] = {
                    name: {key: value for key, value in cell.items() if key not in ("variance", "values")}
                    for name, cell in one[side].items()
                }
        found.append(one)
    keys = ("at", "window_seconds", "start", "device_id", "device_type")
    return sorted(found, key=lambda one: tuple(one[key] for key in keys))


def rollups_of(driven: Driven) -> list[dict[str, Any]]:
    return [{**orjson.loads(r.value or b""), "at": r.timestamp} for r in driven.sent.get(topics.ROLLUPS, [])]


values = st.floats(-1000, 1000, allow_nan=False).map(lambda value: value + 0.0)
rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["env", "env", "slow"]),
        st.integers(0, 40).flatmap(lambda ten: st.integers(ten * 10_000 - 3000, ten * 10_000 + 3000)).map(T0.__add__),
        st.dictionaries(st.sampled_from(["temperature", "co2", "humidity"]), values, max_size=3),
    ),
    max_size=60,
)
#: Mostly forward in time, with silences and backlogs: what devices do.
drifting = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "b", "c"]),
        st.sampled_from(["env", "env", "slow"]),
        st.sampled_from([0, 1, 2000, 4000, 9000, 31_000, 200_000, -5000, -25_000, -80_000, -400_000]),
        st.dictionaries(st.sampled_from(["temperature", "co2"]), values, max_size=2),
    ),
    max_size=80,
)


def along(steps: list[Row]) -> list[Row]:
    """Event times from steps, each from the device's own last one."""
    clocks: dict[str, int] = {}
    out: list[Row] = []
    for device, device_type, step, measures in steps:
        clocks[device] = clocks.get(device, T0) + step
        out.append((device, device_type, clocks[device], measures))
    return out


@settings(max_examples=60, deadline=None)
@given(rows | drifting.map(along), st.lists(st.integers(1, 12), max_size=40))
def test_equals_the_oracle(rows: list[Row], sizes: list[int]) -> None:
    """Every closed window, correction and late reading is what the plain definition says, in the same order."""
    expected = oracle()
    for place, row in enumerate(rows):
        expected.feed(place, row, T0 + place)

    driven = drive(Rollup(**PARAMETERS), log_of(rows), batch_sizes=sizes)

    assert rollups_of(driven) == as_sent(expected.sent)
    late = [orjson.loads(r.value or b"") for r in driven.sent.get(topics.LATE, [])]
    missed = [(message_id, [name for name in SECONDS if name in names]) for message_id, names in expected.late]
    assert [(one["message_id"], one["missed_windows"]) for one in late] == missed


@settings(max_examples=60, deadline=None)
@given(rows | drifting.map(along), st.lists(st.integers(1, 12), max_size=40))
def test_batch_boundaries_and_crashes_do_not_matter(rows: list[Row], sizes: list[int]) -> None:
    """Any cut into batches, and a crash with restore after each of them, gives the same bytes in the same order."""
    log = log_of(rows)
    whole = drive(Rollup(**PARAMETERS), log)

    cut = drive(Rollup(**PARAMETERS), log, batch_sizes=sizes)
    crashed = drive(Rollup(**PARAMETERS), log, batch_sizes=sizes, restart=lambda: Rollup(**PARAMETERS))

    assert cut == whole
    assert crashed == whole


def test_windows_of_one_reading_are_written_like_all_others() -> None:
    """A window's bytes do not depend on the others that close with it, nor on what its measures are called."""
    odd: list[Row] = [
        ("a", "env", T0 + start * 10 * SECOND, {"p],[m, 2.5": value, "co2 é": -value} if start % 3 else {})
        for start, value in enumerate([0.1, 1e-9, 1e22, 123456789.125, -0.0, 5e-324, 7.0, 2.0])
    ]
    twice: list[Row] = [("b", "env", time + shift, measures) for _, _, time, measures in odd for shift in (0, 1)]

    alone = drive(Rollup(("10s",)), log_of(odd)).sent[topics.ROLLUPS]
    mixed = drive(Rollup(("10s",)), log_of([*odd, *twice])).sent[topics.ROLLUPS]

    assert [record.value for record in mixed if record.key == b"a"] == [record.value for record in alone]
    for record in alone:
        rollup = RollupRecord.model_validate_json(record.value or b"")
        wanted = odd[(rollup.start - T0) // SECOND // 10][3]
        assert {name: (one.count, one.sum, one.avg, one.first) for name, one in rollup.measures.items()} == {
            name: (1, value, value, value) for name, value in wanted.items()
        }


def emitted(driven: Driven) -> list[tuple[str, int, int]]:
    """Kind, seconds from T0 to the window's start, and count of temperatures, of everything sent."""
    return [
        (one["kind"], (one["start"] - T0) // SECOND, one["measures"]["temperature"]["count"])
        for one in rollups_of(driven)
    ]


def at(seconds: int, device: str = "a", temperature: float = 20.0) -> Row:
    return (device, "env", T0 + seconds * SECOND, {"temperature": temperature})


def test_window_closes_when_its_device_passes_the_end() -> None:
    """A reading at exactly the end closes the window and counts in the next one."""
    driven = drive(Rollup(("10s",)), log_of([at(0), at(9), at(10)]))

    assert emitted(driven) == [("closed", 0, 2)]


def test_silent_device_is_closed_by_the_watermark() -> None:
    """The window of a device that stopped closes when another device is past its end by the grace."""
    driven = drive(Rollup(("10s",), 30), log_of([at(5), at(5, "b"), at(39, "b"), at(40, "b")]))

    assert [(one["device_id"], one["at"] - T0) for one in rollups_of(driven)] == [("b", 2), ("a", 3), ("b", 3)]


def test_backlog_is_not_silence() -> None:
    """A device that uploads old readings, in order, gets each window once, while another one is hours ahead."""
    rows = [at(10_000, "b")]
    for seconds in range(0, 40, 5):
        rows += [at(seconds), at(10_000 + seconds, "b")]

    driven = drive(Rollup(("10s",), 30), log_of(rows))

    assert emitted(driven) == [
        ("closed", start, 3 if start == 10_000 else 2) for start in (0, 10_000, 10, 10_010, 20, 10_020)
    ]


def test_late_reading_corrects_and_says_what_was() -> None:
    """Inside the grace a late reading emits a correction with the values before and after; they validate."""
    driven = drive(Rollup(("10s",), 30), log_of([at(1, temperature=20.0), at(12), at(3, temperature=22.0)]))

    closed, corrected = (RollupRecord.model_validate_json(r.value or b"") for r in driven.sent[topics.ROLLUPS])
    assert (closed.kind, closed.revision, closed.previous) == ("closed", 0, None)
    assert (corrected.kind, corrected.revision, corrected.previous) == ("correction", 1, closed.measures)
    assert corrected.measures["temperature"].avg == 21.0
    assert corrected.measures["temperature"].last == 22.0


def test_too_late_reading_goes_to_the_late_topic() -> None:
    """After the grace nothing changes the window: the reading is counted and kept apart, with the reason."""
    rollup = Rollup(("10s", "1m"), 30)

    driven = drive(rollup, log_of([at(1), at(45), at(2)]))

    assert emitted(driven) == [("closed", 0, 1)]
    late = LateReading.model_validate_json(driven.sent[topics.LATE][0].value or b"")
    assert (late.message_id, late.missed_windows, late.behind_ms) == ("message-2", ["10s"], 5000)
    assert "own clock" in late.reason
    assert rollup.late_count == 1


def test_a_device_days_behind_is_late_and_dropped() -> None:
    """Windows are kept no further behind the watermark than `keep`, in memory and in the changelog."""
    rollup, changelog = Rollup(("10s",), 30, keep=100), Changelog()

    driven = drive(rollup, log_of([at(0), at(1000, "b"), at(1)]))
    changelog.commit(rollup)

    assert len(driven.sent[topics.LATE]) == 1
    windows = [key for key in changelog.tables["rollup.windows"] if key.startswith(b"w")]
    assert [b"\0b\0" in key for key in windows] == [True]


def test_windows_shorter_than_the_cadence_are_skipped() -> None:
    """A type that sends every 30 s has no 10-second windows."""
    driven = drive(Rollup(("10s", "1m"), cadences={"env": 30.0}), log_of([at(0), at(30), at(60)]))

    assert {one["window_seconds"] for one in rollups_of(driven)} == {60}


def test_an_absent_measure_is_not_a_zero() -> None:
    """A reading without a measure leaves that measure alone; a window without any of it leaves it out."""
    rows: list[Row] = [at(0), ("a", "env", T0 + 1, {"co2": 400.0}), ("a", "env", T0 + 2, {}), at(10)]

    measures = rollups_of(drive(Rollup(("10s",)), log_of(rows)))[0]["measures"]

    assert {name: one["count"] for name, one in measures.items()} == {"co2": 1, "temperature": 1}


def test_nothing_changes_before_the_batch_finishes() -> None:
    """A batch that is computed and then dropped leaves no trace in what is sent or remembered."""
    rollup, untouched = Rollup(**PARAMETERS), Rollup(**PARAMETERS)
    for operator in (rollup, untouched):
        drive(operator, log_of([at(1), at(12)]))

    rollup.process(Batch(Shared(fetched(log_of([at(99, temperature=9.0), at(500, "b"), at(2)]), rollup.topic))))

    rest = log_of([at(14), at(3), at(70)])
    assert drive(rollup, rest) == drive(untouched, rest)
    assert rollup.tables[0].changes(0) == untouched.tables[0].changes(0)


def test_wrong_parameters_are_all_named_at_once() -> None:
    """Every bound that is broken is one mistake."""
    with pytest.raises(ConfigError) as caught:
        Rollup(("0s",), 0, keep=-1)

    assert len(caught.value.mistakes) == 3

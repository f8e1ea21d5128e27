"""The identity table: every rule by example, and against a plain model for any batches and restarts."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.readings import Floats
from headrace.tables.seen import Seen
from headrace.tables.seen_block import Entry
from headrace.tables.seen_compare import Verdict, compare
from headrace.tables.seen_devices import EPOCH_MS, Judged, Messages, SeenDevices

HORIZON_MS = 10_000
DAY = EPOCH_MS
Message = tuple[str, int, int, float | None, float | None, str | None]


def messages(rows: list[Message]) -> Messages:
    def column(place: int) -> Floats:
        return np.array([row[place] for row in rows], dtype=np.float64)

    extras = [None if row[5] is None else orjson.dumps({"status": row[5]}) for row in rows]
    measures = {name: column(place) for name, place in (("x", 3), ("y", 4)) if not np.isnan(column(place)).all()}
    return Messages(
        [row[0] for row in rows],
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        measures,
        extras if any(extras) else None,
    )


def verdicts(table: SeenDevices, rows: list[Message]) -> list[str]:
    judged = table.judge(messages(rows))
    judged.apply()
    return [Verdict(verdict).name for verdict in judged.verdicts.tolist()]


def restored(changelog: dict[bytes, bytes], join_below: int = 8192) -> SeenDevices:
    table = SeenDevices(HORIZON_MS, join_below)
    table.restore(changelog)
    return table


def commit(table: SeenDevices, changelog: dict[bytes, bytes]) -> None:
    for key, value in table.changes().items():
        if value is None:
            del changelog[key]
        else:
            changelog[key] = value


class Model:
    """What `SeenDevices` promises, one message at a time, with nothing clever."""

    horizon_ms = HORIZON_MS

    def __init__(self) -> None:
        self.epoch = -1
        self.rows: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {}

    def turn(self, append_time: int) -> None:
        self.epoch = max(self.epoch, append_time // DAY)
        self.rows = {key: row for key, row in self.rows.items() if row[0] >= self.epoch - 1}

    def clock(self, device: str) -> int:
        return max((time for name, time in self.rows if name == device), default=-1)

    def judge(self, message: Message) -> tuple[str, dict[str, Any]]:
        device, time, append_time, x, y, status = message
        self.turn(append_time)
        said = {name: value for name, value in (("x", x), ("y", y), ("status", status)) if value is not None}
        if time < self.clock(device) - self.horizon_ms:
            return "BEYOND", {}
        _, known = self.rows.get((device, time), (0, None))
        if known is None:
            self.rows[device, time] = (self.epoch, said)
            return "NEW", {}
        if any(known.get(name, value) != value for name, value in said.items()):
            return "CONFLICT", known
        if said.keys() <= known.keys():
            return "DUPLICATE", {}
        self.rows[device, time] = (self.epoch, {**known, **said})
        return "COMPLETION", {**known, **said}


def told(judged: Judged, row: int) -> tuple[str, dict[str, Any]]:
    verdict = Verdict(int(judged.verdicts[row]))
    entry = {Verdict.COMPLETION: judged.merged, Verdict.CONFLICT: judged.known}.get(verdict, {}).get(row)
    if entry is None:
        return verdict.name, {}
    return verdict.name, {**entry.measures, **(orjson.loads(entry.extra) if entry.extra else {})}


VALUES = st.sampled_from([None, 1.0, 2.0])
#: How days go by from message to message: seldom, or all the time, with steps back and jumps.
DAYS = (st.sampled_from([0] * 12 + [1, 1, -1, 3]), st.sampled_from([0, 0, 0, 1, 1, -1, 2]))


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    rows: list[Message] = []
    day, days, spread = 100, draw(st.sampled_from(DAYS)), draw(st.sampled_from([3, 12]))
    for _ in range(draw(st.integers(1, 60))):
        day = max(0, day + draw(days))
        x, y, status = draw(VALUES), draw(VALUES), draw(st.sampled_from([None, None, "ok", "alarm"]))
        if x is None and y is None and status is None:
            x = 1.0
        time = 1_000_000 + 1000 * (len(rows) // 3 + draw(st.integers(-spread, spread)))
        rows.append((draw(st.sampled_from("aab")), time, day * DAY + draw(st.integers(0, DAY - 1)), x, y, status))
    return rows


@given(histories(), st.data(), st.sampled_from([2, 6, 8192]))
@settings(max_examples=100, deadline=None)
def test_resume_is_exact(rows: list[Message], data: st.DataObject, join_below: int) -> None:
    """However messages are cut into batches, and wherever the process restarts, the plain model decides the same."""
    model = Model()
    expected = [model.judge(row) for row in rows]
    table, changelog = SeenDevices(HORIZON_MS, join_below), dict[bytes, bytes]()
    got: list[tuple[str, dict[str, Any]]] = []
    committed = start = crashes = 0

    while start < len(rows):
        stop = min(start + data.draw(st.integers(1, 15)), len(rows))
        judged = table.judge(messages(rows[start:stop]))
        got[start:] = [told(judged, row) for row in range(stop - start)]
        judged.apply()
        start = stop
        if data.draw(st.booleans()):
            commit(table, changelog)
            committed = start
        if crashes < 5 and data.draw(st.integers(0, 2)) == 0:
            # What was not committed is read again.
            table, start, crashes = restored(changelog, join_below), committed, crashes + 1

    assert got == expected


def test_judging_changes_nothing_until_it_is_applied() -> None:
    """A batch that raised after judging leaves no trace."""
    table = SeenDevices(HORIZON_MS)
    row: list[Message] = [("a", 5000, 0, 1.0, None, None)]

    table.judge(messages(row))

    assert table.changes() == {}
    assert verdicts(table, row) == ["NEW"]
    assert verdicts(table, row) == ["DUPLICATE"]


def test_the_horizon_is_inclusive() -> None:
    """A repeat exactly at the horizon is recognised, one millisecond older is passed on."""
    table = SeenDevices(HORIZON_MS)
    verdicts(table, [("a", 20_000, 0, 1.0, None, None), ("a", 10_000, 0, 1.0, None, None)])

    assert verdicts(table, [("a", 10_000, 0, 1.0, None, None)]) == ["DUPLICATE"]
    assert verdicts(table, [("a", 9_999, 0, 1.0, None, None)]) == ["BEYOND"]


def test_expired_readings_leave_the_table_and_its_changelog() -> None:
    """A device that goes on for long keeps about a horizon's worth of readings, here and in the changelog."""
    table, changelog = SeenDevices(HORIZON_MS, join_below=16), dict[bytes, bytes]()

    for second in range(2000):
        verdicts(table, [("a", 1000 * second, 0, 1.0, 2.0, None)])
        commit(table, changelog)

    assert len(table) < 60
    assert len(changelog) < 12


def test_silent_devices_do_not_keep_the_readings_of_others() -> None:
    """Blocks that only silent devices keep alive shrink to what those need."""
    table, changelog = SeenDevices(HORIZON_MS), dict[bytes, bytes]()
    for second in range(300):
        busy: list[Message] = [("a", 1000 * second + ms, 0, 1.0, None, None) for ms in range(50)]
        verdicts(table, [(f"silent-{second}", 1000, 0, 1.0, None, None), *busy])
        commit(table, changelog)

    assert 300 + 500 <= len(table) < 2500
    assert verdicts(restored(changelog), [("silent-7", 1000, 0, 1.0, None, None)]) == ["DUPLICATE"]


def test_devices_that_fell_silent_are_forgotten_after_two_days() -> None:
    """A device of which nothing came for two days of append time takes no memory; its old readings are new again."""
    table, changelog = SeenDevices(HORIZON_MS), dict[bytes, bytes]()
    verdicts(table, [("gone", 1000, 0, 1.0, None, None), ("here", 1000, 0, 1.0, None, None)])
    verdicts(table, [("here", 2000, DAY, 1.0, None, None)])
    verdicts(table, [("here", 3000, 2 * DAY, 1.0, None, None)])
    commit(table, changelog)

    assert len(table) == 2
    assert b"gone" not in b"".join(changelog.values())
    assert verdicts(restored(changelog), [("gone", 1000, 2 * DAY, 2.0, None, None)]) == ["NEW"]
    assert verdicts(table, [("gone", 1000, 2 * DAY, 2.0, None, None)]) == ["NEW"]


def test_a_reading_of_four_measures_takes_few_bytes() -> None:
    """A reading costs less than 64 bytes in the changelog, device names aside."""
    table = SeenDevices(HORIZON_MS)
    total = 5000
    columns = {name: np.arange(total, dtype=np.float64) for name in "abcd"}
    times = np.arange(total) % 10 * 1000 + 1_700_000_000_000
    names = [f"device-{row // 10}" for row in range(total)]

    table.judge(Messages(names, times, times, columns)).apply()

    assert sum(len(value or b"") for value in table.changes().values()) < 64 * total


@pytest.mark.parametrize(
    ("known", "said", "verdict"),
    [
        (Entry({"x": 1.0}, None), Entry({"x": 1.0}, None), Verdict.DUPLICATE),
        (Entry({"x": 1.0, "y": 2.0}, b'{"s":"ok"}'), Entry({"y": 2.0}, None), Verdict.DUPLICATE),
        (Entry({"x": 1.0}, None), Entry({"y": 2.0}, None), Verdict.COMPLETION),
        (Entry({"x": 1.0}, None), Entry({"x": 1.0}, b'{"s":"ok"}'), Verdict.COMPLETION),
        (Entry({"x": 1.0}, None), Entry({"x": 1.5, "y": 2.0}, None), Verdict.CONFLICT),
        (Entry({"x": 1.0}, b'{"s":"ok"}'), Entry({"x": 1.0}, b'{"s":"alarm"}'), Verdict.CONFLICT),
        (Entry({}, b'{"s":1}'), Entry({}, b'{"s":true}'), Verdict.CONFLICT),
    ],
)
def test_what_a_second_message_is(known: Entry, said: Entry, verdict: Verdict) -> None:
    """Only filling gaps completes, saying the same repeats, anything else contradicts; extras count like measures."""
    assert compare(known, said)[0] is verdict


def test_extras_are_merged_with_sorted_keys() -> None:
    """A completion of extras gives the same bytes whichever came first."""
    known, said = Entry({}, b'{"b":{"z":1}}'), Entry({}, b'{"a":[2]}')

    assert compare(known, said)[1].extra == compare(said, known)[1].extra == b'{"a":[2],"b":{"z":1}}'


def test_tables_of_types_and_partitions_are_apart() -> None:
    """The same device and time in another partition, or of another device type, is no repeat; both are restored."""
    seen, again = Seen(10.0), Seen(10.0)
    row = messages([("a", 1000, 0, 1.0, None, None)])
    for partition, device_type in ((0, "tilt"), (0, "pump"), (1, "tilt")):
        judged = seen.judge(partition, device_type, row)
        judged.apply()
        assert judged.verdicts.tolist() == [Verdict.NEW]

    again.restore(0, [(key, value) for key, value in seen.changes(0).items() if value is not None])
    again.restored(0)
    seen.forget(1)

    assert again.judge(0, "tilt", row).verdicts.tolist() == [Verdict.DUPLICATE]
    assert again.judge(0, "pump", row).verdicts.tolist() == [Verdict.DUPLICATE]
    assert again.judge(1, "tilt", row).verdicts.tolist() == [Verdict.NEW]
    assert (seen.count(0), seen.count(1)) == (2, 0)

"""Messages without a time in the identity table: a place for each, by example and against a plain model."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.tables.seen_compare import Verdict
from headrace.tables.seen_devices import EPOCH_MS, Messages, SeenDevices
from tests.tables.test_seen import Message, Model, commit, messages, told

#: So near that a burst of a few messages meets both, ms.
HORIZON_MS, AHEAD_MS = 12, 5
NOON = 100 * EPOCH_MS + EPOCH_MS // 2
Placed = tuple[str, dict[str, Any], int]


class Sent(NamedTuple):
    """A message; without a time of its own it has None."""

    device: str
    time: int | None
    appended: int
    x: float | None = None
    y: float | None = None
    status: str | None = None

    def at(self, time: int) -> Message:
        """The same with a time."""
        return (self.device, time, self.appended, self.x, self.y, self.status)


class UntimedModel(Model):
    """What `NextFree` promises: looks at every millisecond, one after the other."""

    horizon_ms = HORIZON_MS

    def place(self, sent: Sent) -> Placed:
        """The verdict, what is told, and the event time of a message."""
        if sent.time is not None:
            time = sent.time
        else:
            self.turn(sent.appended)
            time = self._place(sent)
        return (*self.judge(sent.at(time)), time)

    def _place(self, sent: Sent) -> int:
        if sent.appended < self.clock(sent.device) - HORIZON_MS:
            return sent.appended
        last = None
        for time in range(sent.appended, sent.appended + AHEAD_MS + 1):
            if (sent.device, time) not in self.rows:
                break
            last = time
        else:
            time = sent.appended
        return last if last is not None and self._only_adds(sent, last) else time

    def _only_adds(self, sent: Sent, time: int) -> bool:
        said = {name for name in ("x", "y", "status") if getattr(sent, name) is not None}
        _, known = self.rows[sent.device, time]
        same_status = known.get("status", sent.status) == sent.status or sent.status is None
        return same_status and not said & known.keys() & {"x", "y"} and not said <= known.keys()


def batch(rows: list[Sent]) -> Messages:
    """As ingest hands them to the table."""
    found = messages([row.at(row.appended if row.time is None else row.time) for row in rows])
    untimed = np.array([row.time is None for row in rows], dtype=bool)
    found.untimed = untimed if untimed.any() else None
    return found


def table_of(changelog: dict[bytes, bytes], join_below: int = 8192, ahead_ms: int = AHEAD_MS) -> SeenDevices:
    """As it is after a restart."""
    table = SeenDevices(max(HORIZON_MS, ahead_ms), join_below, ahead_ms)
    table.restore(changelog)
    return table


def judged(table: SeenDevices, rows: list[Sent]) -> list[tuple[str, int]]:
    """Verdict and event time of each."""
    found = table.judge(batch(rows))
    found.apply()
    return [(Verdict(verdict).name, time) for verdict, time in zip(found.verdicts, found.times.tolist(), strict=True)]


@st.composite
def histories(draw: st.DrawFn) -> list[Sent]:
    """Bursts, devices that also send times, clocks that step back, days that go by."""
    rows: list[Sent] = []
    appended = NOON
    steps = draw(st.sampled_from([[0], [0, 0, 0, 1], [0, 0, 1, 2, 20, -1, -4], [0, 0, 0, 0, 3, EPOCH_MS, -EPOCH_MS]]))
    timed = draw(st.sampled_from([0, 1, 5]))
    values = st.sampled_from([None, 1.0, 2.0])
    for _ in range(draw(st.integers(1, 60))):
        appended += draw(st.sampled_from(steps))
        x, y, status = draw(values), draw(values), draw(st.sampled_from([None, None, None, "ok", "alarm"]))
        if x is None and y is None and status is None:
            x = 1.0
        time = appended + draw(st.integers(-9, 14)) if draw(st.integers(0, 9)) < timed else None
        rows.append(Sent(draw(st.sampled_from("aaab")), time, appended, x, y, status))
    return rows


@given(histories(), st.data(), st.sampled_from([2, 6, 8192]))
@settings(max_examples=100, deadline=None)
def test_every_message_has_the_place_of_the_plain_model(rows: list[Sent], data: st.DataObject, join_below: int) -> None:
    """However messages are cut into batches, and wherever the process restarts."""
    model = UntimedModel()
    expected = [model.place(row) for row in rows]
    table, changelog = table_of({}, join_below), dict[bytes, bytes]()
    got: list[Placed] = []
    committed = start = crashes = 0

    while start < len(rows):
        stop = min(start + data.draw(st.integers(1, 25)), len(rows))
        found = table.judge(batch(rows[start:stop]))
        got[start:] = [(*told(found, row), time) for row, time in enumerate(found.times.tolist())]
        found.apply()
        start = stop
        if data.draw(st.booleans()):
            commit(table, changelog)
            committed = start
        if crashes < 5 and data.draw(st.integers(0, 2)) == 0:
            table, start, crashes = table_of(changelog, join_below), committed, crashes + 1

    assert got == expected


def test_a_burst_becomes_as_many_readings() -> None:
    """One append, two hundred values of a device, also where they are the same: a millisecond each, in their order."""
    table = table_of({}, ahead_ms=300)
    rows = [Sent("a", None, NOON, x=float(number // 2)) for number in range(200)]

    assert judged(table, rows) == [("NEW", NOON + place) for place in range(200)]
    assert judged(table, [Sent("a", None, NOON + 150, x=5.0)]) == [("NEW", NOON + 200)]
    assert judged(table, [Sent("a", None, NOON + 300, x=5.0), Sent("b", None, NOON)]) == [
        ("NEW", NOON + 300),
        ("NEW", NOON),
    ]


def test_metrics_that_come_one_by_one_meet_in_a_reading() -> None:
    """What only adds measures completes the reading before it; the next of a metric begins another."""
    table = table_of({})
    rows = [
        Sent("a", None, NOON, x=1.0, status="ok"),
        Sent("a", None, NOON, y=1.0, status="ok"),
        Sent("a", None, NOON, x=1.0, status="ok"),
        Sent("a", None, NOON, y=1.0),
    ]

    found = judged(table, rows)

    assert found == [("NEW", NOON), ("COMPLETION", NOON), ("NEW", NOON + 1), ("COMPLETION", NOON + 1)]


def test_beyond_the_limit_messages_are_compared_at_their_append() -> None:
    """What has no place any more says the same as the first, or contradicts it; a later append finds one again."""
    table = table_of({})
    rows = [Sent("a", None, NOON, x=float(number)) for number in range(AHEAD_MS + 1)]
    judged(table, rows)

    found = judged(
        table, [Sent("a", None, NOON, x=0.0), Sent("a", None, NOON, x=9.0), Sent("a", None, NOON + 1, x=9.0)]
    )

    assert found == [("DUPLICATE", NOON), ("CONFLICT", NOON), ("NEW", NOON + AHEAD_MS + 1)]


def test_messages_with_a_time_are_judged_by_it() -> None:
    """Beside others without: a repeat is one, and nobody is given its millisecond."""
    table = table_of({})
    rows = [
        Sent("a", NOON + 1, NOON, x=1.0),
        Sent("a", None, NOON, x=2.0),
        Sent("a", None, NOON, x=3.0),
        Sent("a", NOON + 1, NOON, x=1.0),
    ]

    assert judged(table, rows) == [("NEW", NOON + 1), ("NEW", NOON), ("NEW", NOON + 2), ("DUPLICATE", NOON + 1)]


def test_what_the_reading_before_was_completed_with_counts() -> None:
    """Wherever that is stored: a message that says it again begins another reading."""
    table = table_of({}, join_below=1)
    judged(table, [Sent("a", None, NOON, x=1.0), Sent("b", None, NOON, x=1.0)])

    found = [judged(table, [Sent("a", None, NOON, y=y)]) for y in (1.0, 2.0)]

    assert found == [[("COMPLETION", NOON)], [("NEW", NOON + 1)]]

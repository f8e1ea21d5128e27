"""Event times for messages that bring none: of each device the next free millisecond from their append on."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.schemas.readings import Ints
from headrace.tables.seen_accepted import NEVER, clock_before
from headrace.tables.seen_block import TIME_BITS, TIME_MASK, Block, Bools, Entry, codes_of
from headrace.tables.seen_compare import Verdict, compare


class Rows(NamedTuple):
    """Messages in log order, as columns of equal length n.

    Args:
        devices: (n,) int64, the place of each message's device in `numbers` and `clocks`.
        times: (n,) int64, event time, ms; of those without the time of their append.
        untimed: (n,) bool, those without.
        entry: what message `row` says.
        numbers: (m,) int64, of each device in the table; `NEVER` if the table has no room for it.
        clocks: (m,) int64, of each device before the first message, ms.
    """

    devices: Ints
    times: Ints
    untimed: Bools
    entry: Callable[[int], Entry]
    numbers: Ints
    clocks: Ints


@dataclass(slots=True, frozen=True)
class NextFree:
    """Puts messages without a time where no other reading of their device is.

    One gets the first millisecond from its append on at which nothing of its device was accepted, `ahead_ms` after the
    append at the latest. It joins the reading before that, if it only adds measures to it; so metrics that are sent one
    by one meet. Where all those milliseconds are taken, or what was accepted there is not known any more (the append is
    further behind the device's clock than the horizon), it keeps the time of its append.

    Follows from what was accepted and nothing else, so it has no state of its own, and batches make no difference.

    Costs nothing but two comparisons a message where no device has two readings in a millisecond; else some µs for each
    message of those that have.

    Args:
        horizon_ms: see `headrace.tables.seen_devices.SeenDevices`.
        ahead_ms: how far ahead of its append a message may be put; not more than `horizon_ms`, or a device that is
            ahead could not be followed.
    """

    horizon_ms: int
    ahead_ms: int

    def times(self, rows: Rows, blocks: Sequence[Block]) -> Ints:
        """Event times, (n,), ms, of all messages.

        Args:
            blocks: what was accepted before, oldest first.
        """
        before = clock_before(rows.devices, rows.times, rows.clocks)
        # Ahead of its device's clock an append is free, so it is as it should be for devices that are not here.
        met = rows.untimed & (rows.times <= before) & (rows.numbers != NEVER)[rows.devices]
        if not met.any():
            return rows.times
        chosen = np.isin(rows.devices, rows.devices[met])
        taken = self._taken(rows, chosen & rows.untimed, blocks)
        times, clocks = rows.times.copy(), rows.clocks.tolist()
        for row in chosen.nonzero()[0].tolist():
            place, time = int(rows.devices[row]), int(rows.times[row])
            if time >= clocks[place] - self.horizon_ms:
                code, said = int(rows.numbers[place]) << TIME_BITS | time, rows.entry(row)
                if rows.untimed[row]:
                    code = taken.place(code, said, min(self.ahead_ms, TIME_MASK - time))
                    times[row] = time = code & TIME_MASK
                taken.accept(code, said)
            clocks[place] = max(clocks[place], time)
        return times

    def _taken(self, rows: Rows, untimed: Bools, blocks: Sequence[Block]) -> "_Taken":
        """What was accepted where these messages might be put."""
        devices, times = rows.devices[untimed], rows.times[untimed]
        first = np.full(len(rows.numbers), TIME_MASK, dtype=np.int64)
        last = np.full(len(rows.numbers), NEVER, dtype=np.int64)
        np.minimum.at(first, devices, times)
        np.maximum.at(last, devices, times + self.ahead_ms)
        last = np.minimum(last, np.minimum(rows.clocks, TIME_MASK))
        asked = (first <= last).nonzero()[0]
        asked = asked[np.argsort(rows.numbers[asked])]
        numbers = rows.numbers[asked]
        return _Taken(blocks, codes_of(numbers, first[asked]), codes_of(numbers, last[asked]))


class _Taken:
    """At which milliseconds some devices have readings, as codes, and what those say.

    Args:
        blocks: of readings, oldest first.
        first, last: (m,) int64, the codes to look between, both included; ascending.
    """

    def __init__(self, blocks: Sequence[Block], first: Ints, last: Ints) -> None:
        found = _look(blocks, first, last) if len(first) else []
        # The newest block is first, as it knows best.
        codes, at = np.unique(_joined([block.codes[rows] for block, rows in found]), return_index=True)
        #: What the table has: codes, ascending, and for each the block and the row in it.
        self._known: Ints = codes
        self._blocks = [block for block, _ in found]
        self._block_of = _joined([np.full(len(rows), place) for place, (_, rows) in enumerate(found)])[at]
        self._row_of = _joined([rows for _, rows in found])[at]
        #: Codes that follow each other are a run: where each begins, and what is behind its end.
        breaks = (np.diff(codes) != 1).nonzero()[0]
        self._begins: list[int] = codes[np.append(0, breaks + 1)].tolist() if len(codes) else []
        self._ends: list[int] = (codes[np.append(breaks, -1)] + 1).tolist() if len(codes) else []
        self._entries: dict[int, Entry] = {}
        #: By code that a message has taken, a later one such that all between are taken too.
        self._later: dict[int, int] = {}

    def place(self, code: int, said: Entry, ahead_ms: int) -> int:
        """Where to put a message that says `said` and was appended at `code`."""
        free = self._free(code)
        last = min(free - 1, code + ahead_ms)
        if last >= code and _adds(self._entry(last), said):
            return last
        return free if free <= code + ahead_ms else code

    def accept(self, code: int, said: Entry) -> None:
        """Take note of a message; like the table, of what it adds only."""
        before = self._entry(code)
        self._entries[code] = said if before is None else compare(before, said)[1]
        self._later.setdefault(code, code + 1)

    def _free(self, code: int) -> int:
        passed: list[int] = []
        while (later := self._later.get(code) or self._end_of_run(code)) is not None:
            passed.append(code)
            code = later
        # The next search takes one step.
        self._later.update(dict.fromkeys(passed, code))
        return code

    def _end_of_run(self, code: int) -> int | None:
        run = bisect_right(self._begins, code) - 1
        return self._ends[run] if run >= 0 and code < self._ends[run] else None

    def _entry(self, code: int) -> Entry | None:
        entry = self._entries.get(code)
        if entry is None and len(self._known):
            at = int(np.searchsorted(self._known, code))
            if at < len(self._known) and self._known[at] == code:
                entry = self._entries[code] = self._blocks[self._block_of[at]].entry(int(self._row_of[at]))
        return entry


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _look(blocks: Sequence[Block], first: Ints, last: Ints) -> list[tuple[Block, Ints]]:
    """The blocks with readings there, newest first, and which rows those are."""
    earliest, latest = int((first & TIME_MASK).min()), int((last & TIME_MASK).max())
    found: list[tuple[Block, Ints]] = []
    for block in reversed(blocks):
        if block.latest < earliest or block.earliest > latest:
            continue
        starts, stops = np.searchsorted(block.codes, first), np.searchsorted(block.codes, last, side="right")
        some = (stops > starts).nonzero()[0].tolist()
        if some:
            found.append((block, np.concatenate([np.arange(starts[place], stops[place]) for place in some])))
    return found


def _adds(before: Entry | None, said: Entry) -> bool:
    """Whether a message only adds to a reading; to measure the same again is something new, whatever is measured."""
    if before is None or not before.measures.keys().isdisjoint(said.measures):
        return False
    return compare(before, said)[0] == Verdict.COMPLETION

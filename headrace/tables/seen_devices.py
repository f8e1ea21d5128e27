"""The identity table of one partition and device type: every decision about repeats is made here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.readings import Floats, Ints
from headrace.tables.seen_accepted import NEVER, Accepted, clock_before, turned
from headrace.tables.seen_block import (
    MAX_DEVICES,
    TIME_MASK,
    Block,
    Bools,
    Entry,
    Extras,
    codes_of,
    entry_of,
)
from headrace.tables.seen_compare import Verdict, compare
from headrace.tables.seen_untimed import NextFree, Rows

#: Length of an epoch, ms of append time. What was accepted before the previous epoch is forgotten.
EPOCH_MS = 86_400_000

Verdicts = NDArray[np.uint8]


@dataclass(slots=True)
class Messages:
    """Messages of one device type, in log order, as columns of equal length n.

    Args:
        device_ids: one per message.
        times: (n,) int64, event time, ms; of a message without one that of its append.
        append_times: (n,) int64, ms.
        measures: by name, (n,) float64; NaN where a message has none.
        extras: per message, as JSON with sorted keys; None for "nothing, in all of them".
        untimed: (n,) bool, which are without an event time, and may be put a little later; None for "none of them".
    """

    device_ids: Sequence[str]
    times: Ints
    append_times: Ints
    measures: dict[str, Floats]
    extras: Extras | None = None
    untimed: Bools | None = None

    def entry(self, row: int) -> Entry:
        """What message `row` says."""
        return entry_of(self.measures, self.extras, row)


@dataclass(slots=True)
class Judged:
    """What the messages are.

    Args:
        verdicts: (n,) uint8, a `Verdict` each.
        times: (n,) int64, event times, ms: those of the messages, but where a message has none, see `NextFree`.
        known: what was accepted before, for each message that is a completion or a conflict.
        merged: what is known now, for each completion.
        apply: makes the table remember it; to be called once, before the next messages are judged.
    """

    verdicts: Verdicts
    times: Ints
    known: dict[int, Entry] = field(default_factory=dict)
    merged: dict[int, Entry] = field(default_factory=dict)
    apply: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Draft:
    """What judging would change."""

    epoch: int
    new_names: list[str]
    numbers: Ints  # (devices of the messages,), their numbers in the table; NEVER if it is full
    clocks: Ints  # (2, devices of the messages)
    blocks: list[Block] = field(default_factory=list)


class SeenDevices:
    """Accepted readings of one partition and device type.

    A device's clock is its largest accepted event time. A message is compared with what was accepted for the same time
    if that is at most `horizon_ms` behind the clock. The clock before each message counts, so batches make no
    difference.

    So that silent devices do not stay for ever, what was accepted before the previous epoch (a day of append time, as
    the largest append time so far tells it) is forgotten, clock and all: after 24 to 48 hours.

    About 60 bytes a reading of four measures, and 200 a device.

    Args:
        horizon_ms: see above.
        join_below: see `Accepted`.
        max_ahead_ms: how far ahead of its append a message without a time may be put; counts up to the horizon.
    """

    def __init__(self, horizon_ms: int, join_below: int = 8192, max_ahead_ms: int = 0) -> None:
        self._horizon_ms = horizon_ms
        self._next_free = NextFree(horizon_ms, min(max_ahead_ms, horizon_ms))
        self._accepted = Accepted(horizon_ms, join_below)
        #: See `Accepted`.
        self.changes = self._accepted.changes
        self.restore = self._accepted.restore

    def __len__(self) -> int:
        """Readings that are kept."""
        return len(self._accepted)

    def judge(self, messages: Messages) -> Judged:
        """Decide on each message, in order. Changes nothing until `Judged.apply` is called."""
        total = len(messages.times)
        judged = Judged(np.zeros(total, dtype=np.uint8), messages.times)
        if not total:
            return judged
        if messages.untimed is not None:
            judged.times = messages.times.copy()
        places = {name: place for place, name in enumerate(dict.fromkeys(messages.device_ids))}
        devices = np.array([places[name] for name in messages.device_ids], dtype=np.int64)
        draft = self._draft(list(places))
        epochs = np.maximum.accumulate(np.maximum(messages.append_times // EPOCH_MS, self._accepted.epoch))
        bounds = [0, *((epochs[1:] != epochs[:-1]).nonzero()[0] + 1).tolist(), total]
        for start, stop in pairwise(bounds):
            self._turn(draft, int(epochs[start]))
            self._judge(messages, devices, draft, judged, start, stop)
        judged.apply = lambda: self._apply(draft)
        return judged

    def _draft(self, names: list[str]) -> _Draft:
        known = self._accepted.numbers
        numbers = np.array([known.get(name, NEVER) for name in names], dtype=np.int64)
        clocks = np.full((2, len(names)), NEVER, dtype=np.int64)
        old = numbers != NEVER
        clocks[:, old] = self._accepted.clocks[:, numbers[old]]
        strangers = (~old).nonzero()[0][: MAX_DEVICES - len(known)]
        numbers[strangers] = np.arange(len(known), len(known) + len(strangers))
        return _Draft(self._accepted.epoch, [names[place] for place in strangers.tolist()], numbers, clocks)

    @staticmethod
    def _turn(draft: _Draft, epoch: int) -> None:
        if draft.epoch != NEVER and epoch > draft.epoch:
            draft.clocks = turned(draft.clocks, epoch - draft.epoch)
        draft.epoch = epoch

    def _judge(self, messages: Messages, devices: Ints, draft: _Draft, judged: Judged, start: int, stop: int) -> None:
        """Decide on messages `start` to `stop`, which are of one epoch."""
        devices, times = devices[start:stop], judged.times[start:stop]
        if messages.untimed is not None:
            rows = Rows(
                devices,
                times,
                messages.untimed[start:stop],
                lambda row: messages.entry(row + start),
                draft.numbers,
                draft.clocks.max(axis=0),
            )
            times[:] = self._next_free.times(rows, self._blocks(draft))
        clock = clock_before(devices, times, draft.clocks.max(axis=0))
        numbers = draft.numbers[devices]
        codes = codes_of(numbers, times)
        verdicts = judged.verdicts[start:stop]
        verdicts[(times < clock - self._horizon_ms) | (numbers == NEVER)] = Verdict.BEYOND
        # Ahead of its device's clock, a message cannot be a repeat; nearly all are.
        ahead = times > clock
        asked = (~ahead & (verdicts == Verdict.NEW)).nonzero()[0]
        latest: dict[int, Entry] = {}
        if len(asked):
            latest = self._compare(messages, codes, ahead, asked, draft, judged, start)
        rows = (verdicts == Verdict.NEW).nonzero()[0]
        block = _block(draft.epoch, codes[rows], messages, rows + start, latest)
        if block is not None:
            draft.blocks.append(block)
        accepted = verdicts == Verdict.COMPLETION
        accepted[rows] = True
        np.maximum.at(draft.clocks[1], devices[accepted], times[accepted])

    def _compare(
        self, messages: Messages, codes: Ints, ahead: Bools, asked: Ints, draft: _Draft, judged: Judged, start: int
    ) -> dict[int, Entry]:
        """Decide on the messages `asked`. Returns what is known now, by code, where a message was completed."""
        wanted, counts = np.unique(codes[asked], return_counts=True)
        known = self._find(wanted, draft)
        earlier = (np.isin(codes, wanted) & ahead).nonzero()[0].tolist()
        for row in earlier:
            known[int(codes[row])] = messages.entry(row + start)
        repeated = {*known, *wanted[counts > 1].tolist()}
        latest: dict[int, Entry] = {}
        if not repeated:
            return latest
        for row in asked[np.isin(codes[asked], list(repeated))].tolist():
            code = int(codes[row])
            said = messages.entry(row + start)
            before = known.get(code)
            if before is None:
                known[code] = said
                continue
            verdict, known[code] = compare(before, said)
            judged.verdicts[row + start] = verdict
            if verdict != Verdict.DUPLICATE:
                judged.known[row + start] = before
            if verdict == Verdict.COMPLETION:
                judged.merged[row + start] = latest[code] = known[code]
        return latest

    def _blocks(self, draft: _Draft) -> list[Block]:
        """What was accepted and is not forgotten, oldest first."""
        return [block for block in (*self._accepted.blocks(), *draft.blocks) if block.epoch >= draft.epoch - 1]

    def _find(self, wanted: Ints, draft: _Draft) -> dict[int, Entry]:
        """The entries of those of `wanted` (ascending) that were accepted."""
        found: dict[int, Entry] = {}
        times = wanted & TIME_MASK
        earliest, latest = int(times.min()), int(times.max())
        for block in reversed(self._blocks(draft)):
            if block.latest < earliest or block.earliest > latest:
                continue
            places, rows = block.find(wanted)
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                # The newest block is looked at first, and knows best.
                found.setdefault(int(wanted[place]), block.entry(row))
        return found

    def _apply(self, draft: _Draft) -> None:
        placed = draft.numbers != NEVER
        self._accepted.take(draft.epoch, draft.new_names, draft.numbers[placed], draft.clocks[:, placed], draft.blocks)


def _block(epoch: int, codes: Ints, messages: Messages, rows: Ints, latest: dict[int, Entry]) -> Block | None:
    """New readings, and those that were completed in their newest form, as a block."""
    extras = messages.extras
    measures = {name: column[rows] for name, column in messages.measures.items()}
    chosen: Extras | None = None if extras is None else [extras[row] for row in rows.tolist()]
    if latest:
        entries = list(latest.values())
        names = dict.fromkeys([*measures, *(name for entry in entries for name in entry.measures)])
        for name in names:
            old = measures.get(name, np.full(len(rows), np.nan))
            measures[name] = np.append(old, [entry.measures.get(name, np.nan) for entry in entries])
        chosen = [*(chosen or [None] * len(rows)), *(entry.extra for entry in entries)]
        if not any(chosen):
            chosen = None
        codes = np.append(codes, list(latest))
    if not len(codes):
        return None
    return Block.build(epoch, codes, measures, chosen)

"""Sequence numbers per device: what was lost on the way, came late or twice, and when a device began anew."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from headrace.agents.ingest_outputs import Group
from headrace.agents.sequence_fold import Counted, Outcome, Told, counted
from headrace.engine.batch import Batch, Send
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.sequence import SequenceCounts
from headrace.tables.keyvalue import KeyValue
from headrace.tables.seen_compare import Verdict
from headrace.tables.seen_devices import Judged

_HEADER = re.compile(rb"(\d{1,10}) (\d{1,10})(?: (-?\d{1,18}))?( again)?")
#: In a document always; the time is where it is known.
_COUNTS = [name for name in SequenceCounts.model_fields if name != "time"]
#: What ingest refuses, or no longer remembers, may be a message that is delivered again.
_TOLD: dict[int, Told] = {Verdict.DUPLICATE: "duplicate", Verdict.BEYOND: "unknown"}


class Stream(NamedTuple):
    """Key of the table: the messages of a device that came through one topic profile."""

    device_id: str
    profile: str


class Sequences:
    """Counts the numbers that raw messages carry in a header, and shows them in `devices.sequences`.

    Part of ingest, which says of each message whether it came before: what a broker delivers again changes nothing.
    Messages that ingest refuses count too: what cannot be read was not lost on the way. Dead letters that are sent
    back do not count again. Costs nothing without the header. One entry per device and profile.

    Args:
        metrics: counts too.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self.streams = KeyValue.typed("sequences", key=Stream, value=Counted)
        #: Per partition the devices whose counts changed since the last commit, and the newest append time, ms.
        self._changed: dict[int, tuple[dict[str, None], int]] = {}

    def count(self, batch: Batch, judged: Iterable[tuple[Group, Judged]]) -> None:
        """Count the numbers of a batch of raw messages; staged.

        Args:
            judged: what ingest says of those that it did not refuse.
        """
        records = batch.records
        if topics.SEQUENCE not in records.headers:
            return
        told = _told(judged)
        draft = self.streams.draft(batch)
        changed: dict[str, None] = {}
        outcomes: Counter[Outcome] = Counter()
        columns = zip(
            records.keys,
            records.header(topics.SEQUENCE),
            records.header(topics.PROFILE),
            records.header(topics.REDRIVEN_FROM),
            strict=True,
        )
        for row, (key, header, profile, redriven) in enumerate(columns):
            device_id = _text(key)
            if not header or redriven or not device_id or device_id == topics.NO_DEVICE:
                continue
            said = _read(header)
            if said is None:
                outcomes["unusable"] += 1
                continue
            how, time = told.get(row, ("unknown", None))
            if said.is_again and how != "duplicate":
                how = "again"
            stream = Stream(device_id, _text(profile))
            before = draft.get(stream, row)
            found, what = counted(before, said.number, said.modulo, time if said.time is None else said.time, how)
            if found is not None and what:
                draft.put(stream, found, row)
                changed[device_id] = None
                outcomes.update(what)
        if outcomes:
            batch.on_finish(lambda: self._finish(batch.partition, changed, records.timestamps[-1], outcomes))

    def view(self, partition: int) -> list[Send]:
        """See `headrace.engine.operator.Viewed`: the devices whose counts changed, as they are now."""
        changed, appended_at = self._changed.pop(partition, ({}, 0))
        if not changed:
            return []
        keys: list[bytes | None] = [device_id.encode() for device_id in changed]
        values: list[bytes | None] = [orjson.dumps(self._document(partition, device_id)) for device_id in changed]
        return [Send(topics.SEQUENCES, Records(keys, values, [appended_at] * len(keys)), partition)]

    def _finish(self, partition: int, changed: dict[str, None], appended_at: int, outcomes: Counter[Outcome]) -> None:
        if changed:
            before, _ = self._changed.get(partition, ({}, 0))
            self._changed[partition] = (before | changed, appended_at)
        for outcome in ("received", "lost", "late", "repeat", "reset", "unusable"):
            # A number that was lost and comes late stays in the counter, which only rises.
            if outcomes[outcome] > 0:
                self._metrics.count("headrace_sequence_numbers_total", outcomes[outcome], outcome=outcome)

    def _document(self, partition: int, device_id: str) -> dict[str, Any]:
        """A `headrace.schemas.sequence.DeviceSequences`; as its model it would take three times as long."""
        streams = self.streams.range(partition, (device_id,), (device_id,))
        return {"device_id": device_id, "streams": {stream.profile: _counts(each) for stream, each in streams}}


class _Said(NamedTuple):
    """A number, how many there are, when it was sent, and whether the message may have been delivered before."""

    number: int
    modulo: int
    time: int | None
    is_again: bool


def _read(header: bytes) -> _Said | None:
    """What the header says; None if that is no number that can be counted."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    time = None if match[3] is None else int(match[3])
    said = _Said(int(match[1]), int(match[2]), time, match[4] is not None)
    return said if said.number < said.modulo else None


def _told(judged: Iterable[tuple[Group, Judged]]) -> dict[int, tuple[Told, int | None]]:
    """What ingest knows of each message that it did not refuse, and its own event time, by its place in the batch."""
    found: dict[int, tuple[Told, int | None]] = {}
    for group, verdicts in judged:
        times: list[int | None] = group.messages.times.tolist()
        if group.messages.untimed is not None:
            # What a message without a time was given says nothing about what was sent before.
            pairs = zip(times, group.messages.untimed.tolist(), strict=True)
            times = [None if untimed else time for time, untimed in pairs]
        for row, verdict, time in zip(group.rows, verdicts.verdicts.tolist(), times, strict=True):
            found[row] = ("distinct" if time is None else _TOLD.get(verdict, "distinct"), time)
    return found


def _counts(stream: Counted) -> dict[str, int]:
    """A `headrace.schemas.sequence.SequenceCounts`."""
    found = {name: getattr(stream, name) for name in _COUNTS}
    return found if stream.time is None else found | {"time": stream.time}


def _text(value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return ""

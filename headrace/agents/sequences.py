"""Sequence numbers per device: what was lost on the way, came late or twice, and when a device began anew."""

import re
from collections import Counter
from typing import NamedTuple

import orjson

from headrace.agents.sequence_fold import Counted, Outcome, counted
from headrace.engine.batch import Batch, Send
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.sequence import DeviceSequences, SequenceCounts
from headrace.tables.keyvalue import KeyValue

_HEADER = re.compile(rb"(\d{1,10}) (\d{1,10})(?: (-?\d{1,18}))?")


class Stream(NamedTuple):
    """Key of the table: the messages of a device that came through one topic profile."""

    device_id: str
    profile: str


class Sequences:
    """Counts the numbers that messages of `telemetry.raw` carry in a header, and shows them in `devices.sequences`.

    Looks at every message as it was accepted, before ingest tells repeats and refuses what is wrong: a frame that
    cannot be read was not lost on the way. Dead letters that are sent back do not count again. Costs nothing without
    the header. One entry per device and profile.

    Args:
        metrics: counts too.
    """

    name = "sequences"
    topic = topics.RAW
    outputs = (topics.SEQUENCES,)

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self.streams = KeyValue.typed("sequences", key=Stream, value=Counted)
        self.tables = (self.streams,)
        #: Per partition the devices whose counts changed since the last commit, and the newest append time, ms.
        self._changed: dict[int, tuple[dict[str, None], int]] = {}

    def process(self, batch: Batch) -> None:
        """See `headrace.engine.operator.Operator`."""
        records = batch.records
        if topics.SEQUENCE not in records.headers:
            return
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
            said = _HEADER.fullmatch(header) if header and not redriven else None
            device_id = _text(key)
            if said is None or not device_id or device_id == topics.NO_DEVICE:
                continue
            number, modulo, time = (None if group is None else int(group) for group in said.groups())
            assert number is not None
            assert modulo is not None
            if number >= modulo:
                continue
            stream = Stream(device_id, _text(profile))
            found, what = counted(draft.get(stream, row), number, modulo, time)
            draft.put(stream, found, row)
            changed[device_id] = None
            outcomes.update(what)
        if changed:
            batch.on_finish(lambda: self._finish(batch.partition, changed, records.timestamps[-1], outcomes))

    def view(self, partition: int) -> list[Send]:
        """See `headrace.engine.operator.Viewed`: the devices whose counts changed, as they are now."""
        changed, appended_at = self._changed.pop(partition, ({}, 0))
        documents = [self._document(partition, device_id) for device_id in changed]
        if not documents:
            return []
        keys: list[bytes | None] = [each.device_id.encode() for each in documents]
        values: list[bytes | None] = [orjson.dumps(each.model_dump(exclude_none=True)) for each in documents]
        return [Send(topics.SEQUENCES, Records(keys, values, [appended_at] * len(keys)), partition)]

    def _finish(self, partition: int, changed: dict[str, None], appended_at: int, outcomes: Counter[Outcome]) -> None:
        before, _ = self._changed.get(partition, ({}, 0))
        self._changed[partition] = (before | changed, appended_at)
        for outcome in ("received", "lost", "late", "repeat", "reset"):
            # A number that was lost and comes late stays in the counter, which only rises.
            if outcomes[outcome] > 0:
                self._metrics.count("headrace_sequence_numbers_total", outcomes[outcome], outcome=outcome)

    def _document(self, partition: int, device_id: str) -> DeviceSequences:
        streams = self.streams.range(partition, (device_id,), (device_id,))
        return DeviceSequences(device_id=device_id, streams={stream.profile: _counts(each) for stream, each in streams})


def _counts(stream: Counted) -> SequenceCounts:
    return SequenceCounts(
        last=stream.last,
        modulo=stream.modulo,
        received=stream.received,
        lost=stream.lost,
        late=stream.late,
        repeats=stream.repeats,
        resets=stream.resets,
        time=stream.time,
    )


def _text(value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return ""

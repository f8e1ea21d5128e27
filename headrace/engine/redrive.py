"""Sends dead letters back to where they came from: in the order in which they were first, each once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from headrace.engine.clock import Clock
from headrace.engine.dead_letter_reader import DeadLetter, LetterId, fetch
from headrace.engine.intake import tally
from headrace.engine.log import Append, Log, Tally, TopicPartition
from headrace.engine.log_range import first_offsets
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Header, Record, Records
from headrace.engine.turn import Turn
from headrace.schemas import topics

#: Compacted topic of what was sent back: key is the id of the dead letter, value a `Note`.
REDRIVES = "headrace.dlq"
#: What was registered before the letter is sent back holds for it, though it applies to others a second later, ms.
AHEAD_MS = 1000
#: What one transaction sends back at most; a single larger record goes alone.
CHUNK_RECORDS = 500
CHUNK_BYTES = 4 << 20

_DLQ_HEADERS = "dlq-"


class Note(msgspec.Struct, frozen=True):
    """That a dead letter was sent back.

    Args:
        times: how often, count.
        at_ms: when last, ms since 1970 UTC.
        topic, partition: where to; of several records, where the first is.
    """

    times: int
    at_ms: int
    topic: str
    partition: int


_encode_note = msgspec.json.Encoder().encode
_decode_note = msgspec.json.Decoder(Note).decode


async def redriven(log: Log) -> dict[LetterId, Note]:
    """What was sent back so far."""
    if REDRIVES not in {spec.name for spec in await log.topics()}:
        return {}
    notes: dict[LetterId, Note] = {}
    async for entries in log.restore(TopicPartition(REDRIVES, 0)):
        notes |= {LetterId.parse(key.decode()): _decode_note(value) for key, value in entries}
    return notes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a re-drive would do.

    Args:
        letters: to be sent back, in this order: by topic, partition and offset where they were.
        done: were sent back before.
        kept: cannot be sent back alone, each with the reason.
    """

    letters: Sequence[DeadLetter]
    done: Sequence[DeadLetter]
    kept: Sequence[tuple[DeadLetter, str]]


async def plan(
    log: Log,
    letters: AsyncIterator[DeadLetter],
    readers: Mapping[str, Collection[str]],
    *,
    again: bool = False,
) -> Plan:
    """Sort letters out.

    Args:
        readers: by topic, everybody who reads it and must not see a record twice, as `DeadLetter.agent` names them.
            A topic that is not here may be appended to freely.
        again: also those that were sent back before.
    """
    plain = {spec.name for spec in await log.topics() if not spec.compacted}
    notes = {} if again else await redriven(log)
    chosen: list[DeadLetter] = []
    done: list[DeadLetter] = []
    kept: list[tuple[DeadLetter, str]] = []
    async for letter in letters:
        reason = _why_not(letter, readers, plain)
        if reason is not None:
            kept.append((letter, reason))
        else:
            (done if letter.id in notes else chosen).append(letter)
    chosen.sort(key=lambda letter: (letter.origin, letter.id))
    return Plan(chosen, done, kept)


def _why_not(letter: DeadLetter, readers: Mapping[str, Collection[str]], plain: Collection[str]) -> str | None:
    topic = letter.origin.topic
    if not topic:
        return "it does not say which topic it comes from"
    if topic not in plain:
        return f"its topic {topic} is not there"
    others = [name for name in readers.get(topic, (letter.agent,)) if name != letter.agent]
    if others:
        return f"{', '.join(others)} took it from {topic} already and would count it twice"
    return None


async def forget_dropped(turn: Turn, notes: Mapping[LetterId, Note]) -> None:
    """Delete the notes about dead letters that the log does not have any more."""
    starts, ends = await first_offsets(turn.log, topics.DEAD_LETTERS), await turn.log.end_offsets(topics.DEAD_LETTERS)
    gone: dict[bytes, bytes | None] = {}
    for each in notes:
        target = TopicPartition(topics.DEAD_LETTERS, each.partition)
        if not starts.get(target, 0) <= each.offset < ends.get(target, 0):
            gone[str(each).encode()] = None
    if gone:
        await turn.commit([], gone)


class Redrive:
    """Sends letters back, chunk by chunk, in the order given.

    A chunk's records and the notes about them are one commit: after a crash at any point the next run leaves out what
    was sent back (see `test_killed_between_chunks_nothing_is_sent_twice`). Key, value, append time and headers are
    those of the first time, without those of the dead letter; `redriven-from` has its id. What goes to `telemetry.raw`
    counts as accepted once more, as the dead letter stays counted; so does each record that a message is unpacked to.

    Args:
        turn: in the topic `REDRIVES`.
        clock: for the notes.
        letters: those of a `Plan`.
        before: `redriven`, as it was when the turn began.
        repair: the messages that one goes back to `telemetry.raw` as; as it was if left out.
    """

    def __init__(
        self,
        turn: Turn,
        clock: Clock,
        letters: Sequence[DeadLetter],
        before: Mapping[LetterId, Note],
        repair: Callable[[Record], Sequence[Record]] | None = None,
    ) -> None:
        self._repair = repair
        self._turn = turn
        self._clock = clock
        self._letters = letters
        self._before = before
        self._partitioners: dict[str, Partitioner] = {}
        #: Letters sent back so far, count.
        self.sent = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send everything back, or until `stop` is set.

        Raises:
            ConfigError: the log has dropped a letter since it was found.
            CommitRefused: another process re-drives now.
            LogError: the log failed. In every case whole chunks were sent.
        """
        for chunk in _chunks(self._letters):
            if stop.is_set():
                return
            await self._send(chunk)
            self.sent += len(chunk)

    async def _send(self, chunk: Sequence[DeadLetter]) -> None:
        found = await fetch(self._turn.log, [letter.id for letter in chunk])
        by_target: dict[TopicPartition, list[Record]] = {}
        notes: dict[bytes, bytes | None] = {}
        now = self._clock.now_ms()
        for letter in chunk:
            restored = _restored(found[letter.id], letter.id, now + AHEAD_MS)
            records: Sequence[Record] = [restored]
            if self._repair is not None and letter.origin.topic == topics.RAW:
                records = self._repair(restored)
            for record in records:
                by_target.setdefault(self._target(letter, record.key), []).append(record)
            target = self._target(letter, records[0].key)
            before = self._before.get(letter.id)
            note = Note(1 + (before.times if before else 0), now, target.topic, target.partition)
            notes[str(letter.id).encode()] = _encode_note(note)
        await self._turn.commit([_append(target, records) for target, records in by_target.items()], notes)

    def _target(self, letter: DeadLetter, key: bytes | None) -> TopicPartition:
        """The partition of its key; the topic may have other partitions now. Without a key, the one where it was."""
        topic, partition, _ = letter.origin
        partitioner = self._partitioners.get(topic)
        if partitioner is None:
            partitioner = self._partitioners[topic] = Partitioner(self._turn.log.partitions(topic))
        if key is not None:
            return TopicPartition(topic, partitioner.partition(key))
        return TopicPartition(topic, partition if 0 <= partition < partitioner.partitions else 0)


def _chunks(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        if chunk and (len(chunk) >= CHUNK_RECORDS or size + letter.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += letter.size
    if chunk:
        yield chunk


def _restored(record: Record, letter_id: LetterId, as_of_ms: int) -> Record:
    headers = {name: value for name, value in record.headers.items() if not name.startswith(_DLQ_HEADERS)}
    headers |= {topics.REDRIVEN_FROM: str(letter_id).encode(), topics.REDRIVEN_AT: b"%d" % as_of_ms}
    return record._replace(headers=headers)


def _append(target: TopicPartition, records: Sequence[Record]) -> Append:
    names = dict.fromkeys(name for record in records for name in record.headers)
    headers: dict[str, Header] = {name: [record.headers.get(name) for record in records] for name in names}
    columns = Records(
        [record.key for record in records],
        [record.value for record in records],
        [record.timestamp for record in records],
        headers,
    )
    tallies: dict[Tally, int] = {}
    if target.topic == topics.RAW:
        for stamp, name in zip(columns.timestamps, columns.header(topics.DEVICE_TYPE), strict=True):
            device_type = "unknown" if name is None else name.decode(errors="replace")
            for key, count in tally([stamp], device_type).items():
                tallies[key] = tallies.get(key, 0) + count
    return Append(target, columns, tallies)

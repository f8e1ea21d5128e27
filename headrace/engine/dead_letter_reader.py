"""Finds dead letters in their topic again: by id, or by who refused what, when and why."""

import os
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from headrace.engine.dead_letters import AGENT, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TOPIC, REASON
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log, Reader, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Record
from headrace.schemas import topics

_ID = re.compile(r"([0-9]{1,9})-([0-9]{1,18})")


class LetterId(NamedTuple):
    """Where a dead letter is in its topic, such as `telemetry.dlq`; written `PARTITION-OFFSET`, and never another's.

    >>> str(LetterId.parse("3-77")), LetterId.parse("3-77").offset
    ('3-77', 77)
    """

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that `text` is.

        Raises:
            ConfigError: it is none.
        """
        found = _ID.fullmatch(text)
        if found is None:
            raise ConfigError(f"{text!r} is no id of a dead letter, such as 3-77; `headrace dlq list` shows them")
        return cls(int(found[1]), int(found[2]))


class Origin(NamedTuple):
    """Where the record was that was refused; sorts in log order. The topic is empty if the letter does not say."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is known of a dead letter without its payload; about 500 bytes.

    Args:
        time_ms: append time of the refused record, ms since 1970 UTC.
        key: of the record; the device id.
        agent: agent or sink that refused it.
        reason: why, for a person.
        size: of the payload, bytes.
    """

    id: LetterId
    time_ms: int
    key: bytes | None
    agent: str
    origin: Origin
    reason: str
    size: int

    @property
    def device(self) -> str:
        """The key as text."""
        return text_of(self.key)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: all that fit everything that is given.

    Args:
        agent: who refused it.
        reason: part of the reason, in any case.
        device: the device id.
        since_ms, until_ms: range of append times, ms since 1970 UTC; `until_ms` is not included.
    """

    agent: str | None = None
    reason: str | None = None
    device: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether the letter is one of them."""
        return (
            (self.agent is None or letter.agent == self.agent)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and (self.device is None or letter.key == os.fsencode(self.device))
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


async def find(log: Log, selection: Selection, topic: str = topics.DEAD_LETTERS) -> AsyncGenerator[DeadLetter, None]:
    """The letters that there are now and fit, partition by partition, each in log order. Reads all of the topic.

    Close the iterator when leaving early.

    Args:
        topic: of dead letters.
    Raises:
        ConfigError: there is no such topic.
    """
    await _check(log, topic)
    ends = await log.end_offsets(topic)
    # Append times are those of the refused records, in no order; but before this offset all are older.
    starts = await log.offsets_at(topic, selection.since_ms or 0)
    async with reading(log) as reader:
        for target, end in sorted(ends.items()):
            async for fetched in read_range(reader, target, starts[target], end):
                for place, record in enumerate(fetched.records):
                    letter = letter_of(LetterId(target.partition, fetched.offset(place)), record)
                    if selection.fits(letter):
                        yield letter


async def fetch(log: Log, ids: Iterable[LetterId], topic: str = topics.DEAD_LETTERS) -> dict[LetterId, Record]:
    """The letters with these ids, payload and all; memory for all of them at once.

    Raises:
        ConfigError: every id that is not there, or not any more.
    """
    await _check(log, topic)
    starts, ends = await first_offsets(log, topic), await log.end_offsets(topic)
    wanted: dict[TopicPartition, list[int]] = {}
    missing = []
    for each in sorted(set(ids)):
        target = TopicPartition(topic, each.partition)
        if starts.get(target, 0) <= each.offset < ends.get(target, 0):
            wanted.setdefault(target, []).append(each.offset)
        else:
            missing.append(each)
    found: dict[LetterId, Record] = {}
    async with reading(log) as reader:
        for target, offsets in wanted.items():
            records = await _records_at(reader, target, offsets)
            found |= {LetterId(target.partition, offset): record for offset, record in records.items()}
            missing += [LetterId(target.partition, offset) for offset in offsets if offset not in records]
    if missing:
        raise ConfigError(*(f"there is no dead letter {each}, or the log keeps it no more" for each in missing))
    return found


async def _check(log: Log, topic: str) -> None:
    if topic not in {spec.name for spec in await log.topics()}:
        raise ConfigError(f"the log has no topic {topic}: no worker has run on it yet")


async def _records_at(reader: Reader, target: TopicPartition, offsets: Sequence[int]) -> dict[int, Record]:
    """The records at these offsets, ascending, that are there."""
    found: dict[int, Record] = {}
    wanted = set(offsets)
    async for fetched in read_range(reader, target, offsets[0], offsets[-1] + 1):
        for place in range(len(fetched.records)):
            if fetched.offset(place) in wanted:
                found[fetched.offset(place)] = fetched.records[place]
    return found


def letter_of(letter_id: LetterId, record: Record) -> DeadLetter:
    """A record of a topic of dead letters as a letter. Somebody else's record there is one without origin."""
    headers = record.headers
    origin = Origin(
        text_of(headers.get(ORIGIN_TOPIC)), _number(headers.get(ORIGIN_PARTITION)), _number(headers.get(ORIGIN_OFFSET))
    )
    return DeadLetter(
        letter_id,
        record.timestamp,
        record.key,
        text_of(headers.get(AGENT)),
        origin,
        text_of(headers.get(REASON)),
        len(record.value or b""),
    )


def text_of(value: bytes | None) -> str:
    """Bytes as text for people, whatever they are."""
    return (value or b"").decode(errors="backslashreplace")


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else -1

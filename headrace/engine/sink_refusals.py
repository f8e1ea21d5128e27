"""Records that a sink will never take: dead-lettered, each once."""

import structlog

from headrace.engine.dead_letters import dead_letter, said
from headrace.engine.log import Append, Changes, Fetched, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.sink import Refused
from headrace.schemas import topics

#: Compacted topic in which runners keep, per sink and partition, the offset after the last record that was refused.
SINK_REFUSALS = "headrace.sinks"

logger = structlog.get_logger(__name__)


class SinkRefusals:
    """What one sink refused.

    A dead letter and a note of its offset are one commit, so that a crash before the sink moves on, or a database
    restored, dead-letters nothing twice; see test_dead_lettered_once. A dead letter that is refused itself is passed
    over: it is where it belongs, and another one about it would be refused like it, and so on.

    Args:
        log: has `telemetry.dlq` and the topics of `topic_specs()`.
        sink: its name.
        metrics: told.
    """

    def __init__(self, log: Log, sink: str, metrics: Metrics) -> None:
        self._log = log
        self._sink = sink
        self._metrics = metrics
        self._refused: dict[bytes, int] = {}
        #: Records dead-lettered by this process, and dead letters passed over; counts.
        self.dead_lettered = self.passed_over = 0

    @staticmethod
    def topic_specs() -> list[TopicSpec]:
        """The topics it keeps for itself."""
        return [TopicSpec(SINK_REFUSALS, 1, compacted=True)]

    async def load(self) -> None:
        """Read what was refused before."""
        async for entries in self._log.restore(TopicPartition(SINK_REFUSALS, 0)):
            self._refused |= {key: int(value) for key, value in entries}

    async def set_aside(self, fetched: Fetched, error: Refused) -> Fetched:
        """Dead-letter the one record of `fetched`, if it has one; what is left moves only the position."""
        target, offset, next_offset, records, _ = fetched
        if not len(records):
            return fetched
        if target.topic == topics.DEAD_LETTERS:
            self.passed_over += 1
        elif self._refused.get(self._key(target), 0) <= offset:
            await self._dead_letter(fetched, error)
        logger.warning(
            "sink_refused",
            sink=self._sink,
            topic=target.topic,
            partition=target.partition,
            offset=offset,
            message_id=said("message_id", records.values[0]) or "",
            reason=str(error),
        )
        return Fetched(target, offset, next_offset, Records([], [], []))

    async def _dead_letter(self, fetched: Fetched, error: Refused) -> None:
        offset, key = fetched.offset(0), self._key(fetched.target)
        send = dead_letter(fetched, 0, str(error), self._sink)
        partition = Partitioner(self._log.partitions(send.topic)).partition(fetched.records.keys[0] or b"")
        append = Append(TopicPartition(send.topic, partition), send.records, send.tallies)
        note = Changes(TopicPartition(SINK_REFUSALS, 0), {key: str(offset + 1).encode()})
        await self._log.commit(Transaction(appends=[append], changes=[note]))
        self._refused[key] = offset + 1
        self.dead_lettered += 1
        self._metrics.count("headrace_dead_letters_total", agent=self._sink, reason="refused")

    def _key(self, target: TopicPartition) -> bytes:
        return f"{self._sink}/{target.topic}/{target.partition}".encode()

"""Reads a compacted partition from its oldest record to its end, on the I/O thread."""

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.kafka.codec import decode
from headrace.engine.kafka.offsets import EARLIEST, LATEST, READ_COMMITTED, READ_UNCOMMITTED, list_offsets
from headrace.engine.log import TopicPartition

FETCH_BYTES = 4 << 20
MAX_WAIT_MS = 100
RETRY_PAUSE = 0.1

_clock = SystemClock()


class CompactedView:
    """Newest value per key of one compacted partition, as far as it was read; `update` reads on.

    What a later update finds deleted below its position is no reason to start over: the keys it knows are as new as
    they were. Only a first read that loses its place does (see `test_restore_starts_over_when_records_are_deleted`).
    """

    def __init__(self, client: AIOKafkaClient, target: TopicPartition) -> None:
        self._client = client
        self._target = target
        self._position = -1
        self.entries: dict[bytes, bytes] = {}

    async def update(self) -> dict[bytes, bytes]:
        """Read to what is written now, open transactions of others included: waits for their end.

        A writer that lost the partition may have finished its last transaction a moment ago; its markers count.

        Raises:
            LogError: the partition cannot be read.
        """
        end = (await list_offsets(self._client, [self._target], LATEST, READ_UNCOMMITTED))[self._target]
        if self._position < 0:
            await self._rewind()
        while self._position < end:
            await self._read()
        return self.entries

    async def _rewind(self) -> None:
        self.entries.clear()
        self._position = (await list_offsets(self._client, [self._target], EARLIEST))[self._target]

    async def _read(self) -> None:
        topic, number = self._target
        node = self._client.cluster.leader_for_partition(self._target)
        if node is None or node == -1:
            await self._pause()
            return
        request = FetchRequest(
            MAX_WAIT_MS, 1, FETCH_BYTES, READ_COMMITTED, [(topic, [(number, self._position, FETCH_BYTES)])]
        )
        try:
            response = await self._client.send(node, request)
        except kafka_errors.KafkaError:
            await self._pause()
            return
        code, _, _, *rest = response.topics[0][1][0][1:]
        if code:
            await self._failed(kafka_errors.for_code(code))
            return
        aborted, body = (rest[1], rest[-1]) if response.API_VERSION >= 5 else (rest[0], rest[-1])
        for piece in decode(self._target, self._position, body or b"", aborted, 1 << 30):
            self._take(piece.records.keys, piece.records.values)
            self._position = piece.next_offset

    def _take(self, keys: list[bytes | None], values: list[bytes | None]) -> None:
        for key, value in zip(keys, values, strict=True):
            if value is None:
                self.entries.pop(key or b"", None)
            else:
                self.entries[key or b""] = value

    async def _failed(self, error: type[Exception]) -> None:
        if error is kafka_errors.OffsetOutOfRangeError:
            await self._rewind()
        elif issubclass(error, kafka_errors.TopicAuthorizationFailedError):
            raise LogError(f"Kafka does not let this user read topic {self._target.topic}; grant READ on it")
        else:
            await self._pause()

    async def _pause(self) -> None:
        self._client.force_metadata_update()
        await _clock.sleep(RETRY_PAUSE)

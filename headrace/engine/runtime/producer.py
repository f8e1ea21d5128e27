"""Faust's producer on a `Log`: `topic.send` works, and is staged when an agent has a batch in hand."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, cast

from faust.transport.producer import Producer
from faust.types.core import HeadersArg
from faust.types.tuples import TP, RecordMetadata

from headrace.engine.batch import Send
from headrace.engine.context import current_batch
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records


class LogProducer(Producer):
    """For what Faust itself sends, record by record; agents send through their `Batch`."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        log = self._log
        if partition is None:
            partition = Partitioner(log.partitions(topic)).partition(key or b"")
        stamp = cast(Any, self.app).clock.now_ms() if timestamp is None else int(timestamp * 1000)
        named = dict(headers.items() if isinstance(headers, Mapping) else headers or ())
        records = Records([key], [value], [stamp], dict(named))
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        batch = current_batch.get()
        if batch is not None:
            batch.sends.append(Send(topic, records, partition))
            offset = -1  # not known before the commit
        else:
            target = TopicPartition(topic, partition)
            await log.commit(Transaction(appends=[Append(target, records)]))
            offset = (await log.end_offsets(topic))[target] - 1
        sent.set_result(RecordMetadata(topic, partition, TP(topic, partition), offset, stamp / 1000, 0))
        return sent

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        return await (await self.send(*args, **kwargs))

    async def flush(self) -> None:
        await self.buffer.flush()

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Any = 30.0,
        retention: Any = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        await self._log.create_topics([TopicSpec(topic, partitions, bool(compacting))])

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, Partitioner(self._log.partitions(topic)).partition(key))

    def supports_headers(self) -> bool:
        return True

    @property
    def _log(self) -> Log:
        return cast(Log, cast(Any, self.app).record_log)

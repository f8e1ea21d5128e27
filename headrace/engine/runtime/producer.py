"""Faust's producer on a `Log`: what an agent sends is staged with what it has in hand, the rest is sent in groups."""

import asyncio
import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, cast

from faust.transport.producer import Producer
from faust.types.core import HeadersArg
from faust.types.tuples import TP, FutureMessage, RecordMetadata
from mode import want_seconds

from headrace.engine.batch import Send
from headrace.engine.context import current_batch
from headrace.engine.errors import ConfigError
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.runtime.events import current_unit

#: Records that wait to be written before `send` waits too.
MOST_WAITING = 10_000


class _Waiting(NamedTuple):
    """A record that goes out with the next group."""

    target: TopicPartition
    records: Records
    sent: asyncio.Future[RecordMetadata]
    metadata: RecordMetadata


class LogProducer(Producer):
    """For what Faust itself sends, record by record; agents on batches send through their `Batch`.

    While an agent has a batch or an event in hand, a send is staged with it: visible with its position, or never.
    Elsewhere (timers, tasks, web views, in-memory channels) `await topic.send(…)` hands the record over, and awaiting
    what that returns waits until it is durable; records that wait at the same time are one commit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: list[_Waiting] = []
        self._something_waits = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()
        self._partitioners: dict[str, Partitioner] = {}

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
        await self._make_topic(topic)
        send = self._new_send(topic, key, value, partition, timestamp, headers)
        waiting = self._new_waiting(send)
        if _stage(send):
            waiting.sent.set_result(waiting.metadata)
            return waiting.sent
        await self._room.wait()
        self._waiting.append(waiting)
        self._something_waits.set()
        if len(self._waiting) >= MOST_WAITING:
            self._room.clear()
        return waiting.sent

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        return await (await self.send(*args, **kwargs))

    def send_soon(self, fut: FutureMessage) -> None:
        if current_unit.get() is None and current_batch.get() is None:
            super().send_soon(fut)
            return
        message = fut.message
        topic = cast(Any, message.channel).get_topic_name()
        try:
            send = self._new_send(
                topic, cast(Any, message.key), message.value, message.partition, message.timestamp, message.headers
            )
        except KeyError:
            raise ConfigError(f"there is no topic {topic!r}, which send_soon cannot make; create it first") from None
        if not _stage(send):
            super().send_soon(fut)
            return
        fut.set_result(self._new_waiting(send).metadata)
        if message.callback is not None:
            result = message.callback(fut)
            if inspect.isawaitable(result):
                self.add_future(result)

    async def flush(self) -> None:
        await self.buffer.flush()
        await self._write()

    async def on_stop(self) -> None:
        await self._write()

    @Producer.task
    async def _write_groups(self) -> None:
        while True:
            await self._something_waits.wait()
            await self._write()

    async def _write(self) -> None:
        """Write everything that waits, in one commit."""
        async with self._writing:
            group, self._waiting = self._waiting, []
            self._something_waits.clear()
            self._room.set()
            if not group:
                return
            parts: dict[TopicPartition, list[Records]] = {}
            for each in group:
                parts.setdefault(each.target, []).append(each.records)
            appends = [Append(target, Records.concat(records)) for target, records in parts.items()]
            try:
                await self._log.commit(Transaction(appends))
            except Exception as error:
                for each in group:
                    each.sent.set_exception(error)
                    each.sent.exception()  # whoever awaits it gets it; nobody has to
                await self.app.crash(error)
            for each in group:
                if not each.sent.done():
                    each.sent.set_result(each.metadata)

    def _new_send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
    ) -> Send:
        if partition is None:
            partition = self.key_partition(topic, key or b"").partition
        stamp = cast(Any, self.app).clock.now_ms() if timestamp is None else int(timestamp * 1000)
        named = dict(headers.items() if isinstance(headers, Mapping) else headers or ())
        return Send(topic, Records([key], [value], [stamp], dict(named)), partition)

    def _new_waiting(self, send: Send) -> _Waiting:
        assert send.partition is not None
        stamp = send.records.timestamps[0] / 1000
        # The offset is not known before the commit.
        metadata = RecordMetadata(send.topic, send.partition, TP(send.topic, send.partition), -1, stamp, 0)
        target = TopicPartition(send.topic, send.partition)
        return _Waiting(target, send.records, asyncio.get_running_loop().create_future(), metadata)

    async def _make_topic(self, topic: str) -> None:
        """Make `topic` if it does not exist, as brokers do on the first send."""
        if topic in self._partitioners:
            return
        try:
            self._log.partitions(topic)
        except KeyError:
            conf = self.app.conf
            if not conf.topic_allow_declare:
                raise ConfigError(f"there is no topic {topic!r}, and topic_allow_declare is off") from None
            await self.create_topic(topic, conf.topic_partitions, 1)

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
        # Not compacted, whatever is asked: such topics are restored by key here, not read in order.
        kept = want_seconds(retention) if retention else None
        await self._log.create_topics([TopicSpec(topic, partitions, retention=kept)])

    def key_partition(self, topic: str, key: bytes) -> TP:
        partitioner = self._partitioners.get(topic)
        if partitioner is None:
            partitioner = self._partitioners[topic] = Partitioner(self._log.partitions(topic))
        return TP(topic, partitioner.partition(key))

    def supports_headers(self) -> bool:
        return True

    @property
    def _log(self) -> Log:
        return cast(Log, cast(Any, self.app).record_log)


def _stage(send: Send) -> bool:
    """Whether `send` was staged with what the running task has in hand."""
    unit, batch = current_unit.get(), current_batch.get()
    if unit is not None:
        return unit.stage(send)
    if batch is not None:
        batch.sends.append(send)
        return True
    return False

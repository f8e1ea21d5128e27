"""The baseline: the same job on Faust's own consumer, conductor and stream, over the same embedded log and sink.

Only what Faust leaves to a transport driver is written here: reading, appending and committing positions. Outputs are
appended in groups and tables write no changelog, both to Faust's advantage. The sink stores 1,000 rows at a time.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import faust
from faust.transport.base import Transport
from faust.transport.consumer import Consumer
from faust.transport.producer import Producer
from faust.types.tuples import TP, ConsumerMessage, RecordMetadata
from per_event_agents import Ingest, Rollup, ThreeSigma, ThresholdAlert

from headrace.cli.pipeline import Pipeline
from headrace.engine.errors import RetryLater
from headrace.engine.log import Append, Fetched, Log, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Record, Records
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

ROWS = 1_000
FETCH = 4_096


class PlainConsumer(Consumer):
    """Faust's consumer with the abstract methods filled in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.record_log: Log = self.app.record_log
        self._next: dict[TP, int] = {}

    async def subscribe(self, topics_: Iterable[str]) -> None:
        assigned = {TP(name, number) for name in topics_ for number in range(self.record_log.partitions(name))}
        self._next = dict.fromkeys(assigned, 0)
        self.add_future(self._assign(assigned))

    async def _assign(self, assigned: set[TP]) -> None:
        self.app.on_rebalance_start()
        self.app.consumer_generation_id += 1
        await self.on_partitions_assigned(assigned, self.app.consumer_generation_id)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[tuple[int, Record]]]:
        wanted = self._next if active_partitions is None else active_partitions
        found: dict[TP, list[tuple[int, Record]]] = {}
        for tp in wanted:
            fetched = await self.record_log.read(TopicPartition(*tp), self._next[tp], FETCH)
            if fetched is not None:
                found[tp] = list(enumerate(fetched.records, fetched.base_offset))
                self._next[tp] = fetched.next_offset
        if not found:
            positions = {TopicPartition(*tp): self._next[tp] for tp in wanted}
            await self.record_log.wait(positions, min(timeout, 0.05))
        return found

    def _to_message(self, tp: TP, record: tuple[int, Record]) -> ConsumerMessage:
        offset, (key, value, timestamp, headers) = record
        size = len(value or b"")
        message = ConsumerMessage(
            tp.topic, tp.partition, offset, timestamp / 1000, 0, list(headers.items()), key, value, None,
            len(key or b""), size, tp,
        )  # fmt: skip
        message.generation_id = self.app.consumer_generation_id
        return message

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        positions = {TopicPartition(*tp): offset for tp, offset in offsets.items()}
        await self.record_log.commit(Transaction(group=self.app.conf.id, positions=positions))
        return True

    def assignment(self) -> set[TP]:
        return set(self._next)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return dict.fromkeys(self._next, 0)

    async def _seek(self, partition: TP, offset: int) -> None:
        self._next[partition] = offset

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        self._next.update(partitions)

    async def position(self, tp: TP) -> int | None:
        return self._next[tp]

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self._next[tp] for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return self._next[tp]

    def topic_partitions(self, topic: str) -> int | None:
        return self.record_log.partitions(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Every topic is there already."""


class PlainProducer(Producer):
    """Faust's producer; what is sent within a few milliseconds is appended together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffer: dict[TopicPartition, list[Record]] = {}
        self._partitioners: dict[str, Partitioner] = {}
        self._ready = asyncio.Event()

    async def send(
        self, topic: str, key: Any, value: Any, partition: Any, timestamp: Any, headers: Any, **_: Any
    ) -> Any:
        partitioner = self._partitioners.get(topic)
        if partitioner is None:
            partitioner = self._partitioners[topic] = Partitioner(self.app.record_log.partitions(topic))
        target = TopicPartition(topic, partitioner.partition(key))
        self._buffer.setdefault(target, []).append(Record(key, value, int(timestamp * 1000), dict(headers or {})))
        self._ready.set()
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        done.set_result(RecordMetadata(topic, target.partition, TP(*target), -1, timestamp, 0))
        return done

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        return await (await self.send(*args, **kwargs))

    @Producer.task
    async def _append(self) -> None:
        while not self.should_stop:
            await self._ready.wait()
            await asyncio.sleep(0.01)
            self._ready.clear()
            buffer, self._buffer = self._buffer, {}
            appends = []
            for target, records in buffer.items():
                names = {name for record in records for name in record.headers}
                headers: dict[str, Any] = {name: [record.headers.get(name) for record in records] for name in names}
                columns = ([record[place] for record in records] for place in range(3))
                appends.append(Append(target, Records(*columns, headers)))
            await self.app.record_log.commit(Transaction(appends))

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Every topic is there already."""

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, Partitioner(self.app.record_log.partitions(topic)).partition(key))

    def supports_headers(self) -> bool:
        return True


class PlainTransport(Transport):
    """Faust's conductor, unchanged."""

    Consumer = PlainConsumer
    Producer = PlainProducer
    default_port = 0
    driver_version = "plain"

    def create_transaction_manager(self, *args: Any, **kwargs: Any) -> Any:
        return None


class PlainApp(faust.App):
    """A Faust app on the embedded log."""

    record_log: Log

    def _new_transport(self) -> PlainTransport:
        return PlainTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> PlainTransport:
        return PlainTransport(self.conf.broker_producer, self)

    def _create_directories(self) -> None:
        """None needed."""


async def run_per_event(pipeline: Pipeline, total: int) -> None:
    """Take everything in the log through agents and the pipeline's sink, one event at a time."""
    app = PlainApp(
        "faust-baseline", broker="log://", web_enabled=False, topic_disable_leader=True, stream_wait_empty=False
    )
    app.record_log = pipeline.log
    agents = [Ingest(load_device_types()["environmental"]), Rollup(), ThreeSigma(), ThresholdAlert(load_rules())]
    for agent in agents:
        app.agent(_raw(app, agent.topic), name=type(agent).__name__)(_per_event(app, agent))
    stored = asyncio.Event()
    app.agent(_raw(app, topics.READINGS), name="sink")(_sink(pipeline, total, stored))
    while True:
        try:
            await pipeline.sink.open()
            break
        except RetryLater as busy:
            await asyncio.sleep(busy.after)
    await pipeline.sink.positions(
        [TopicPartition(topics.READINGS, n) for n in range(pipeline.log.partitions(topics.READINGS))]
    )
    await app.start()
    await stored.wait()
    await app.stop()
    await pipeline.sink.close()


def _raw(app: faust.App, topic: str) -> Any:
    return app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def _per_event(app: faust.App, agent: Any) -> Any:
    outputs = {name: _raw(app, name) for name in topics.OUTPUTS}

    async def run(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            headers = dict(message.headers)
            for out in agent.process(message.key, message.value, int(message.timestamp * 1000), headers):
                await outputs[out.topic].send(
                    key=out.key, value=out.value, timestamp=message.timestamp, headers=headers
                )

    return run


def _sink(pipeline: Pipeline, total: int, stored: asyncio.Event) -> Any:
    async def run(stream: Any) -> None:
        count = 0
        async for events in stream.take_events(ROWS, within=0.1):
            by_target: dict[TopicPartition, list[Any]] = {}
            for event in events:
                by_target.setdefault(TopicPartition(event.message.topic, event.message.partition), []).append(
                    event.message
                )
            batch = []
            for target, messages in by_target.items():
                headers: dict[str, Any] = {
                    topics.MESSAGE_ID: [dict(m.headers).get(topics.MESSAGE_ID) for m in messages]
                }
                stamps = [int(message.timestamp * 1000) for message in messages]
                records = Records([m.key for m in messages], [m.value for m in messages], stamps, headers)
                batch.append(Fetched(target, messages[0].offset, messages[-1].offset + 1, records))
            await pipeline.sink.write(batch)
            count += len(events)
            if count >= total:
                stored.set()

    return run

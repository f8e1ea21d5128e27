"""Replies to `agent.ask`: read straight from the log, not as a member of the group."""

from typing import Any, cast
from weakref import WeakValueDictionary

from faust.agents.replies import ReplyConsumer, ReplyPromise
from faust.models import maybe_model
from faust.types.tuples import Message

from headrace.engine.log import Fetched, Log, Reader, TopicPartition

#: Records read at once, and seconds to wait for more before looking whether to stop.
MOST = 1_000
WAIT = 0.5


class LogReplies(ReplyConsumer):
    """Every process has a reply topic of its own, so there is nothing to share out and no position to keep.

    Faust's subscribes to it with everything else, 3 s after the first request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answered: WeakValueDictionary[str, ReplyPromise] = WeakValueDictionary()

    async def add(self, correlation_id: str, promise: ReplyPromise) -> None:
        await super().add(correlation_id, promise)
        answered = self._answered.pop(correlation_id, None)
        if answered is not None and answered is not promise:
            promise.fulfill(correlation_id, answered.result())

    async def _start_fetcher(self, topic_name: str) -> None:
        if topic_name not in self._fetchers:
            self._fetchers[topic_name] = None
            topic = self._reply_topic(topic_name)
            await topic.maybe_declare()
            log: Log = cast(Any, self.app).record_log
            ends = await log.end_offsets(topic_name)
            reader = log.reader()
            self._fetchers[topic_name] = self.add_future(self._read(topic, reader, ends))

    async def _read(self, topic: Any, reader: Reader, positions: dict[TopicPartition, int]) -> None:
        try:
            while not self.should_stop:
                await reader.wait(positions, WAIT)
                for target, position in positions.items():
                    fetched = await reader.read(target, position, MOST)
                    if fetched is not None:
                        positions[target] = fetched.next_offset
                        await self._deliver(topic, fetched)
        finally:
            await reader.close()

    async def _deliver(self, topic: Any, fetched: Fetched) -> None:
        name, partition = fetched.target
        for index, record in enumerate(fetched.records):
            seconds = record.timestamp / 1000
            message = Message(
                name, partition, fetched.offset(index), seconds, 0, record.headers, record.key, record.value, None
            )
            event = await topic.decode(message)
            if event is None:
                continue  # somebody else's idea of a reply
            reply = event.value
            for promise in self._waiting.pop(reply.correlation_id, ()):
                if not promise.done():
                    promise.fulfill(reply.correlation_id, maybe_model(reply.value))
                    if type(promise) is ReplyPromise:
                        self._answered[reply.correlation_id] = promise

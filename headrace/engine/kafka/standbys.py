"""Copies of changelogs for partitions that others work on, on the I/O thread."""

import asyncio
from collections.abc import Awaitable, Callable, Set

import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import Client, by_leader
from headrace.engine.kafka.offsets import LATEST, list_offsets
from headrace.engine.kafka.restore import CompactedView
from headrace.engine.kafka.topic_ids import TopicIds
from headrace.engine.log import TopicPartition
from headrace.engine.metrics import Metrics

#: Seconds between two looks for what is new: a broker gets one request for all partitions, and one for each that moved.
FOLLOW_INTERVAL = 1.0
#: Seconds that the brokers get to say where partitions end.
ANSWER_TIMEOUT = 10.0

log = structlog.get_logger(__name__)


class Standbys:
    """Keeps copies of compacted partitions, as far as what is in them was committed.

    A partition that cannot be read is not kept: whoever needs its table reads it then, and says what is wrong.

    Args:
        make_client: gives a connection of its own, so that nothing of the processing path waits behind a copy.
        clock: waits.
        metrics: told how large the copies are, and how far behind.
    """

    def __init__(self, make_client: Callable[[], Awaitable[Client]], clock: Clock, metrics: Metrics) -> None:
        self._make_client = make_client
        self._clock = clock
        self._metrics = metrics
        self._views: dict[TopicPartition, CompactedView] = {}
        self._client: Client | None = None
        self._ids: TopicIds | None = None
        self._following: asyncio.Task[None] | None = None

    async def keep(self, targets: Set[TopicPartition]) -> None:
        """Keep these, and no others."""
        await cancel_and_wait(self._following)
        for target in self._views.keys() - targets:
            self._forget(target)
        if targets:
            self._following = asyncio.create_task(self._follow(frozenset(targets)))

    async def view(self, target: TopicPartition) -> CompactedView | None:
        """The copy of a partition, if there is one and it is of the topic of today."""
        await self._drop_made_anew({target.topic})
        return self._views.get(target)

    async def close(self) -> None:
        """Keep nothing any more."""
        await self.keep(frozenset())
        if self._client is not None:
            await self._client.close()

    async def _follow(self, targets: Set[TopicPartition]) -> None:
        if self._client is None:
            self._client = await self._make_client()
            self._ids = TopicIds(self._client)
        for topic in {target.topic for target in targets}:
            await self._client.add_topic(topic)
        for target in sorted(targets - self._views.keys()):
            self._views[target] = CompactedView(self._client, target, self._clock)
        while True:
            await self._read_on(self._client)
            await self._clock.sleep(FOLLOW_INTERVAL)

    async def _read_on(self, client: Client) -> None:
        await self._drop_made_anew({target.topic for target in self._views})
        led = {target for targets in by_leader(client, self._views).values() for target in targets}
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                ends = await list_offsets(client, led, LATEST)
        except (TimeoutError, LogError) as error:
            log.warning("standbys_wait", error=repr(error))
            return
        if led != self._views.keys():
            client.force_metadata_update()
        self._note(ends)
        for target, end in sorted(ends.items()):
            view = self._views[target]
            try:
                await view.follow(end)
            except LogError as error:
                log.warning("standby_given_up", topic=target.topic, partition=target.partition, error=str(error))
                self._forget(target)
            else:
                self._note({target: end})

    async def _drop_made_anew(self, topics: Set[str]) -> None:
        """A copy of a topic that was deleted is begun again, with what is in the new one."""
        if self._client is None or self._ids is None or not topics:
            return
        changed = await self._ids.changed(topics)
        for target in [target for target in self._views if target.topic in changed]:
            self._views[target] = CompactedView(self._client, target, self._clock)

    def _note(self, ends: dict[TopicPartition, int]) -> None:
        for target, end in ends.items():
            view, (topic, partition) = self._views[target], target
            self._metrics.set("headrace_standby_entries", len(view.entries), topic=topic, partition=partition)
            lag = max(0, end - max(view.reader.position, 0))
            self._metrics.set("headrace_standby_lag_records", lag, topic=topic, partition=partition)

    def _forget(self, target: TopicPartition) -> None:
        del self._views[target]
        for name in ("headrace_standby_entries", "headrace_standby_lag_records"):
            self._metrics.remove(name, topic=target.topic, partition=target.partition)

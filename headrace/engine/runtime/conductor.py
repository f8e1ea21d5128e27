"""Faust's conductor: hands a fetch to every agent that reads its topic."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from faust.transport.conductor import Conductor
from mode.utils.futures import notify

from headrace.engine.batch import Idle, Send
from headrace.engine.log import Fetched, Member, TopicPartition
from headrace.engine.operator import Idling, Operator, Viewed, idle_topics_of
from headrace.engine.records import Records
from headrace.engine.runtime.agent import BatchAgent, BatchTopic
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.event_feed import EventFeed
from headrace.engine.runtime.event_table_manager import EventTableManager
from headrace.engine.runtime.event_topic import EventTopic

#: Seconds that agents get at the start to say what they read (`stream.group_by` inside an agent adds a topic).
AGENTS_BEGIN = 1.0
#: Seconds from a topic that is added later to the new subscription: others may follow.
RESUBSCRIBE_AFTER = 0.5
#: Seconds that a delivery of events is to take, about: what is in hand is done anew after a rebalance, and what agents
#: send becomes visible at its end.
PIECE_SECONDS = 0.1
#: Records of the first delivery, when nobody knows yet how long an agent takes.
FIRST_PIECE = 100


class BatchConductor(Conductor):
    """Agents on the same topic share one fetch and, through `Shared`, one decode.

    Agents on batches get it whole; streams of events get it through their `EventFeed`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topics_changed = asyncio.Event()

    def deliver(self, fetched: Fetched) -> Delivery:
        """Give `fetched` to its agents; the returned delivery knows when all are done."""
        topic = fetched.target.topic
        agents = self._agents(topic)
        feeds = self._feeds(topic)
        delivery = Delivery(fetched, [*(agent.name for agent in agents), *(feed.name for feed in feeds)])
        for agent in agents:
            agent.deliver(delivery)
        for feed in feeds:
            feed.put(delivery)
        return delivery

    def waiting(self, target: TopicPartition) -> dict[str, float]:
        """Agents to whom the time matters when nothing comes, with their `Idling.idle_timeout`, seconds."""
        idling = {
            agent.name: agent.operator
            for agent in self._agents(target.topic)
            if isinstance(agent.operator, Idling)
            and target.topic in idle_topics_of(cast(Operator, agent.operator))
            and agent.operator.is_waiting(target.partition)
        }
        return {name: each.idle_timeout for name, each in idling.items() if each.idle_timeout is not None}

    def pass_time(self, agent: str, target: TopicPartition, position: int, idle: Idle) -> Delivery:
        """Tell an agent that nothing came."""
        delivery = Delivery(Fetched(target, position, position, Records([], [], [])), [agent], idle)
        cast(BatchAgent, self.app.agents[agent]).deliver(delivery)
        return delivery

    def view(self, target: TopicPartition) -> list[Send]:
        """What agents send with a commit."""
        viewed = [agent.operator for agent in self._agents(target.topic) if isinstance(agent.operator, Viewed)]
        return [send for operator in viewed for send in operator.view(target.partition)]

    def _agents(self, topic: str) -> list[BatchAgent]:
        return [
            cast(BatchAgent, agent)
            for agent in self.app.agents.values()
            if isinstance(agent.channel, BatchTopic) and topic in agent.channel.topics
        ]

    def pieces(self, fetched: Fetched, most: Callable[[], int] | None = None) -> Iterator[Fetched]:
        """What to deliver one after the other: all of it to agents on batches, parts of it where events are read.

        Args:
            most: says how many records that may be, each time; None for any number.
        """
        start, count = 0, len(fetched.records)
        while start < count:
            piece = self._piece(fetched.target.topic, count)
            stop = min(count, start + (piece if most is None else min(piece, most())))
            yield fetched.part(start, stop)
            start = stop

    def _piece(self, topic: str, count: int) -> int:
        feeds = self._feeds(topic)
        sizes = [max(feed.most, int(PIECE_SECONDS / feed.pace) if feed.pace else FIRST_PIECE, 1) for feed in feeds]
        return min(sizes, default=count)

    def _feeds(self, topic: str) -> list[EventFeed]:
        channels = [channel for channel in self._event_topics() if topic in channel.topics]
        return sorted((channel.feed for channel in channels), key=lambda feed: feed.name)

    def _event_topics(self) -> list[EventTopic]:
        return [channel for channel in self._topics if isinstance(channel, EventTopic)]

    # -- what is read

    @Conductor.task
    async def _subscriber(self) -> None:
        """Faust's waits 45 s before it takes up a topic that was added late, and forgets it during a rebalance."""
        app = cast(Any, self.app)
        if app.client_only or app.producer_only:
            notify(self._subscription_done)
            return
        await app.agents.wait_until_agents_started()
        await app.tables.wait_until_tables_registered()
        await self._wait_agents_begin()
        subscribed: set[str] = set()
        if not self._topics:
            await app.consumer.on_assigned(frozenset(), Member())  # nothing to join the group for, yet
        while not self.should_stop:
            self._topics_changed.clear()
            topics = set(await self._update_indices())
            if topics - subscribed:
                subscribed = topics
                await app.consumer.subscribe(topics)
            notify(self._subscription_done)
            await self._topics_changed.wait()
            await app.clock.sleep(RESUBSCRIBE_AFTER)

    async def _wait_agents_begin(self) -> None:
        clock = cast(Any, self.app).clock
        until = clock.monotonic() + AGENTS_BEGIN
        while clock.monotonic() < until and not all(
            agent.began for agent in cast(Iterable[BatchAgent], self.app.agents.values())
        ):
            await clock.sleep(0.001)

    async def _update_indices(self) -> Iterable[str]:
        # Brokers make a topic when somebody asks for it.
        for channel in self._event_topics():
            await channel.maybe_declare()
        read = {topic for channel in self._event_topics() for topic in channel.topics}
        await cast(EventTableManager, self.app.tables).prepare(read)
        return await super()._update_indices()

    def _update_callback_map(self) -> None:
        """There are no callbacks per record."""

    def _flag_changes(self) -> None:
        super()._flag_changes()
        self._topics_changed.set()

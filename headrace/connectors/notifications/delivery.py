"""Sends what agents have put into the outbox, and writes what came of it."""

import asyncio
from collections.abc import Mapping, Set
from random import Random
from typing import Any

import structlog

from headrace.connectors.notifications.channel import Channel
from headrace.connectors.notifications.dead_contacts import DeadContacts
from headrace.connectors.notifications.delivery_counts import DeliveryCounts, DeliveryStatistics
from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.connectors.notifications.journal import GROUP
from headrace.connectors.notifications.state_log import forget_old_states
from headrace.connectors.notifications.tenure import Render, Tenure, Tools
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, HeadraceError, first
from headrace.engine.health import Health
from headrace.engine.log import Log, Member, TopicPartition, TopicSpec
from headrace.engine.metrics import Metrics
from headrace.schemas import topics
from headrace.tables.replicated import HISTORY, replicated_topic

#: Seconds that attempts under way get: when partitions go to another member, and when delivery is to end.
ON_REVOKE, ON_STOP = 3.0, 10.0
#: Seconds until somebody asks again whether there are partitions.
POLL = 1.0

logger = structlog.get_logger(__name__)


class Delivery:
    """A member of the group that delivers; on the embedded log its only one: take a file lock besides.

    Each row of the outbox is sent to each of its contacts at least once, and once unless a process ends between the
    attempt and the note of it: then it is repeated with the same key, and the delivery log says so. What one alert is
    about goes to one contact of one channel in its order. A channel, or a server of a webhook, that is slow or down
    delays nobody else; see `ChannelQueue`.

    Args:
        log: with `topic_specs()`.
        channels: by name.
        render: puts a notification into words.
        clock: waits, and dates what is written.
        settings: of attempts.
        random: cuts waits.
        metrics, health: told how it goes.
    """

    name = GROUP

    def __init__(
        self,
        log: Log,
        channels: Mapping[str, Channel],
        render: Render,
        clock: Clock,
        settings: DeliverySettings | None = None,
        *,
        random: Random | None = None,
        metrics: Metrics | None = None,
        health: Health | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._settings = settings or DeliverySettings()
        self._counts = DeliveryCounts(list(channels), metrics or Metrics(), health, clock)
        self._dead = DeadContacts(log)
        self._tools = Tools(
            log, channels, render, clock, self._settings, random or Random(), self._dead, self._counts
        )  # fmt: skip
        self._targets: list[TopicPartition] = []
        self._member = Member()
        self._given = asyncio.Event()
        self._tenure: Tenure | None = None
        self._working: asyncio.Task[None] | None = None
        self._forgetting: asyncio.Task[None] | None = None

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topics that delivery reads and writes, but for those of alerts."""
        return [
            TopicSpec(topics.OUTBOX, partitions),
            TopicSpec(topics.NOTIFICATIONS, partitions),
            TopicSpec(topics.NOTIFICATION_DEAD_LETTERS, partitions),
            TopicSpec(topics.NOTIFICATIONS_PENDING, partitions, compacted=True),
            TopicSpec(topics.NOTIFICATION_STATES, partitions, compacted=True, retention=HISTORY),
            replicated_topic(topics.DEAD_CONTACTS),
            replicated_topic(topics.USERS),
        ]

    @property
    def targets(self) -> Set[TopicPartition]:
        """Partitions of the outbox that it has; none before it has joined."""
        return set(self._targets)

    @property
    def trouble(self) -> str:
        """What keeps it from sending, for a person; empty when nothing does."""
        down = self.statistics().down or {}
        return "; ".join(f"{name} is down: {error}" for name, error in down.items())

    def statistics(self) -> DeliveryStatistics:
        """How it is going."""
        found = self._counts.statistics
        if self._tenure is not None:
            found.waiting, found.down = self._tenure.waiting, self._tenure.down()
        return found

    def summary(self) -> Mapping[str, Any]:
        """The same as names and values, for a report."""
        now = self.statistics()
        return {name: getattr(now, name) for name in now.__slots__ if name != "down"} | {"down": dict(now.down or {})}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then attempts under way may end.

        Raises:
            LogError: the log failed.
            HeadraceError: the group takes this member no more; says why.
        """
        known = asyncio.Event()
        following = asyncio.create_task(self._dead.run(known.set))
        stopping = asyncio.create_task(stop.wait())
        try:
            knowing = asyncio.create_task(known.wait())
            await asyncio.wait([knowing, following, stopping], return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(knowing)
            membership = await self._log.join(GROUP, [topics.OUTBOX], self)
            lost = asyncio.create_task(membership.wait_lost())
            try:
                await self._work(stopping, following, lost)
            finally:
                await self._end(ON_STOP)
                await cancel_and_wait(lost)
                await membership.leave()
        finally:
            await cancel_and_wait(following, stopping)

    async def _work(
        self, stopping: asyncio.Task[Any], following: asyncio.Task[None], lost: asyncio.Task[HeadraceError]
    ) -> None:
        while not stopping.done():
            given = asyncio.create_task(self._given.wait())
            working = [] if self._working is None else [self._working]
            await asyncio.wait([given, stopping, following, lost, *working], return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(given)
            if lost.done():
                raise lost.result()
            if following.done():
                following.result()
            if self._working is not None and self._working.done():
                self._look(self._working)
                self._working = None
            if self._given.is_set() and not stopping.done():
                self._given.clear()
                await self._begin()

    async def _begin(self) -> None:
        number = self._member
        positions = await self._log.positions(GROUP, topics.OUTBOX)
        if self._member != number or not self._targets:
            return  # given out anew meanwhile
        self._tenure = Tenure(self._tools, self._targets, self._member, positions)
        self._working = asyncio.create_task(self._tenure.run())
        self._forgetting = asyncio.create_task(self._forget())

    async def _forget(self) -> None:
        before_ms = self._clock.now_ms() - round(self._settings.keep * 1000)
        count = await forget_old_states(self._log, self._targets, before_ms)
        logger.debug("delivery_log_forgot", rows=count)

    @staticmethod
    def _look(working: asyncio.Task[None]) -> None:
        """A tenure has ended by itself: the log failed, or its partitions are on their way to somebody else."""
        try:
            working.result()
        except ExceptionGroup as errors:
            error = first(errors)
            if not isinstance(error, CommitRefused):
                raise error from errors
            logger.debug("partitions_lost", error=str(error))
        except asyncio.CancelledError:
            pass

    async def _end(self, patience: float) -> None:
        tenure, working = self._tenure, self._working
        if tenure is None or working is None:
            return
        try:
            if not working.done():
                await tenure.finish(patience)
        except HeadraceError as error:
            logger.debug("partitions_lost", error=str(error))
        finally:
            await cancel_and_wait(working, self._forgetting)
        self.statistics()
        self._tenure = None

    async def on_assigned(self, targets: Set[TopicPartition], member: Member) -> None:
        """See `headrace.engine.log.Listener`."""
        await self._end(0.0)
        self._targets, self._member = sorted(targets), member
        self._given.set()

    async def on_revoked(self) -> None:
        """Finish what is under way, soon; the rest waits for whoever has the partitions next."""
        self._given.clear()
        await self._end(ON_REVOKE)
        self._targets = []

"""A worker's place in a Kafka consumer group: aiokafka's coordinator, without its fetching."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Set
from contextlib import ExitStack
from typing import Any

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka.consumer.subscription_state import SubscriptionState

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, HeadraceError
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.coordinator import Coordinator
from headrace.engine.kafka.loop_thread import LoopThread
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Listener, Member, TopicPartition

#: How often the coordinator is looked after, seconds.
CHECK_INTERVAL = 1.0
#: Seconds that a group gets to hear that this worker leaves; cut off, it waits for the end of the worker's session.
LEAVE_TIMEOUT = 3.0
#: Not used here: whether fetching makes progress is the watchdog's business.
NEVER_MS = 2**31 - 1

log = structlog.get_logger(__name__)

#: Makes a client that is connected.
MakeClient = Callable[[], Awaitable[Client]]
#: Waits until the log knows these partitions.
Learn = Callable[[Set[TopicPartition]], Awaitable[None]]


class GroupMember:
    """Membership of one group, kept up for as long as it is not left.

    Everything runs on the I/O thread, so heartbeats go on while an agent computes; the listener is called on the loop
    that joined. When the coordinator of aiokafka dies of an error, a new one takes its place.

    Args:
        topics: to share; those that do not exist are taken up later.
        assignor: aiokafka's interface; its sticky one if None.
        learn: awaited on the I/O thread before the listener is told of partitions, so that the log knows them too.
    """

    def __init__(
        self,
        thread: LoopThread,
        make_client: MakeClient,
        settings: KafkaSettings,
        clock: Clock,
        group: str,
        topics: Iterable[str],
        listener: Listener,
        assignor: Any,
        learn: Learn,
    ) -> None:
        self._thread = thread
        self._make_client = make_client
        self._settings = settings
        self._clock = clock
        self._group = group
        self._topics = set(topics)
        self._listener = _OnOtherLoop(listener, asyncio.get_running_loop(), self._member, learn)
        self._assignors = (assignor if assignor is not None else _sticky(),)
        self._coordinator: Coordinator | None = None
        self._stack = ExitStack()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[HeadraceError] = self._loop.create_future()
        self.rebuilds = 0

    async def join(self) -> None:
        """Begin to take part; returns before there is an assignment."""
        await self._thread.run(self._start())

    async def leave(self) -> None:
        await self._thread.run(self._leave())

    async def rejoin(self) -> None:
        """Give the partitions back and ask for them again: what was restored is not trusted any more."""
        await self._thread.run(self._request_rejoin())

    async def wait_lost(self) -> HeadraceError:
        return await asyncio.shield(self._lost)

    # -- on the I/O thread

    async def _start(self) -> None:
        await self._open()
        self._task = asyncio.create_task(self._look_after())

    async def _open(self) -> None:
        client = await self._make_client()
        client.set_topics(self._topics)
        await client._maybe_wait_metadata()
        subscription = SubscriptionState()
        subscription.register_fetch_waiters(set())  # a fetcher would; errors are told to its waiters first
        subscription.subscribe(self._topics, listener=self._listener)
        self._stack = ExitStack()
        self._stack.enter_context(subscription.fetch_context())  # never idle in aiokafka's eyes
        settings = self._settings
        self._coordinator = Coordinator(
            client,
            subscription,
            group_id=self._group,
            group_instance_id=settings.instance,
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.heartbeat_interval * 1000),
            rebalance_timeout_ms=round(settings.rebalance_timeout * 1000),
            max_poll_interval_ms=NEVER_MS,
            enable_auto_commit=False,
            assignors=self._assignors,
        )

    async def _close(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        self._stack.close()
        if coordinator is None:
            return
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await coordinator.close()
        except (TimeoutError, kafka_errors.KafkaError, ConfigError) as error:
            log.warning("group_left_in_silence", group=self._group, error=str(error))
            await cancel_and_wait(
                coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task
            )
        finally:
            await coordinator._client.close()

    async def _leave(self) -> None:
        self._listener.silence()
        await cancel_and_wait(self._task)
        await self._close()

    async def _request_rejoin(self) -> None:
        if self._coordinator is not None:
            self._coordinator.request_rejoin()

    def _member(self) -> Member:
        assert self._coordinator is not None
        return Member(self._coordinator.member_id, self._coordinator.generation, self._settings.instance)

    async def _look_after(self) -> None:
        """aiokafka keeps an error until somebody asks, and stops meanwhile: ask, and begin anew."""
        while True:
            await self._clock.sleep(CHECK_INTERVAL)
            if self._coordinator is not None and self._coordinator.lost is not None:
                self._loop.call_soon_threadsafe(self._lost.set_result, self._coordinator.lost)
                await self._close()
                return
            try:
                if self._coordinator is None:
                    await self._open()
                else:
                    self._coordinator.check_errors()
                    if self._coordinator._coordination_task.done():
                        raise kafka_errors.KafkaError("the coordination task has ended")
            except kafka_errors.KafkaError as error:
                log.warning("group_joined_anew", group=self._group, error=str(error))
                self.rebuilds += 1
                await self._close()


class _OnOtherLoop(ConsumerRebalanceListener):  # type: ignore[misc]
    """Calls a `Listener` on the loop it lives on, and waits for it there."""

    def __init__(
        self, listener: Listener, loop: asyncio.AbstractEventLoop, member: Callable[[], Member], learn: Learn
    ) -> None:
        self._listener = listener
        self._learn = learn
        self._loop = loop
        self._member = member
        self._holds = False
        self._silent = False

    def silence(self) -> None:
        """Call no more: the listener stops."""
        self._silent = True

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """A coordinator that took another one's place does not know what is held: `revoked` is not asked."""
        if self._holds:
            self._holds = False
            await self._call(self._listener.on_revoked())

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        targets = {TopicPartition(*target) for target in assigned}
        self._holds = bool(targets)
        await self._learn(targets)
        await self._call(self._listener.on_assigned(targets, self._member()))

    async def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._silent:
            coroutine.close()
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))


def _sticky() -> Any:
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor  # noqa: PLC0415

    return StickyPartitionAssignor

"""One pump per partition: read a batch, give it to its agents, wait until they are done, and again."""

import asyncio
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from headrace.engine.batch import Idle
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import AgentStopped, LogError, TopicChanged
from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.metrics import Metrics
from headrace.engine.runtime.commits import Commits
from headrace.engine.runtime.conductor import BatchConductor
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.lanes import Lanes, is_urgent
from headrace.engine.runtime.settings import RuntimeSettings

#: Seconds that a commit waits for batches in hand; a partition whose agent takes longer comes with a later commit.
MAX_PAUSE = 0.25

#: Told which partition stopped, and why.
OnStopped = Callable[[TopicPartition, str], None]


@dataclass(slots=True)
class _Silence:
    """Since when nothing came from a partition, and until when agents were told so; real seconds.

    Not the clock's own time: a replay's clock follows the data, and leaps ahead of a partition that waits for some.
    """

    began: float
    told: dict[str, float] = field(default_factory=dict)


class Pumps:
    """Keeps every started partition moving, one batch of each in flight.

    Args:
        log: what to read.
        commits: told what begins and what is finished; a pump waits while too much is finished and not committed.
        on_stopped: called when a partition can go no further.
    """

    def __init__(
        self,
        log: Log,
        commits: Commits,
        settings: RuntimeSettings,
        clock: Clock,
        metrics: Metrics,
        on_stopped: OnStopped,
        lanes: Lanes,
    ) -> None:
        self._lanes = lanes
        self._metrics = metrics
        self._log = log
        self._reader = log.reader()
        self._commits = commits
        self._settings = settings
        self._clock = clock
        self._on_stopped = on_stopped
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._deliveries: dict[TopicPartition, Delivery] = {}
        self._slow: set[Delivery] = set()
        self._something_ended = asyncio.Event()
        self._gate, self._urgent_gate = asyncio.Event(), asyncio.Event()
        self._gate.set()
        self._urgent_gate.set()
        self._group: asyncio.TaskGroup | None = None
        self._conductor: BatchConductor | None = None
        self._early: dict[TopicPartition, int] = {}

    def open(self, group: asyncio.TaskGroup, conductor: BatchConductor) -> None:
        """Run pumps in `group` from now on; an error that is not about a batch ends the group."""
        self._group, self._conductor = group, conductor
        early, self._early = self._early, {}
        for target, position in early.items():
            self.start(target, position)

    def start(self, target: TopicPartition, position: int) -> None:
        """Read `target` from `position` on."""
        if self._group is None:
            self._early[target] = position
        else:
            self._tasks[target] = self._group.create_task(self._pump(target, position))

    async def pause(self) -> None:
        """Begin no new batch; return when those in hand are finished, or after `MAX_PAUSE`.

        The priority lane goes on: what of it is not finished at that moment has a commit of its own.

        A batch that outlasted one pause holds up no other: its agent is slow, or its partition has stopped.
        """
        self._gate.clear()
        await self._wait_finished(MAX_PAUSE, self._slow)
        self._slow = set(self._deliveries.values())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._gate.set()

    async def stop(self, timeout: float) -> set[TopicPartition]:
        """End all pumps; batches in hand get `timeout` seconds. The partitions whose batch was dropped."""
        self._early.clear()
        self._gate.clear()
        self._urgent_gate.clear()
        await self._wait_finished(timeout, set())
        unfinished = set(self._deliveries)
        for delivery in self._deliveries.values():
            delivery.drop()
        await cancel_and_wait(*self._tasks.values())
        self._lanes.end(self._tasks)
        self._tasks.clear()
        self._deliveries.clear()
        self._gate.set()
        self._urgent_gate.set()
        return unfinished

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        """These went to another worker: read ahead no more."""
        self._reader.forget(targets)

    async def close(self) -> None:
        """Stop reading ahead."""
        await self._reader.close()

    async def _wait_finished(self, timeout: float, but: Set[Delivery]) -> None:
        """Wait until the batches in hand, `but` these, are finished or given up."""
        try:
            async with asyncio.timeout(timeout):
                while any(not each.over and each not in but for each in self._deliveries.values()):
                    self._something_ended.clear()
                    await self._something_ended.wait()
        except TimeoutError:
            pass

    async def _pump(self, target: TopicPartition, position: int) -> None:
        silence = _Silence(self._clock.monotonic())
        while True:
            # Read, and with it decoded, only when there is room: what waits is bytes.
            if not await self._reader.wait({target: position}, self._settings.poll_timeout):
                if not await self._pass_time(target, position, silence):
                    return
                continue
            await self._lanes.begin(target)
            await self._wait_may_begin(target)
            try:
                fetched = await self._fetch(target, position)
            except TopicChanged as error:
                self._on_stopped(target, str(error))
                return
            await self._gate_of(target).wait()
            if fetched is None:
                continue
            position = fetched.next_offset
            if not len(fetched.records):
                self._commits.move(target, position)
            elif not await self._deliver_pieces(target, fetched):
                return
            silence = _Silence(self._clock.monotonic())
            await self._clock.sleep(0)  # a saturated partition must not keep the others from running

    async def _pass_time(self, target: TopicPartition, position: int, silence: "_Silence") -> bool:
        """Tell the agents to whom it matters for how long nothing came; whether the partition can go on."""
        assert self._conductor is not None
        now = self._clock.monotonic()
        for agent, timeout in self._conductor.waiting(target).items():
            elapsed = (now - silence.told.get(agent, silence.began)) / self._clock.real_seconds(1)
            if elapsed < timeout * 1000 or not await self._is_read(target, position):
                continue
            await self._gate_of(target).wait()
            silence.told[agent] = now
            self._commits.begin(target, 0)
            delivery = self._conductor.pass_time(agent, target, position, Idle(round(elapsed), self._clock.now_ms()))
            if not await self._finish(delivery, position):
                return False
        return True

    async def _is_read(self, target: TopicPartition, position: int) -> bool:
        """Whether there is nothing behind `position`. While the log is away nothing comes, but devices may speak."""
        try:
            ends = await self._log.end_offsets(target.topic)
        except (KeyError, LogError):
            return False
        return ends.get(target, position + 1) <= position

    async def _deliver_pieces(self, target: TopicPartition, fetched: Fetched) -> bool:
        """Give a fetch to its agents, in parts where they go event by event; whether the partition can go on."""
        assert self._conductor is not None
        sliced = not is_urgent(target) and any(map(is_urgent, self._tasks))
        for piece in self._conductor.pieces(fetched, (lambda: self._lanes.most) if sliced else None):
            async with self._lanes.one_at_a_time(target):
                await self._wait_may_begin(target)
                if not await self._deliver(target, piece):
                    return False
        return True

    async def _deliver(self, target: TopicPartition, fetched: Fetched) -> bool:
        """Give a fetch to its agents; whether the partition can go on."""
        assert self._conductor is not None
        self._commits.begin(target, len(fetched.records))
        topic, partition = target
        self._metrics.count("headrace_records_read_total", len(fetched.records), topic=topic, partition=partition)
        self._metrics.count("headrace_batches_total", topic=topic, partition=partition)
        return await self._finish(self._conductor.deliver(fetched), fetched.next_offset)

    def _gate_of(self, target: TopicPartition) -> asyncio.Event:
        return self._urgent_gate if is_urgent(target) else self._gate

    async def _wait_may_begin(self, target: TopicPartition) -> None:
        """Wait while no new batch of `target` may begin; begin at once when this returns."""
        while True:
            await self._gate_of(target).wait()
            await self._commits.wait_room(target)
            if self._gate_of(target).is_set():
                return

    async def _finish(self, delivery: Delivery, position: int) -> bool:
        """Wait until the agents are done with a delivery; whether the partition can go on."""
        target = delivery.fetched.target
        self._deliveries[target] = delivery
        try:
            sends = await delivery.wait_finished()
        except AgentStopped as error:
            self._commits.give_up(target)
            self._lanes.end([target])
            self._on_stopped(target, str(error))
            self._something_ended.set()
            return False
        if (other := self._commits.gave_up(target)) is not None:
            del self._deliveries[target]
            self._commits.finish(target, position, sends)
            self._something_ended.set()
            self._on_stopped(target, f"{other.topic}/{other.partition} has stopped, and is committed together with it")
            return False
        del self._deliveries[target]
        self._commits.finish(target, position, sends)
        self._something_ended.set()
        return True

    async def _fetch(self, target: TopicPartition, position: int) -> Fetched | None:
        settings, reader = self._settings, self._reader
        fetched = await reader.read(target, position, settings.max_batch_records)
        if fetched is not None and not is_urgent(target) and 0 < len(fetched.records) < settings.linger_records:
            await self._clock.sleep(settings.linger)
            room = settings.max_batch_records - len(fetched.records)
            more = await reader.read(target, fetched.next_offset, room)
            if more is not None:
                fetched = Fetched.joined([fetched, more])
        return fetched

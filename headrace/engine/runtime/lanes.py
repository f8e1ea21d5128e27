"""Lets the priority lane go first in a loop that ordinary work keeps busy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from headrace.engine.clock import Clock
from headrace.engine.log import TopicPartition
from headrace.schemas import topics

#: Records of an ordinary partition that agents get at once where there is a priority lane, and while it is in use:
#: whatever comes there waits for as long as one agent takes for so many.
SLICE, SLICE_IN_USE = 1_000, 250
#: Seconds after the last alarm that the priority lane counts as in use.
IN_USE = 10.0
#: Seconds that ordinary work stands still for an alarm at the most, until what came of it is durable.
MOST_HOLD = 0.25
#: Seconds that it goes on standing still for what was sent to the next topic of the lane.
NEXT_TOPIC = 0.01
#: Seconds after which one agent begins with an ordinary batch although alarms come and come.
MOST_ASIDE = 0.05
#: Seconds that an ordinary batch waits for others at the most.
MOST_ALONE = 1.0
#: Seconds that ordinary work has for itself between alarms that come one after the other; they wait so long.
QUANTUM = 0.02


def is_urgent(target: TopicPartition) -> bool:
    """Whether this is a partition of the priority lane."""
    return target.topic in topics.PRIORITY


class Lanes:
    """Who works when.

    In each pass of the event loop one agent at the most begins with an ordinary batch, and none while something of the
    priority lane is under way: it waits for one agent, not for all, and every wait of its own (for a thread, for the
    disk) ends when it ends, not when an agent is done. While a commit of the priority lane waits for ordinary
    batches in hand (`want`), these alone go on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By partition of the priority lane with something under way, until when ordinary work stands still for it.
        self._until: dict[TopicPartition, float] = {}
        self._wanted: frozenset[TopicPartition] = frozenset()
        self._taken = False
        self._alone = asyncio.Lock()
        self._changed = asyncio.Event()
        self._last = self._ended = self._stepped = float("-inf")

    @property
    def most(self) -> int:
        """Records of an ordinary partition that are to be delivered at once."""
        return SLICE_IN_USE if self._in_use else SLICE

    @property
    def _in_use(self) -> bool:
        return self._clock.monotonic() - self._last < IN_USE

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, target: TopicPartition) -> AsyncIterator[None]:
        """While `target` has a batch in hand. Ordinary ones come one after the other while the lane is in use.

        Few are half-way then, and what the priority lane is committed with is hardly ever. A slow agent holds up
        others for `MOST_ALONE`.
        """
        alone = not is_urgent(target) and self._in_use
        if alone:
            try:
                async with asyncio.timeout(MOST_ALONE):
                    await self._alone.acquire()
            except TimeoutError:
                alone = False
        try:
            yield
        finally:
            if alone:
                self._alone.release()

    async def begin(self, target: TopicPartition) -> None:
        """There is something in a partition; of the priority lane, it is under way from now on."""
        if not is_urgent(target):
            return
        now = self._clock.monotonic()
        if target.topic == topics.RAW_PRIORITY and not self._until and self._ended + QUANTUM > now:
            await self._clock.sleep(self._ended + QUANTUM - now)
        self._last = self._clock.monotonic()
        self._until[target] = self._last + MOST_HOLD

    def end(self, targets: Iterable[TopicPartition]) -> None:
        """What was under way in these partitions is durable, or given up."""
        for target in targets:
            if self._until.pop(target, None) is not None:
                self._ended = self._clock.monotonic()
                if target.topic == topics.RAW_PRIORITY:
                    follows = TopicPartition(topics.READINGS_PRIORITY, target.partition)
                    self._until.setdefault(follows, self._ended + NEXT_TOPIC)
                self._wake()

    def want(self, targets: frozenset[TopicPartition]) -> None:
        """A commit of the priority lane waits until the batches of these are finished; empty if none does."""
        if targets != self._wanted:
            self._wanted = targets
            self._wake()

    async def wait_turn(self, target: TopicPartition) -> None:
        """Wait until an agent may begin with a batch of `target`; it begins in this pass of the loop."""
        if is_urgent(target):
            return
        while self._taken or (rest := self._rest(target)) > 0:
            await (self._clock.sleep(0) if self._taken else self._wait_changed(rest))
        self._taken = True
        self._stepped = self._clock.monotonic()
        asyncio.get_running_loop().call_soon(self._end_turn)

    async def wait_calm(self) -> None:
        """Wait while something of the priority lane is under way, for `MOST_ASIDE` at the most."""
        if (rest := self._rest(None)) > 0:
            await self._wait_changed(rest)

    def _rest(self, target: TopicPartition | None) -> float:
        """Seconds that work on `target` has still to stand still, unless something changes."""
        if not self._until or target in self._wanted:
            return 0.0
        now = self._clock.monotonic()
        for gone in [each for each, until in self._until.items() if until <= now]:
            del self._until[gone]
            self._ended = now
        return min(max(self._until.values(), default=now), self._stepped + MOST_ASIDE) - now

    def _end_turn(self) -> None:
        self._taken = False

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_changed(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

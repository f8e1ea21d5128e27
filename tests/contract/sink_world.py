"""What the sink contract needs to know of a sink: how it is made, and what is on its other side."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.engine.sink import Sink
from headrace.engine.sink_runner import SinkRunner
from tests.contract.sink_traffic import NOW_MS, Newest

#: Seconds that anything may take.
PATIENCE = 120.0


class SinkWorld(ABC):
    """A sink with its other side, which is empty at first.

    Attributes:
        clock: stands at NOW_MS; for sinks that look at it.
        refused: value of a reading that the sink refuses. None: it refuses nothing, and `refuses_nothing` says why.
        repeatable: whether records that come again after positions alone went back leave everything as it was; if not,
            `not_repeatable` says why.
    """

    refused: bytes | None = b"{not a reading"
    refuses_nothing = ""
    repeatable = True
    not_repeatable = ""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW_MS)

    @abstractmethod
    async def make(self, log: EmbeddedLog) -> Sink:
        """A sink as a new process makes it, not opened."""

    @abstractmethod
    async def cut(self, after: int) -> None:
        """The other side goes away after it got so many more requests, with its answer to the last of them."""

    @abstractmethod
    def is_cut(self) -> bool:
        """Whether it went away."""

    @abstractmethod
    async def mend(self) -> None:
        """It is back."""

    @abstractmethod
    async def newest(self) -> Newest:
        """What the other side says is newest, as `sink_traffic.newest` says it."""

    @abstractmethod
    async def everything(self) -> Any:
        """All that the other side holds, positions included, in an order that depends on nothing."""

    @abstractmethod
    async def rewind(self, positions: dict[TopicPartition, int]) -> None:
        """Move stored positions and nothing else, as no sink does."""

    @abstractmethod
    async def save(self) -> None:
        """Back up the other side."""

    @abstractmethod
    async def restore(self) -> None:
        """Replace it by the backup; connections may break."""

    @abstractmethod
    async def empty(self) -> None:
        """Make it empty, as at first."""


class GatedSink:
    """A sink whose writes can be held up before the other side hears of them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.name, self.topics = sink.name, sink.topics
        self.entered, self.gate, self.done = asyncio.Event(), asyncio.Event(), 0
        self.open, self.positions, self.close = sink.open, sink.positions, sink.close

    async def write(self, fetched: Any) -> None:
        """Write when the gate is open."""
        self.entered.set()
        await self.gate.wait()
        await self._sink.write(fetched)
        self.done += 1


def runner_of(log: EmbeddedLog, sink: Sink, max_records: int = 16) -> SinkRunner:
    """A runner that is quick to try again."""
    return SinkRunner(
        log, sink, SystemClock(), max_records=max_records, linger=0.001, first_backoff=0.005, max_backoff=0.05
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


async def ends_of(log: EmbeddedLog, sink: Sink) -> dict[TopicPartition, int]:
    """Ends of all that the sink reads."""
    ends: dict[TopicPartition, int] = {}
    for topic in sink.topics:
        ends |= await log.end_offsets(topic)
    return ends


async def run_to_end(log: EmbeddedLog, sink: Sink, max_records: int = 16) -> SinkRunner:
    """Run until the sink has all of the log, dead letters of its own included where it reads them; then stop."""
    runner, stop = runner_of(log, sink, max_records), asyncio.Event()
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        group.create_task(runner.run(stop))
        while runner.statistics().positions != await ends_of(log, sink):
            await asyncio.sleep(0.002)
        stop.set()
    return runner

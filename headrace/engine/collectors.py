"""Reads at intervals what nobody reports by itself: lag, positions and the ledger, for `Metrics` and `Health`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import structlog

from headrace.engine.clock import Clock
from headrace.engine.health import Health, Progress
from headrace.engine.ledger import Ledger
from headrace.engine.log import Log, TopicPartition
from headrace.engine.metrics import Metrics

#: The label `collector` of the metrics.
CollectorName = Literal["lag", "ledger"]
#: Reads something and hands it on.
Collect = Callable[[], Awaitable[object]]

#: Seconds that a collector may take.
PATIENCE = 2.0

logger = structlog.get_logger(__name__)


class Collectors:
    """Runs collectors side by side, each again `interval` seconds after it is done.

    One that fails or takes longer than `patience` is counted, logged once and tried again; what it set before stays.

    Args:
        metrics: failures go there.
        clock: waits.
        patience: seconds.
    """

    def __init__(self, metrics: Metrics, clock: Clock, patience: float = PATIENCE) -> None:
        self._metrics = metrics
        self._clock = clock
        self._patience = patience
        self._collectors: dict[CollectorName, tuple[Collect, float]] = {}
        self._failing: set[CollectorName] = set()

    def add(self, name: CollectorName, collect: Collect, interval: float) -> None:
        """Run `collect` every `interval` seconds from `run` on."""
        self._collectors[name] = (collect, interval)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, (collect, interval) in self._collectors.items():
                group.create_task(self._repeat(name, collect, interval))

    async def _repeat(self, name: CollectorName, collect: Collect, interval: float) -> None:
        while True:
            await self.collect_once(name, collect)
            await self._clock.sleep(interval)

    async def collect_once(self, name: CollectorName, collect: Collect) -> None:
        """Run a collector; never raises what it raises."""
        try:
            async with asyncio.timeout(self._patience):
                await collect()
        except Exception as error:
            self._metrics.count("headrace_collector_failures_total", collector=name)
            note = logger.debug if name in self._failing else logger.warning
            note("collector_failed", collector=name, error=repr(error))
            self._failing.add(name)
        else:
            self._failing.discard(name)
            self._metrics.set("headrace_collected_timestamp_seconds", self._clock.now_ms() / 1000, collector=name)


class Reads(NamedTuple):
    """What a consumer group reads in this process.

    Args:
        group: consumer group.
        targets: its partitions here, as of now.
        hint: what is known about why they might stand still, for a person; may be empty.
    """

    group: str
    targets: Callable[[], Iterable[TopicPartition]]
    hint: Callable[[], str] = str


class LagCollector:
    """Lag and position of every partition that this process reads; for `Health` they are its progress.

    Args:
        log: asked for ends and positions.
        metrics, health: told.
        reads: who reads what.
    """

    def __init__(self, log: Log, metrics: Metrics, health: Health, reads: Sequence[Reads]) -> None:
        self._log = log
        self._metrics = metrics
        self._health = health
        self._reads = reads

    async def collect(self) -> None:
        """Ask once per group and topic."""
        lags: dict[tuple[str, ...], float] = {}
        positions: dict[tuple[str, ...], float] = {}
        for group, targets, hint in self._reads:
            seen: dict[str, Progress] = {}
            for target, (position, end) in (await self._positions(group, frozenset(targets()))).items():
                labels = (group, target.topic, str(target.partition))
                lags[labels], positions[labels] = max(0, end - position), position
                name = f"{group} {target.topic}[{target.partition}]"
                seen[name] = Progress(position, max(0, end - position), hint())
            self._health.observe(f"group {group}", seen)
        self._metrics.replace("headrace_lag_records", lags)
        self._metrics.replace("headrace_committed_offset", positions)

    async def _positions(self, group: str, targets: frozenset[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Position and end by partition, where both are known."""
        found: dict[TopicPartition, tuple[int, int]] = {}
        for topic in sorted({target.topic for target in targets}):
            positions = await self._log.positions(group, topic)  # first: an end that is older would hide lag
            ends = await self._log.end_offsets(topic)
            both = targets & positions.keys() & ends.keys()
            found |= {target: (positions[target], ends[target]) for target in both}
        return found


def ledger_collector(metrics: Metrics, read: Callable[[], Awaitable[Ledger]]) -> Collect:
    """A collector that asks `read` for the ledger and exports its terms."""

    async def collect() -> None:
        ledger = await read()
        metrics.replace("headrace_ledger_messages", {(term,): count for term, count in ledger._asdict().items()})

    return collect

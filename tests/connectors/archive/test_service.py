"""The daily run, on a clock that tests move."""

import asyncio
from typing import Any

from headrace.connectors.archive.service import ArchiveService
from headrace.connectors.archive.settings import ArchiveSettings
from headrace.engine.clock import ManualClock
from headrace.engine.metrics import Metrics
from tests.connectors.archive.test_crashes import FaultyStore
from tests.connectors.archive.world import DAY, HOUR, NOW, World, air


class PacedClock(ManualClock):
    """Stands still; each `sleep` ends when `look` is called, and has been looked at when that returns."""

    def __init__(self, start_ms: int) -> None:
        super().__init__(start_ms)
        self._waiting = asyncio.Event()
        self._go = asyncio.Event()

    async def sleep(self, delay: float) -> None:
        self._waiting.set()
        await self._go.wait()
        self._go.clear()

    async def look(self) -> None:
        """Let the service look at the clock once, and wait until it has done what it found."""
        await self._waiting.wait()
        self._waiting.clear()
        self._go.set()
        await self._waiting.wait()


async def running(world: World, **more: Any) -> tuple[ArchiveService, PacedClock, Metrics, asyncio.Event, Any]:
    clock, metrics, stop = PacedClock(NOW), Metrics(), asyncio.Event()
    world.clock = clock
    service = ArchiveService(world.job(**more), ArchiveSettings(), clock, metrics)
    task = asyncio.create_task(service.run(stop))
    await clock.look()
    return service, clock, metrics, stop, task


async def test_once_a_day(world: World) -> None:
    """The first run is at once, the next after 02:00 of the next day, and never twice for one day."""
    await world.insert(air(1, 1, 2))
    service, clock, metrics, stop, task = await running(world)
    assert (service.statistics()["runs"], service.statistics()["rows"]) == (1, 2)

    for hours, runs in ((1, 1), (22, 1), (1.01, 2), (3, 2), (72, 3), (1, 3)):
        clock.advance(round(hours * HOUR))
        await clock.look()
        assert service.statistics()["runs"] == runs

    assert metrics.value("headrace_archive_rows_total") == 2
    assert metrics.value("headrace_archive_finished_timestamp_seconds") == (NOW + round(99.01 * HOUR)) / 1000
    stop.set()
    await task


async def test_a_restart_runs_no_day_twice(world: World) -> None:
    """A service that is started after another has run that day waits for the next."""
    *_, stop, task = await running(world)
    stop.set()
    await task

    service, clock, _, stop, task = await running(world)
    assert service.statistics()["runs"] == 0
    clock.advance(DAY)
    await clock.look()

    assert service.statistics()["runs"] == 1
    stop.set()
    await task


async def test_failure_is_visible_and_tried_next_night(world: World) -> None:
    """A store that refuses is counted and named, nothing is deleted, and the next night makes it good."""
    await world.insert(air(1, 1, 2))
    store = FaultyStore(world, refuses=0)
    service, clock, metrics, stop, task = await running(world, store=store)
    assert "disk is full" in (await service.status())["why"]
    assert metrics.value("headrace_archive_failures_total") == 1
    assert len(await world.stored()) == 2
    store.repair()

    clock.advance(DAY)
    await clock.look()

    assert "why" not in await service.status()
    assert await world.stored() == []
    stop.set()
    await task


async def test_database_that_is_away(world: World) -> None:
    """A database that does not answer is said, and stops nobody."""
    world.connect = {**world.connect, "database": "nowhere"}
    service, clock, _, stop, task = await running(world)

    assert "nowhere" in (await service.status())["why"]
    await clock.look()
    assert not task.done()
    stop.set()
    await task


async def test_stop_breaks_a_run_off(world: World) -> None:
    """Asked to stop while a run is at work it stops there; no row is lost, and the next run goes on."""
    rows = air(1, 1, 4)
    await world.insert(rows)
    stop = asyncio.Event()

    def step(name: str) -> None:
        if name == "put":
            stop.set()

    service = ArchiveService(world.job(step=step), ArchiveSettings(), world.clock)
    await service.run(stop)
    stored = await world.stored()
    assert sorted(stored + await world.archived("d0")) == rows

    await world.job().run()

    assert await world.archived("d0") == rows

"""Brokers are killed under load; the workers go on by themselves, and nothing is lost or there twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kafka_world import LONG, LONG_SESSION, SHORT_SESSION, clock, running_world

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(900)]
#: Seconds that a broker is away at least: shorter than the session of a worker, and longer.
SHORT_OUTAGE, LONG_OUTAGE = 0.5, 5.0


async def test_workers_read_on_after_a_broker_was_killed(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """The only broker is killed and comes back, sooner and later than the workers' sessions end."""
    long = chaos_size.seconds >= LONG
    async with running_world(tmp_path, chaos_seed, kafka=LONG_SESSION if long else SHORT_SESSION) as world:
        async with world.load.running():
            for outage in (SHORT_OUTAGE, 3 * LONG_OUTAGE if long else LONG_OUTAGE) * (3 if long else 1):
                await clock.sleep(world.rng.uniform(1.0, 3.0))
                world.cluster.kill(0)
                await clock.sleep(outage)
                await world.restart_broker(0)
                await world.wait_progress()

        report = await world.finish()

    print(report)


async def test_one_of_three_brokers_is_always_down(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """One after the other is killed, each as soon as the one before has caught up."""
    long = chaos_size.seconds >= LONG
    async with running_world(tmp_path, chaos_seed, brokers=3, kafka=LONG_SESSION if long else SHORT_SESSION) as world:
        order = list(range(3))
        world.rng.shuffle(order)
        async with world.load.running():
            for broker in order * (3 if long else 1):
                world.cluster.kill(broker)
                await clock.sleep(world.rng.uniform(1.0, 5.0))
                await world.wait_progress()
                await world.restart_broker(broker)

        report = await world.finish()

    print(report)


async def test_worker_stops_while_kafka_is_away(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """SIGTERM ends it without an error, though it cannot commit what it has finished: the next one does that again."""
    async with running_world(tmp_path, chaos_seed, workers=1, kafka=SHORT_SESSION) as world:
        async with world.load.running():
            await clock.sleep(world.rng.uniform(4.0, 6.0))
            world.cluster.kill(0)
            await asyncio.to_thread(world.retire_worker, world.workers[0])
            await world.restart_broker(0)
            world.start_worker()
            await world.wait_progress()

        report = await world.finish()

    print(report)

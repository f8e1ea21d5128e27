"""Workers come and go all the time: the log holds exactly what follows from its input."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kafka_world import SHORT_SESSION, clock, running_world

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(900)]
#: Seconds between two changes.
INTERVAL = 2.0
MOST_WORKERS = 4


async def test_workers_that_come_and_go_leave_exact_counts(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """Every 2 s one joins or one leaves, while another rebalance or restore may be under way."""
    async with running_world(tmp_path, chaos_seed, kafka=SHORT_SESSION) as world:
        leaving = []
        async with world.load.running():
            for _ in range(round(chaos_size.seconds / INTERVAL)):
                await clock.sleep(INTERVAL)
                if len(world.workers) == 1 or (len(world.workers) < MOST_WORKERS and world.rng.random() < 0.5):
                    world.start_worker()
                else:
                    worker = world.rng.choice(world.workers)
                    worker.ask_to_stop()
                    world.workers.remove(worker)
                    leaving.append(worker)

        codes = [await asyncio.to_thread(worker.wait) for worker in leaving]
        report = await world.finish()

    print(report)
    assert codes == [0] * len(leaving)

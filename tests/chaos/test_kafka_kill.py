"""Workers on a real Kafka are killed, or sleep through a rebalance; the log holds exactly what it accepted."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kafka_world import SHORT_SESSION, clock, running_world

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(900)]
#: From this many seconds of load on, the tests take what is set in production.
LONG = 60.0


async def test_killed_workers_leave_exact_counts(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """kill -9 at random points, and another worker in the place of each: nothing lost, nothing twice, ledger exact."""
    async with running_world(tmp_path, chaos_seed, workers=3, kafka=SHORT_SESSION) as world:
        async with world.load.running():
            for _ in range(chaos_size.kills):
                await clock.sleep(world.rng.uniform(0.5, 4.0))
                world.kill_worker(world.rng.choice(world.workers))
                world.start_worker()

        report = await world.finish()

    print(report)

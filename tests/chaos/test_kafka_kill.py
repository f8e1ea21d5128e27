"""Workers on a real Kafka are killed, or sleep through a rebalance: the log holds what follows from its input."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kafka_world import LONG, LONG_SESSION, SHORT_SESSION, clock, running_world

#: Pauses until one hits a worker that has something to commit; about every second does.
MOST_PAUSES = 30

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]


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


async def test_paused_worker_has_no_effect_when_it_wakes(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """An owner stands still until others have its partitions; what it commits on waking is refused, and it goes on.

    Again and again until it stood still with something to commit.
    """
    long = chaos_size.seconds >= LONG
    async with running_world(tmp_path, chaos_seed, kafka=LONG_SESSION if long else SHORT_SESSION) as world:
        paused = world.rng.choice(world.workers)
        async with world.load.running():
            for _ in range(MOST_PAUSES):
                await clock.sleep(world.rng.uniform(1.0, 3.0))
                paused.pause()
                await clock.sleep(45.0 if long else 1.0)
                await world.wait_owned_by(1)
                paused.resume()
                await world.wait_working()
                await clock.sleep(2.0)
                if "commit_refused" in paused.everything_said():
                    break

        report = await world.finish()

    print(report)
    assert "commit_refused" in paused.everything_said()

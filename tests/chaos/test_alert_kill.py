"""Workers are killed while devices get hot and cool down: each episode is one alert, and what people did is kept."""

import random
from pathlib import Path
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from headrace.cli.logs import topic_specs
from headrace.cli.running import set_up
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from tests.chaos.alert_load import RULES, AlertLoad, clock
from tests.chaos.kafka_world import SHORT_SESSION, Worker

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]
PARTITIONS = 4


def config_file(folder: Path, text: str) -> Path:
    """Settings with the rules of the load."""
    (folder / "rules.toml").write_text(RULES)
    path = folder / "headrace.toml"
    path.write_text(f'{text}\n[alert]\nrules = "{folder / "rules.toml"}"\n')
    return path


async def test_a_killed_worker_misses_and_repeats_no_alert(tmp_path: Path, chaos_size: Any, chaos_seed: int) -> None:
    """On the embedded log: kill -9 at random points, and the next worker goes on."""
    config, data = config_file(tmp_path, f"[log]\npartitions = {PARTITIONS}"), tmp_path / "data"
    rng = random.Random(chaos_seed)
    log = EmbeddedLog(data)
    await log.create_topics(topic_specs(set_up(config).settings))
    load = AlertLoad(log, chaos_seed)
    worker = Worker(config, tmp_path / "worker.log", "--data", str(data))
    try:
        async with load.running():
            for _ in range(chaos_size.kills):
                # Some kills hit the start and its recovery, most a worker at work.
                if rng.random() < 0.7:
                    await load.wait_alerts()
                await clock.sleep(rng.uniform(0.2, 2.5))
                assert worker.running, worker.end_of_output()
                worker.kill()
                worker = Worker(config, tmp_path / "worker.log", "--data", str(data))
            await load.wait_alerts()

        report = await load.check()
    finally:
        worker.kill()
        await log.close()

    print(report)
    assert report["episodes"] > report["open"] > 0
    assert report["acknowledged"] > 0


async def test_killed_and_new_workers_on_kafka_miss_and_repeat_no_alert(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """Two workers; one is killed and another joins, again and again."""
    with Cluster() as cluster:
        options = "".join(f"{key} = {value}\n" for key, value in SHORT_SESSION.items())
        text = f'[log]\nurl = "kafka://{cluster.bootstrap}"\npartitions = {PARTITIONS}\n[kafka]\n{options}'
        config = config_file(tmp_path, text)
        settings = set_up(config).settings
        rng = random.Random(chaos_seed)
        log = KafkaLog(settings.log.url, settings.kafka, role="chaos")
        await log.start()
        workers: list[Worker] = []
        try:
            await log.create_topics(topic_specs(settings))
            load = AlertLoad(log, chaos_seed)
            workers += [Worker(config, tmp_path / f"worker-{number}.log") for number in range(2)]
            async with load.running():
                for number in range(chaos_size.kills):
                    await load.wait_alerts()
                    await clock.sleep(rng.uniform(0.2, 3.0))
                    victim = workers.pop(rng.randrange(len(workers)))
                    assert victim.running, victim.end_of_output()
                    victim.kill()
                    workers.append(Worker(config, tmp_path / f"worker-{number + 2}.log"))
                await load.wait_alerts()

            report = await load.check()
        finally:
            for worker in workers:
                worker.kill()
            await log.close()

    print(report)
    assert report["episodes"] > report["open"] > 0
    assert report["acknowledged"] > 0

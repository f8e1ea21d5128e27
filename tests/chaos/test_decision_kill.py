"""Workers are killed while alerts come: whom they concern is told what the oracle says, with one key, once."""

import random
from pathlib import Path
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from headrace.cli.logs import topic_specs
from headrace.cli.running import set_up
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from tests.chaos.alert_load import AlertLoad, clock
from tests.chaos.kafka_world import SHORT_SESSION, Worker
from tests.chaos.test_alert_kill import PARTITIONS, config_file
from tests.chaos.told_check import NOTIFY, check_told, register

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]
#: Seconds between two readings of a device: what comes while no worker runs is to fit into one digest.
PAUSE = 0.3


async def test_a_killed_worker_tells_everybody_once(tmp_path: Path, chaos_size: Any, chaos_seed: int) -> None:
    """On the embedded log: kill -9 at random points, and the next worker goes on."""
    config, data = config_file(tmp_path, f"[log]\npartitions = {PARTITIONS}\n{NOTIFY}"), tmp_path / "data"
    rng = random.Random(chaos_seed)
    log = EmbeddedLog(data)
    await log.create_topics(topic_specs(set_up(config).settings))
    await register(log)
    load = AlertLoad(log, chaos_seed, PAUSE)
    worker = Worker(config, tmp_path / "worker.log", "--data", str(data))
    try:
        async with load.running():
            for _ in range(chaos_size.kills):
                await load.wait_alerts()
                await clock.sleep(rng.uniform(0.0, 1.5))
                assert worker.running, worker.end_of_output()
                worker.kill()
                worker = Worker(config, tmp_path / "worker.log", "--data", str(data))
            await load.wait_alerts()

        report = await check_told(log)
    finally:
        worker.kill()
        await log.close()

    print(report)
    assert report["sent"] > report["alerts"] > 0
    assert report["digests"] > 0


async def test_killed_and_new_workers_on_kafka_tell_everybody_once(
    tmp_path: Path, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """Two workers; one is killed and another joins, again and again."""
    with Cluster() as cluster:
        options = "".join(f"{key} = {value}\n" for key, value in SHORT_SESSION.items())
        text = f'[log]\nurl = "kafka://{cluster.bootstrap}"\npartitions = {PARTITIONS}\n[kafka]\n{options}{NOTIFY}'
        config = config_file(tmp_path, text)
        settings = set_up(config).settings
        rng = random.Random(chaos_seed)
        log = KafkaLog(settings.log.url, settings.kafka, role="chaos")
        await log.start()
        workers: list[Worker] = []
        try:
            await log.create_topics(topic_specs(settings))
            await register(log)
            load = AlertLoad(log, chaos_seed, PAUSE)
            workers += [Worker(config, tmp_path / f"worker-{number}.log") for number in range(2)]
            async with load.running():
                for number in range(chaos_size.kills):
                    await load.wait_alerts()
                    await clock.sleep(rng.uniform(0.0, 2.0))
                    victim = workers.pop(rng.randrange(len(workers)))
                    assert victim.running, victim.end_of_output()
                    victim.kill()
                    workers.append(Worker(config, tmp_path / f"worker-{number + 2}.log"))
                await load.wait_alerts()

            report = await check_told(log)
        finally:
            for worker in workers:
                worker.kill()
            await log.close()

    print(report)
    assert report["sent"] > report["alerts"] > 0
    assert report["digests"] > 0

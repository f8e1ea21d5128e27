"""Alert rules on a real Kafka, changed while a worker evaluates them, and stored from there."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from headrace.schemas.alert import AlertEvent
from tests.cli.conftest import Headrace
from tests.cli.test_kafka_commands import DEVICES, World, until
from tests.connectors.timescale.storing import running
from tests.databases import Connect

pytestmark = pytest.mark.integration

HOT = ("--metric", "temperature", "--operator", ">", "--threshold", "40")


async def test_a_worker_takes_changes_and_a_sink_stores_them(
    kafka_tools: None, database: Connect, headrace: Headrace, tmp_path: Path
) -> None:
    """Set, tried, deleted and purged by commands: alerts come and end; of a purged rule the id is stored."""
    with Cluster() as cluster:
        world = World(cluster, tmp_path / "headrace.toml")

        async def command(*arguments: str) -> Any:
            options = ("--config", world.config, "--json")
            done = await asyncio.to_thread(headrace, "rules", *arguments, *options)
            return json.loads(done.stdout)

        async def rules(*arguments: str) -> None:
            done = await command(*arguments)
            applies = datetime.fromisoformat(done["appliesFrom"]).timestamp() * 1000
            await until(lambda: SystemClock().now_ms() >= applies)

        async def alerted(count: int) -> bool:
            return len(await world.values(topics.ALERTS)) == count

        with world.worker() as output:
            await until(lambda: "worker" in output.read_text())
            await rules("set", "hot", *HOT)
            await rules("set", "never", *HOT, "--type", "tilt", "--metric", "battery_level")
            await send(world, 50)
            await until(lambda: alerted(len(DEVICES)))
            tried = await command("backtest", "hot")
            await rules("delete", "hot")
            await rules("delete", "never", "--purge")
            await send(world, 51)
            await until(lambda: alerted(2 * len(DEVICES)))
        events = [AlertEvent.model_validate_json(value or b"") for value in await world.values(topics.ALERTS)]
        async with world.log() as log:
            runner = SinkRunner(log, TimescaleSink(database, [], SystemClock()), SystemClock(), linger=0.001)
            async with running(runner):
                await until(lambda: runner.statistics().written >= 4 + len(events))
        connection = await asyncpg.connect(**database)
        stored = await connection.fetch("SELECT rule_id, status, document->>'ruleId' FROM alert_rules ORDER BY 1")
        await connection.close()

    (found,) = tried["rules"]
    assert [each["deviceId"] for each in found["episodes"]] == sorted(name.decode() for name in DEVICES)
    kinds = [(event.subject, event.type.rpartition(".")[2]) for event in events]
    expected = [(name.decode(), kind) for name in DEVICES for kind in ("resolved", "triggered")]
    assert sorted(kinds) == sorted(expected)
    assert [tuple(row) for row in stored] == [("hot", "deleted", "hot"), ("never", "deleted", None)]


async def send(world: World, temperature: float) -> None:
    """A message of each device, now."""
    async with world.log() as log:
        now = SystemClock().now_ms()
        payloads = [orjson.dumps({"timestamp": now, "temp": temperature})] * len(DEVICES)
        await Intake(log, SystemClock()).append(DEVICES, payloads, device_type="environmental", profile="test")

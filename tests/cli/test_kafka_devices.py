"""The device registry on a real Kafka with two workers."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.schemas import topics
from tests.cli.conftest import Headrace
from tests.cli.test_kafka_commands import DEVICES, PATIENCE, World, until

pytestmark = pytest.mark.integration


async def test_both_workers_give_readings_what_was_imported(
    kafka_tools: None, headrace: Headrace, tmp_path: Path
) -> None:
    """Before the import nothing; from it on every reading, in all partitions; then one device is retired.

    Users are registered beside them.
    """
    fleet = tmp_path / "fleet.ndjson"
    rows = [{"id": name.decode(), "name": f"Device {name.decode()}", "organizationId": "acme"} for name in DEVICES]
    fleet.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with Cluster() as cluster:
        world = World(cluster, tmp_path / "headrace.toml")
        options = ("--config", world.config, "--json")
        command = [sys.executable, "-m", "headrace.cli.main", "worker", "--workers", "2", "--config", str(world.config)]
        output = tmp_path / "output"
        with output.open("w") as log, subprocess.Popen(command, stderr=log) as workers:
            try:
                await until(lambda: output.read_text().count("worker ") >= 2)
                await send(world)
                await until(lambda: caught_up(world, 1))
                done = await asyncio.to_thread(headrace, "devices", "import", fleet, *options)
                await until(lambda: applied(world))
                await send(world)
                await until(lambda: caught_up(world, 2))
                await asyncio.to_thread(headrace, "devices", "set", DEVICES[0].decode(), "status=retired", *options)
                await asyncio.to_thread(headrace, "users", "set", "ada", "email=ada@example.com", "--add", *options)
                people = await asyncio.to_thread(headrace, "users", "export", "--config", world.config)
                await until(lambda: applied(world))
                await send(world)
                await until(lambda: caught_up(world, 3))
            finally:
                workers.terminate()
                workers.wait(PATIENCE)
        readings = [orjson.loads(value or b"") for value in await world.values(topics.READINGS)]
        refused = await world.values(topics.DEAD_LETTERS)

    assert json.loads(done.stdout)["added"] == len(DEVICES)
    assert json.loads(people.stdout)["email"] == "ada@example.com"
    named = [reading for reading in readings if "device" in reading]
    assert len(readings) == 3 * len(DEVICES) - 1
    assert len(named) == 2 * len(DEVICES) - 1
    assert all(each["device"] == {"organisation": "acme", "name": f"Device {each['device_id']}"} for each in named)
    assert len(refused) == 1


async def send(world: World) -> None:
    """A message of each device, now."""
    async with world.log() as log:
        now = SystemClock().now_ms()
        payloads = [orjson.dumps({"timestamp": now, "temp": 20})] * len(DEVICES)
        await Intake(log, SystemClock()).append(DEVICES, payloads, device_type="environmental", profile="test")


async def caught_up(world: World, rounds: int) -> bool:
    ended = len(await world.values(topics.READINGS)) + len(await world.values(topics.DEAD_LETTERS))
    return ended == rounds * len(DEVICES)


async def applied(world: World) -> bool:
    """Whether the newest change applies to what is appended now."""
    times: list[int] = []
    async with world.log() as log, reading(log) as reader:
        starts = await first_offsets(log, topics.DEVICES)
        for target, end in (await log.end_offsets(topics.DEVICES)).items():
            async for fetched in read_range(reader, target, starts[target], end):
                times += fetched.records.timestamps
    return SystemClock().now_ms() >= max(times)

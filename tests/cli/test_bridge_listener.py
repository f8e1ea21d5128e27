"""`headrace bridge` with a listener, as a user meets it: devices connect straight to it, a worker runs beside it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
from click.testing import CliRunner

from headrace.cli.passwd import passwd
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from tests.cli.test_bridge import PATIENCE, end, payloads, start, wait_started
from tests.mosquitto import free_port

__all__ = ["start"]
clock = SystemClock()


async def test_devices_reach_the_agents(start: Any, tmp_path: Path) -> None:
    """What a device publishes is a reading soon, its connection is on record, and the end says how many there were."""
    users, port = tmp_path / "users", free_port()
    printed = CliRunner().invoke(passwd, ["--generate", str(users), "roof-7"]).stdout
    password = printed.split()[1]
    bridge = start(f'[listener]\nport = {port}\npasswords = "{users}"\n', "--json")
    assert f"listener: 127.0.0.1:{port} into" in wait_started(bridge)
    command = [sys.executable, "-m", "headrace.cli.main", "worker", "--data", str(tmp_path / "data")]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert "Ctrl-C stops" in wait_started(worker)
        async with MqttPublisher(BrokerAddress("127.0.0.1", port, "roof-7", password)) as publisher:
            for number in range(20):
                reading = {"timestamp": clock.now_ms() - 1_000 + number, "temp": 20 + number}
                await publisher.publish("dt/devices/roof-7/telemetry", orjson.dumps(reading))
            await publisher.drain()
            assert len(await payloads(tmp_path / "data", 20)) == 20  # acknowledged is in the log
        readings = await values(tmp_path / "data", topics.READINGS, 20)
        assert {orjson.loads(each)["device_id"] for each in readings} == {"roof-7"}
        presence = await values(tmp_path / "data", topics.PRESENCE, 2)
        assert [orjson.loads(each)["state"] for each in presence] == ["connected", "disconnected"]
    finally:
        worker.kill()
        worker.communicate()
    output, _ = end(bridge)
    assert json.loads(output)["listener"]["appended"] == 20


def test_mistakes(start: Any) -> None:
    """Every one is named, and nothing is started."""
    settings = '[listener]\nport = 1\ntls_port = 2\ncertificate = "no.pem"\nkey = "no.key"\npasswords = "nobody"\n'
    bridge = start(settings)
    _, said = bridge.communicate(timeout=PATIENCE)
    assert bridge.returncode == 2
    assert "passwords" in said
    assert "certificate" in said
    bridge = start("")
    _, said = bridge.communicate(timeout=PATIENCE)
    assert (bridge.returncode, "mqtt.host" in said, "listener.port" in said) == (2, True, True)


async def values(folder: Path, topic: str, count: int) -> list[bytes]:
    """What is in a topic, once it is so many records."""
    log, deadline = EmbeddedLog(folder), clock.monotonic() + PATIENCE
    try:
        while True:
            await log.topics()
            ends = await log.end_offsets(topic)
            if sum(ends.values()) >= count:
                break
            assert clock.monotonic() < deadline, f"{topic}: {ends}"
            await clock.sleep(0.05)
        found = [await log.read(TopicPartition(*target), 0, 10_000) for target, last in ends.items() if last]
        return [value for each in found if each is not None for value in each.records.values if value is not None]
    finally:
        await log.close()

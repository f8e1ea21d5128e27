"""An alert as people meet it: a device over MQTT, a rule set while all runs, and commands beside the running worker."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from headrace.cli.passwd import passwd
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from tests.cli.test_bridge import PATIENCE, end, start, wait_started
from tests.mosquitto import free_port

__all__ = ["start"]
pytestmark = pytest.mark.integration
clock = SystemClock()


async def said(*arguments: object) -> str:
    """What a command says that succeeds."""
    command = [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def wait_alert(data: Path, status: str) -> dict[str, Any]:
    """The only alert, once it has this status."""
    deadline = clock.monotonic() + PATIENCE
    while True:
        found = [
            json.loads(line)
            for line in (await said("alerts", "list", "--status", "all", "--data", data, "--json")).splitlines()
        ]
        assert len(found) <= 1
        if found and found[0]["status"] == status:
            return dict(found[0])
        assert clock.monotonic() < deadline, found
        await clock.sleep(0.1)


async def test_a_device_over_mqtt_gets_too_hot_and_somebody_looks_after_it(start: Any, tmp_path: Path) -> None:
    """Triggered after the rule's duration, acknowledged by a person, resolved when it cools down."""
    users, port, data = tmp_path / "users", free_port(), tmp_path / "data"
    password = CliRunner().invoke(passwd, ["--generate", str(users), "roof-7"]).stdout.split()[1]
    bridge = start(f'[listener]\nport = {port}\npasswords = "{users}"\n', "--json")
    wait_started(bridge)
    command = [sys.executable, "-m", "headrace.cli.main", "worker", "--data", str(data)]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_started(worker)
        options = ("--metric", "temperature", "--operator", ">", "--threshold", 40, "--duration", 5)
        await said("rules", "set", "too-hot", "--name", "Too hot", *options, "--data", data)
        await clock.sleep(1.5)  # it applies to messages that come a second later
        began = clock.now_ms() - 60_000
        async with MqttPublisher(BrokerAddress("127.0.0.1", port, "roof-7", password)) as publisher:
            for second in range(6):
                reading = {"timestamp": began + second * 1000, "temp": 45}
                await publisher.publish("dt/devices/roof-7/telemetry", orjson.dumps(reading))
            await publisher.drain()
            triggered = await wait_alert(data, "triggered")

            answer = ("--comment", "on my way", "--timeout", PATIENCE)
            await said("alerts", "ack", triggered["alertId"][:8], *answer, "--data", data)
            acknowledged = await wait_alert(data, "acknowledged")
            reading = {"timestamp": began + 6_000, "temp": 35}
            await publisher.publish("dt/devices/roof-7/telemetry", orjson.dumps(reading))
            await publisher.drain()
            resolved = await wait_alert(data, "resolved")
    finally:
        worker.kill()
        worker.communicate()
    end(bridge)
    assert (triggered["ruleId"], triggered["condition"]) == ("too-hot", "temperature > 40")
    assert (triggered["triggeredAt"], triggered["actualValue"]) == (began + 5_000, 45)
    assert [sample["value"] for sample in triggered["evidence"]] == [45] * 6
    assert [comment["comment"] for comment in acknowledged["comments"]] == ["on my way"]
    assert (resolved["alertId"], resolved["resolved"]["by"]) == (triggered["alertId"], "condition")

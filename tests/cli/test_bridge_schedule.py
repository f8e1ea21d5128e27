"""`headrace bridge` with a schedule, as deploy/tilt.toml has it, beside a real Mosquitto."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from tests.conftest import Require
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
TILT = Path(__file__).parents[2] / "deploy" / "tilt.toml"
PATIENCE = 120.0


def command(folder: Path, *options: str) -> list[str]:
    """The bridge with the example, on a data folder."""
    bridge = [sys.executable, "-m", "headrace.cli.main", "bridge"]
    return [*bridge, "--config", str(TILT), "--data", str(folder), *options]


def pulled(folder: Path, broker: Mosquitto, runs: int) -> dict[str, int]:
    """Run the bridge until it has left the broker so many times in all; what it counted."""
    clock, left = SystemClock(), "Client headrace-tilt disconnected."
    with subprocess.Popen(
        command(folder, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as bridge:
        deadline = clock.monotonic() + PATIENCE
        while broker.said().count(left) < runs and bridge.poll() is None and clock.monotonic() < deadline:
            with_pause(bridge)
        bridge.terminate()
        said, errors = bridge.communicate(timeout=PATIENCE)
    assert bridge.returncode == 0, errors
    assert "rate(5 minutes)" in errors
    counted: dict[str, int] = json.loads(said)["mqtt"]
    return counted


def with_pause(process: "subprocess.Popen[str]") -> None:
    """A moment, or until it ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.02)


async def test_tilt_sensors_every_five_minutes(
    require: Require, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects and leaves; what sensors published meanwhile comes with the next run, alarms in their own lane."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker, folder = Mosquitto(tmp_path / "mosquitto").start(), tmp_path / "data"
    monkeypatch.setenv("MQTT_PASSWORD", "not looked at")
    monkeypatch.setenv("HEADRACE_MQTT__HOST", broker.host)
    monkeypatch.setenv("HEADRACE_MQTT__PORT", str(broker.port))
    try:
        assert pulled(folder, broker, 1)["appended"] == 0
        async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
            for sensor in range(10):
                reading = {
                    "device_id": f"sensor-{sensor:03}",
                    "timestamp": "2026-01-18T10:30:00Z",
                    "tilt_angle": 15.5,
                    "status": "alarm" if sensor == 7 else "normal",
                    "battery_level": 85,
                }
                await publisher.publish(f"tilt/sensor-{sensor:03}/telemetry", json.dumps(reading).encode())
            await publisher.drain()
        counted = pulled(folder, broker, 2)
    finally:
        broker.stop()

    assert (counted["appended"], counted["repeated"], counted["failed_runs"]) == (10, 0, 0)
    log = EmbeddedLog(folder)
    await log.topics()
    ends = await log.end_offsets(topics.RAW_PRIORITY)
    partition = next(target for target, end in ends.items() if end)
    found = await log.read(TopicPartition(*partition), 0, 10)
    await log.close()
    assert found is not None
    assert list(found.records.keys) == [b"sensor-007"]
    assert found.records[0].headers[topics.DEVICE_TYPE] == b"tilt"


def test_several_processes_have_no_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2."""
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    asked = command(tmp_path, "--processes", "2")
    refused = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert refused.returncode == 2
    assert "one process drains the session of mqtt.schedule" in refused.stderr

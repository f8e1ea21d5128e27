"""`headrace bridge` as a user meets it, beside a real Mosquitto."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from tests.conftest import Require
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
#: Seconds; many times what anything here takes.
PATIENCE = 120.0

clock = SystemClock()


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that lets everybody in; not persistent."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "mosquitto")
    yield broker.start()
    broker.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `headrace bridge` on the data folder `data`, and leaves nothing behind."""
    started: list[subprocess.Popen[str]] = []

    def start(settings: str, *options: str) -> "subprocess.Popen[str]":
        config = tmp_path / "headrace.toml"
        config.write_text(settings)
        command = [sys.executable, "-m", "headrace.cli.main", "bridge", "--config", str(config)]
        command += ["--data", str(tmp_path / "data"), *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def publish(broker: Mosquitto, count: int, *, first: int = 0) -> None:
    """Messages of ten devices, at QoS 1."""
    async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
        for number in range(first, first + count):
            await publisher.publish(f"dt/devices/d{number % 10}/telemetry", b"%d" % number)
        await publisher.drain()


async def wait_session(broker: Mosquitto, count: int = 1) -> None:
    """Wait until so many clients have subscribed."""
    deadline = clock.monotonic() + PATIENCE
    while broker.said().count("dt/devices/+/telemetry") < count:
        assert clock.monotonic() < deadline, broker.said()
        await clock.sleep(0.02)


async def payloads(folder: Path, count: int) -> list[bytes]:
    """What is in the log, once it is `count` messages."""
    log = EmbeddedLog(folder)
    deadline = clock.monotonic() + PATIENCE
    try:
        while clock.monotonic() < deadline:
            await log.topics()
            ends = await log.end_offsets(topics.RAW)
            if sum(ends.values()) >= count:
                break
            await clock.sleep(0.05)
        found = [await log.read(target, 0, 1_000_000) for target, end in ends.items() if end]
        return [value for each in found if each is not None for value in each.records.values if value is not None]
    finally:
        await log.close()


def wait_started(process: "subprocess.Popen[str]") -> str:
    """Its first line."""
    assert process.stderr is not None
    return process.stderr.readline()


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """SIGTERM, which is no error; its output."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


async def test_messages_reach_the_log_also_those_of_a_pause(mosquitto: Mosquitto, start: Any, tmp_path: Path) -> None:
    """What was published while the bridge ran, and while it was away, is in the log once."""
    settings = f'[mqtt]\nhost = "127.0.0.1"\nport = {mosquitto.port}\n'
    first = start(settings, "--json")
    assert f"127.0.0.1:{mosquitto.port} into" in wait_started(first)
    await wait_session(mosquitto)
    await publish(mosquitto, 500)
    assert len(await payloads(tmp_path / "data", 500)) == 500
    said, _ = end(first)
    await publish(mosquitto, 500, first=500)
    second = start(settings)

    found = await payloads(tmp_path / "data", 1000)

    end(second)
    assert sorted(map(int, found)) == list(range(1000))
    assert json.loads(said)["mqtt"]["appended"] == 500


async def test_processes_share_the_messages(mosquitto: Mosquitto, start: Any, tmp_path: Path) -> None:
    """Two processes take each message once, and each takes some."""
    bridge = start(f'[mqtt]\nhost = "127.0.0.1"\nport = {mosquitto.port}\n', "--processes", "2", "--json")
    await wait_session(mosquitto, count=2)
    await publish(mosquitto, 1000)

    found = await payloads(tmp_path / "data", 1000)

    said, _ = end(bridge)
    assert sorted(map(int, found)) == list(range(1000))
    shares = [json.loads(line)["mqtt"]["appended"] for line in said.splitlines()]
    assert len(shares) == 2
    assert sum(shares) == 1000
    assert min(shares) > 0


def test_every_mistake_is_named_at_once(start: Any) -> None:
    """No broker named, a password without a user, TLS files without TLS: exit code 2."""
    process = start('[mqtt]\npassword = "hush"\n[monitor]\nport = -1\n')

    said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 2
    assert "password needs a username" in said[1]
    assert "monitor.port" in said[1]
    assert "hush" not in said[1]

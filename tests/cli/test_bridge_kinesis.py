"""`headrace bridge` into Kinesis, beside a real Mosquitto and a server that speaks for AWS."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from tests.conftest import Require
from tests.connectors.kinesis.aws import Moto, Stream, client
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
PATIENCE = 60.0


def bridge(config: Path, text: str) -> "subprocess.Popen[str]":
    """The command, started, with these settings."""
    config.write_text(text)
    command = [sys.executable, "-m", "headrace.cli.main", "bridge", "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_messages_go_into_the_stream(require: Require, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With credentials from AWS's own variables; no data folder and no log are needed."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    broker, clock = Mosquitto(tmp_path / "mosquitto").start(), SystemClock()
    sent = {f"d{device}": [b"%d" % number for number in range(20)] for device in range(5)}
    try:
        with Moto() as url:
            async with client(url) as kinesis:
                stream = Stream(kinesis, "fleet")
                await stream.make()
                settings = f'stream = "fleet"\nregion = "eu-central-1"\nendpoint_url = "{url}"\n'
                where = f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n'
                text = f'[bridge]\ninto = "kinesis"\n{where}[kinesis]\n{settings}'
                running = bridge(tmp_path / "headrace.toml", text)
                deadline = clock.monotonic() + PATIENCE
                while "dt/devices/+/telemetry" not in broker.said() and clock.monotonic() < deadline:
                    await clock.sleep(0.02)
                async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
                    for device, payloads in sent.items():
                        for payload in payloads:
                            await publisher.publish(f"dt/devices/{device}/telemetry", payload)
                    await publisher.drain()
                while await stream.devices() != sent and clock.monotonic() < deadline:
                    await clock.sleep(0.05)
                running.send_signal(signal.SIGINT)
                _, errors = running.communicate(timeout=PATIENCE)
                assert await stream.devices() == sent, errors
    finally:
        broker.stop()

    assert running.returncode == 0, errors
    assert "into Kinesis stream fleet" in errors


def test_a_stream_that_is_not_there_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, and what to mend."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with Moto() as url:
        settings = f'stream = "nowhere"\nregion = "eu-central-1"\nendpoint_url = "{url}"\n'
        text = f'[bridge]\ninto = "kinesis"\n[mqtt]\nhost = "127.0.0.1"\n[kinesis]\n{settings}'
        failed = bridge(tmp_path / "headrace.toml", text)
        _, errors = failed.communicate(timeout=PATIENCE)

    assert failed.returncode == 2
    assert "stream nowhere: there is no such stream in this region" in errors

"""`headrace bridge` into Kinesis and out of it, beside a real Mosquitto and a server that speaks for AWS."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from tests.conftest import Require
from tests.connectors.kinesis.aws import Moto, Stream, client
from tests.connectors.kinesis.reading import put, sharded_moto
from tests.contract.source_contract import arrived, by_device, made
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
PATIENCE = 120.0


def bridge(config: Path, text: str, *options: str) -> "subprocess.Popen[str]":
    """The command, started, with these settings."""
    config.write_text(text)
    command = [sys.executable, "-m", "headrace.cli.main", "bridge", "--config", str(config), *options]
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


async def test_a_stream_goes_into_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it once, over two runs; a second bridge on the same data folder is refused meanwhile."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    messages, folder, clock = made(200, 7), tmp_path / "data", SystemClock()
    with sharded_moto() as url:
        text = f'[kinesis_source]\nstream = "fleet"\nregion = "eu-central-1"\nendpoint_url = "{url}"\n'
        async with client(url) as kinesis:
            await Stream(kinesis, "fleet").make()
            log = EmbeddedLog(folder)
            for place, part in enumerate((messages[:100], messages[100:])):
                await put(kinesis, part)
                running = bridge(tmp_path / "headrace.toml", text, "--data", str(folder), "--json")
                expected, deadline = messages.index(part[-1]) + 1, clock.monotonic() + PATIENCE
                while await count(log) < expected and clock.monotonic() < deadline and running.poll() is None:
                    await clock.sleep(0.05)
                if place == 0:
                    second = bridge(tmp_path / "headrace.toml", text, "--data", str(folder))
                    _, refused = second.communicate(timeout=PATIENCE)
                    assert second.returncode == 2
                    assert "takes it into the same log already" in refused
                running.send_signal(signal.SIGTERM)
                said, errors = running.communicate(timeout=PATIENCE)
                assert running.returncode == 0, errors
                assert json.loads(said)["kinesis"]["appended"] == 100
            found = await arrived(log)
            await log.close()

    assert by_device(found) == by_device(messages)


async def count(log: EmbeddedLog) -> int:
    """Messages in the log."""
    await log.topics()
    return sum((await log.end_offsets(topics.RAW)).values())


@pytest.mark.parametrize(
    ("more", "options", "mistake"),
    [
        ("", ["--processes", "2"], "one process reads the stream"),
        ('[bridge]\ninto = "kinesis"\n[kinesis]\nstream = "other"\n', [], "which keeps how far it has read"),
        ('[kinesis_source]\nstream = "fleet"\ntopic = "tb/{key}"\n', [], "no topic profile takes tb/{key}"),
        ('[kinesis_source]\nstream = "fleet"\ndevice_type = "meterr"\n', [], "'meterr' is unknown"),
    ],
)
def test_mistakes_end_the_command(tmp_path: Path, more: str, options: list[str], mistake: str) -> None:
    """Exit code 2, and what to mend."""
    text = more if "kinesis_source" in more else f'{more}[kinesis_source]\nstream = "fleet"\n'
    failed = bridge(tmp_path / "headrace.toml", text, "--data", str(tmp_path), *options)
    _, errors = failed.communicate(timeout=PATIENCE)

    assert failed.returncode == 2
    assert mistake in errors

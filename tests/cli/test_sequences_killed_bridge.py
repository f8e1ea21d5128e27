"""kill -9 of a bridge behind a real Mosquitto: what the broker delivers again changes no sequence count."""

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from headrace.agents.sequence_fold import WINDOW
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.test_sequences import ingest, newest
from tests.conftest import Require
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration

#: Numbers of the device, which lost four and began anew.
NUMBERS = [*range(500, 560), *range(563, 600), *range(40), *range(41, 120)]
#: Seconds; a limit for what hangs.
PATIENCE = 120.0


def bridge(folder: Path, port: int, dies_after: int) -> subprocess.Popen[bytes]:
    """A bridge in a process of its own."""
    arguments = [str(folder), str(port), str(dies_after)]
    return subprocess.Popen([sys.executable, "-m", "tests.cli.dying_bridge", *arguments])


def messages(first_ms: int) -> list[tuple[str, bytes]]:
    """Of meters whose profile says where the number is, one of them without a clock, and one behind ChirpStack.

    Some cannot be read.
    """
    found = []
    for place, number in enumerate(NUMBERS):
        time = first_ms + place * 1_000
        bad = place % 9 == 4
        found.append(("meters/m", {"seq": number, "kwh": place, "timestamp": time}))
        found.append(("clockless/n", {"seq": number, "kwh": "?" if bad else place}))
        uplink = {"time": datetime.fromtimestamp(time / 1000, UTC).isoformat(), "fCnt": number, "fPort": 1}
        found.append(("application/1/device/c/event/up", uplink | ({} if bad else {"object": {"kwh": place}})))
    return [(topic, orjson.dumps(each)) for topic, each in [*found, ("meters/end", {"kwh": 1})]]


async def raw_messages(folder: Path) -> Records:
    """What the bridges appended."""
    log = EmbeddedLog(folder)
    await log.topics()
    fetched = await log.read(TopicPartition(topics.RAW, 0), 0, 10_000)
    await log.close()
    assert fetched is not None
    return fetched.records


async def subscribed(broker: Mosquitto) -> None:
    """Wait until the broker has the last subscription: from now on it keeps what is published."""
    async with asyncio.timeout(PATIENCE):
        while "application/+/device/+/event/+" not in broker.said():
            await asyncio.sleep(0.02)


async def test_kill_between_append_and_acknowledgement_changes_no_count(tmp_path: Path, require: Require) -> None:
    """More messages of a device than are remembered come a second time, and none is a gap, repeat or new beginning."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "broker").start()
    sent = messages(SystemClock().now_ms() - 3_600_000)
    # It dies when all are in the log and none is acknowledged: of a device without a clock that begins anew in the
    # first copy, which is in the log, nobody needs to guess it from the second.
    dying = bridge(tmp_path / "data", broker.port, len(sent))
    lives = [dying]
    try:
        await subscribed(broker)
        async with MqttPublisher(BrokerAddress(broker.host, broker.port), window=len(sent)) as publisher:
            for topic, payload in sent:
                await publisher.publish(topic, payload)
            await publisher.drain()
        assert await asyncio.to_thread(dying.wait, PATIENCE) == -signal.SIGKILL
        lives.append(bridge(tmp_path / "data", broker.port, 0))
        assert await asyncio.to_thread(lives[-1].wait, PATIENCE) == 0
    finally:
        for each in lives:
            each.kill()
            each.wait()
        broker.stop()

    raw = await raw_messages(tmp_path / "data")
    again = len(raw) - len(sent)
    found = newest(drive(ingest(), raw))

    assert again == len(sent)
    assert len(NUMBERS) > 3 * WINDOW
    wanted = {"last": 119, "modulo": 2**32, "received": len(NUMBERS), "lost": 4, "late": 0, "repeats": 0, "resets": 1}
    for stream in (found["m"]["meters"], found["n"]["clockless"], found["c"]["lorawan"]):
        stream.pop("time", None)
        assert stream == wanted

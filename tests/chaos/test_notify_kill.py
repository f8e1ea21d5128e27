"""`headrace notify` is killed, and its receiver is away: everything arrives, and what arrives twice is known to."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import web

from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.notification import Notification
from tests.conftest import KafkaServer
from tests.connectors.notifications.outbox import all_records, make_topics, notification, pending, put, states
from tests.connectors.notifications.receivers import HttpReceiver, Received

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(3600)]

PATIENCE = 300.0
#: Seconds that a receiver is away, in the short form and in the long one, whose load lasts at least `LONG`.
AWAY, LONG_AWAY, LONG = 5.0, 1800.0, 60.0
#: Notifications of a kill.
PART = 150
PEOPLE = 40
SETTINGS = """
[channels.webhook]
private_networks = ["127.0.0.0/8"]
timeout = 60.0

[delivery]
first_backoff = 0.2
max_backoff = 2.0
{more}
"""

clock = SystemClock()


class Notify:
    """A command that delivers, which can be killed and started again."""

    def __init__(self, folder: Path, more: str, *options: str, command: str = "notify") -> None:
        config = folder / "notify.toml"
        config.write_text(SETTINGS.format(more=more))
        self._command = [sys.executable, "-m", "headrace.cli.main", command, "--config", str(config), *options]
        self._said = folder / "notify.err"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=said)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def killed(notify: Notify) -> AsyncIterator[Notify]:
    try:
        yield notify
    finally:
        notify.kill()


def storm(url: str, count: int) -> list[Notification]:
    """As many notifications, decided just now."""
    now = clock.now_ms()
    return [
        notification(f"{uuid4()}", f"u{number % PEOPLE}", "webhook", "alert", f"{url}/{number % 7}", decidedAt=now)
        for number in range(count)
    ]


async def wait_all(log: Log, wanted: list[Notification], notify: Notify) -> None:
    """Wait until all are sent, and nothing is pending."""
    deadline = clock.monotonic() + PATIENCE
    ids = {each.notificationId for each in wanted}
    while True:
        assert clock.monotonic() < deadline, "not everything was sent"
        assert notify.process is not None
        assert notify.process.poll() is None, "notify has ended"
        found = await states(log)
        if all(found.get(each, {}).get("status") in ("sent", "delivered") for each in ids) and not await pending(log):
            return
        await clock.sleep(1.0)


async def check(log: Log, wanted: list[Notification], received: list[Received]) -> None:
    """Each at least once, with its key; a repeat only after an `unknown` in the log; each alert told once."""
    got = Counter(request.headers["webhook-id"] for request in received)
    ids = {each.notificationId for each in wanted}
    events = {
        event["id"]: event
        for record in await all_records(log, topics.NOTIFICATIONS)
        if (event := orjson.loads(record.value or b""))["data"]["notificationId"] in ids
    }
    unknown = Counter(each["data"]["notificationId"] for each in events.values() if each["data"]["status"] == "unknown")
    assert set(got) == ids
    silent = {name: count for name, count in got.items() if count - 1 > unknown[name]}
    assert silent == {}
    commands = [orjson.loads(record.value or b"") for record in await all_records(log, topics.ALERT_COMMANDS)]
    told = Counter(each["alertId"] for each in commands)
    assert {each.dedupKey for each in wanted} <= set(told)
    assert {name for each in wanted if told[name := each.dedupKey] > 1} == set()


@pytest.fixture
def rng(chaos_seed: int) -> random.Random:
    """Decides when."""
    return random.Random(chaos_seed)


async def slow(received: Received) -> web.StreamResponse:
    """An answer that takes a moment, in which somebody may be killed."""
    await asyncio.sleep(0.02)
    return web.Response(status=204)


async def storm_of_kills(log: Log, notify: Notify, kills: int, rng: random.Random) -> None:
    """A storm in parts, and a kill in the middle of each."""
    async with HttpReceiver(slow).running() as receiver, killed(notify):
        wanted: list[Notification] = []
        for _ in range(kills):
            part = storm(receiver.url, PART)
            wanted += part
            notify.start()
            seen = len(receiver.received)
            await put(log, *part)
            # A start takes a second or more: it is killed when it is at work.
            deadline = clock.monotonic() + PATIENCE
            while len(receiver.received) < seen + rng.randint(1, len(part) // 2):
                assert clock.monotonic() < deadline
                await clock.sleep(0.01)
            notify.kill()
        notify.start()
        await wait_all(log, wanted, notify)
        await check(log, wanted, receiver.received)


async def test_killed_in_a_storm_on_the_embedded_log(tmp_path: Path, chaos_size: Any, rng: random.Random) -> None:
    """kill -9 between attempt and note: nothing is lost, no repeat is silent."""
    log = EmbeddedLog(tmp_path / "data")
    await make_topics(log, 4)

    await storm_of_kills(log, Notify(tmp_path, "", "--data", str(tmp_path / "data")), chaos_size.kills, rng)

    await log.close()


async def test_a_worker_that_delivers_is_killed_in_a_storm(tmp_path: Path, chaos_size: Any, rng: random.Random) -> None:
    """The same where agents run beside delivery."""
    log = EmbeddedLog(tmp_path / "data")
    await make_topics(log, 4)
    worker = Notify(tmp_path, "[log]\npartitions = 4", "--data", str(tmp_path / "data"), command="worker")

    await storm_of_kills(log, worker, min(chaos_size.kills, 10), rng)

    await log.close()


@pytest.fixture
async def on_kafka(kafka: KafkaServer) -> AsyncIterator[tuple[KafkaLog, str]]:
    """A log with the topics, and the settings that name it."""
    url = f"kafka://{kafka.bootstrap}"
    log = KafkaLog(url, KafkaSettings(), role="test")
    await log.start()
    await make_topics(log, 4)
    yield log, f'[log]\nurl = "{url}"\n[kafka]\nsession_timeout = 6.0\nheartbeat_interval = 1.0\n'
    await log.close()


async def test_killed_in_a_storm_on_kafka(
    on_kafka: tuple[KafkaLog, str], tmp_path: Path, chaos_size: Any, rng: random.Random
) -> None:
    """The same, where a transaction may be left open."""
    log, settings = on_kafka

    await storm_of_kills(log, Notify(tmp_path, settings), min(chaos_size.kills, 5), rng)


async def test_two_on_kafka_take_over_from_each_other(
    on_kafka: tuple[KafkaLog, str], tmp_path: Path, chaos_size: Any, rng: random.Random
) -> None:
    """One of two is killed in a storm: the other has its recipients; then that one, when the first is back."""
    log, settings = on_kafka
    pair = [Notify(tmp_path, settings), Notify(tmp_path, settings)]
    async with HttpReceiver(slow).running() as receiver, killed(pair[0]), killed(pair[1]):
        wanted: list[Notification] = []
        pair[0].start()
        for number in range(min(chaos_size.kills, 10)):
            stays, goes = pair[1 - number % 2], pair[number % 2]
            stays.start()
            seen, part = len(receiver.received), storm(receiver.url, PART)
            wanted += part
            await put(log, *part)
            deadline = clock.monotonic() + PATIENCE
            while len(receiver.received) < seen + rng.randint(1, len(part) // 2):
                assert clock.monotonic() < deadline
                await clock.sleep(0.01)
            goes.kill()
            await wait_all(log, wanted, stays)
        await check(log, wanted, receiver.received)


async def test_a_receiver_that_is_away_gets_all_of_it_once(tmp_path: Path, chaos_size: Any) -> None:
    """The server is gone for a few seconds while notifications come; for half an hour in `make chaos`."""
    log = EmbeddedLog(tmp_path / "data")
    await make_topics(log, 4)
    notify = Notify(tmp_path, "", "--data", str(tmp_path / "data"))
    receiver = HttpReceiver()
    async with receiver.running():
        port = int(receiver.url.rpartition(":")[2])
    async with killed(notify):
        notify.start()
        wanted: list[Notification] = []
        ends = clock.monotonic() + (LONG_AWAY if chaos_size.seconds >= LONG else AWAY)
        while clock.monotonic() < ends:
            part = storm(f"http://127.0.0.1:{port}", 10)
            wanted += part
            await put(log, *part)
            await clock.sleep(1.0)
        async with receiver.running(port):
            await wait_all(log, wanted, notify)

    assert Counter(request.headers["webhook-id"] for request in receiver.received) == Counter(
        each.notificationId for each in wanted
    )
    await log.close()

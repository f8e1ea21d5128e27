"""`headrace notify` and `headrace notifications` as a user meets them, with a real mail server."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import structlog.testing

from headrace.connectors.notifications.channel import Message, Refused, SendLater
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas.notification import Notification
from tests.cli.conftest import Headrace
from tests.connectors.notifications.outbox import (
    Receiver,
    deliverer,
    delivering,
    make_topics,
    notification,
    put,
    settle,
    states,
)
from tests.connectors.notifications.receivers import Mailbox
from tests.connectors.notifications.test_bounces import report

#: Seconds; many times what anything here takes.
PATIENCE = 120.0
SETTINGS = """
[channels.email]
host = "127.0.0.1"
port = {port}
security = "none"
sender = "Alerts <alerts@example.com>"

[delivery]
first_backoff = 0.05
max_backoff = 0.2
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `headrace notify` on the data folder `data`, and leaves nothing behind."""
    started: list[subprocess.Popen[str]] = []

    def start(port: int, *options: str) -> "subprocess.Popen[str]":
        config = tmp_path / "headrace.toml"
        config.write_text(SETTINGS.format(port=port))
        command = [sys.executable, "-m", "headrace.cli.main", "notify", "--config", str(config)]
        command += ["--data", str(tmp_path / "data"), *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def now(name: str, user: str = "ann") -> Notification:
    """A notification that was decided just now."""
    return notification(name, user, decidedAt=SystemClock().now_ms())


async def fill(folder: Path, *notifications: Notification) -> None:
    log = EmbeddedLog(folder)
    await make_topics(log, 4)
    await put(log, *notifications)
    await log.close()


async def statuses(folder: Path) -> dict[str, str]:
    log = EmbeddedLog(folder)
    await log.topics()
    found = {key: state["status"] for key, state in (await states(log)).items()}
    await log.close()
    return found


async def wait_status(folder: Path, wanted: dict[str, str], process: "subprocess.Popen[str]") -> None:
    """Wait until the delivery log says so."""
    async with asyncio.timeout(PATIENCE):
        while wanted.items() - (await statuses(folder)).items():
            assert process.poll() is None, process.stderr and process.stderr.read()
            await asyncio.sleep(0.05)


async def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Ctrl-C; what it said."""
    process.send_signal(signal.SIGINT)
    return await asyncio.to_thread(process.communicate, timeout=PATIENCE)


async def test_it_sends_until_ctrl_c_and_says_what_it_did(tmp_path: Path, start: Start) -> None:
    """Mails reach the server; a refused one is dead; the report counts both."""
    good, refused = now("a1", "ann"), now("a2", "bob")
    await fill(tmp_path / "data", good, refused)
    async with Mailbox().running() as mailbox:
        mailbox.refuse["DATA"] = ["554 5.6.0 no"]
        process = start(mailbox.port, "--json")
        async with asyncio.timeout(PATIENCE):
            while sorted((await statuses(tmp_path / "data")).values()) != ["dead", "sent"]:
                assert process.poll() is None, process.stderr and process.stderr.read()
                await asyncio.sleep(0.05)
        out, err = await ended(process)

    assert process.returncode == 0, err
    found = json.loads(out)["notify"]
    assert (found["taken"], found["sent"], found["dead"], found["waiting"]) == (2, 1, 1, 0)
    assert len(mailbox.mails) == 1


async def test_a_second_one_stands_by_and_takes_over(tmp_path: Path, start: Start) -> None:
    """Two never send from one folder; when the first is killed the other goes on."""
    await fill(tmp_path / "data", now("a1"))
    async with Mailbox().running() as mailbox:
        first = start(mailbox.port)
        await wait_status(tmp_path / "data", {now("a1").notificationId: "sent"}, first)
        second = start(mailbox.port)
        assert second.stderr is not None
        lines = [await asyncio.to_thread(second.stderr.readline) for _ in range(2)]
        first.kill()
        await asyncio.to_thread(first.wait, PATIENCE)
        await fill(tmp_path / "data", now("a2"))
        await wait_status(tmp_path / "data", {now("a2").notificationId: "sent"}, second)

    assert f"notify stands by: process {first.pid} delivers" in lines[1]
    assert len(mailbox.mails) == 2


async def deliver(folder: Path, receiver: Receiver, *notifications: Notification) -> None:
    """Put these into the outbox, and deliver from it until nothing waits."""
    await fill(folder, *notifications)
    log = EmbeddedLog(folder)
    await log.topics()
    async with delivering(deliverer(log, receiver, clock=SystemClock())) as delivery:
        await settle(delivery)
    await log.close()


def test_dead_ones_are_listed_shown_and_sent_again(tmp_path: Path, headrace: Headrace) -> None:
    """`list`, `show` and `retry` of a message that was refused; its key is the same and attempts are counted on."""
    data, told = tmp_path / "data", now("a1")

    def refuse(message: Message) -> None:
        raise Refused("554 5.6.0 no")

    receiver = Receiver(answer=refuse)
    asyncio.run(deliver(data, receiver, told))
    listing = headrace("notifications", "list", "--status", "dead", "--json", "--data", data).stdout
    listed = headrace("notifications", "list", "--user", "ann", "--data", data).stdout.decode()
    nothing = headrace("notifications", "list", "--channel", "sms", "--json", "--data", data).stdout
    shown = headrace("notifications", "show", told.notificationId[:8], "--data", data).stdout.decode()
    letters = headrace("dlq", "list", "--topic", "notifications.dlq", "--json", "--data", data).stdout
    letter = headrace("dlq", "show", json.loads(letters)["id"], "--topic", "notifications.dlq", "--data", data).stdout
    headrace("notifications", "retry", told.notificationId[:8], "--data", data)
    receiver.answer = None
    asyncio.run(deliver(data, receiver))
    again = headrace("notifications", "retry", told.notificationId, "--data", data, code=2)
    after = headrace("notifications", "show", told.notificationId, "--json", "--data", data).stdout

    (row,) = map(json.loads, listing.splitlines())
    assert (row["alertId"], row["status"], row["attempts"]) == ("a1", "dead", 1)
    assert "554 5.6.0 no" in listed
    assert nothing == b""
    assert "dead (1)" in shown
    wanted = {"agent": "delivery", "device": "user:ann", "topic": "notifications.outbox", "reason": "554 5.6.0 no"}
    assert wanted.items() <= json.loads(letters).items()
    assert told.notificationId.encode() in letter
    assert [(each.notification.notificationId, each.attempt) for each in receiver.got] == [(told.notificationId, 2)]
    assert "only what is dead can be sent again" in again.stderr
    assert [each["status"] for each in orjson.loads(after)["events"]] == ["sending", "dead", "sending", "sent"]


def test_a_bounce_disables_an_address(tmp_path: Path, headrace: Headrace) -> None:
    """`headrace notify bounce FILE`, and `headrace notifications contacts` afterwards."""
    data, told = tmp_path / "data", now("a1")
    asyncio.run(deliver(data, Receiver(), told))
    (tmp_path / "bounce.eml").write_bytes(report(told=told.notificationId))

    done = headrace("notify", "bounce", tmp_path / "bounce.eml", "--data", data)
    again = headrace("notify", "bounce", tmp_path / "bounce.eml", "--data", data, "--json")

    assert "a…@example.org is disabled".encode() in done.stdout
    assert json.loads(again.stdout) == {"reports": 1, "changed": 0}
    (contact,) = headrace("notifications", "contacts", "--json", "--data", data).stdout.splitlines()
    assert (json.loads(contact)["contact"], json.loads(contact)["by"]) == ("a…@example.org", "bounce")


def test_a_webhook_is_shown_without_its_secret(tmp_path: Path, headrace: Headrace) -> None:
    """Neither the list nor one row have the path of its address, also where the receiver has said it."""
    data, url = tmp_path / "data", "https://hooks.example.com/services/T0/s3cret"
    told = now("a1").model_copy(update={"recipient": f"webhook:{url}", "channel": "webhook", "contacts": (url,)})
    there = ("--data", data)

    def refuse(message: Message) -> None:
        raise Refused(f"no such hook {url}, ask ada@example.com")

    with structlog.testing.capture_logs() as logs:
        asyncio.run(deliver(data, Receiver("webhook", refuse), told.model_copy(update={"userId": None})))

    (line,) = headrace("notifications", "list", "--json", *there).stdout.splitlines()
    table = headrace("notifications", "list", "--user", "webhook:https://hooks.example.com/…", *there).stdout
    one = headrace("notifications", "show", told.notificationId, *there).stdout
    whole = headrace("notifications", "show", told.notificationId, "--json", *there).stdout

    assert json.loads(line)["recipient"] == "webhook:https://hooks.example.com/…"
    for said in (line, table, one, whole):
        assert b"hooks.example.com" in said
        assert b"s3cret" not in said
        assert b"ada@" not in said
    (dead,) = (each for each in logs if each["event"] == "notification_dead")
    assert dead["recipient"] == "webhook:https://hooks.example.com/…"
    assert "s3cret" not in str(logs)
    assert "ada@" not in str(logs)


async def test_a_server_that_is_down_is_named_without_its_secret(tmp_path: Path) -> None:
    """In the status of the command, in what `/ready` says, and in the log."""
    url = "https://hooks.example.com/services/T0/s3cret"
    changed = {"recipient": f"webhook:{url}", "channel": "webhook", "contacts": (url,), "userId": None}

    def away(message: Message) -> None:
        raise SendLater(f"{url} cannot be reached")

    log = EmbeddedLog(tmp_path)
    await make_topics(log)
    await put(log, *(now(f"a{number}").model_copy(update=changed) for number in range(6)))
    delivery = deliverer(log, Receiver("webhook", away), clock=SystemClock(), first_backoff=0.01, max_backoff=0.01)
    with structlog.testing.capture_logs() as logs:
        async with delivering(delivery), asyncio.timeout(PATIENCE):
            while not (down := delivery.statistics().down):
                await asyncio.sleep(0.01)
    await log.close()

    assert down == {"webhook https://hooks.example.com/…": "https://hooks.example.com/… cannot be reached"}
    assert any(each["event"] == "channel_down" for each in logs)
    assert "s3cret" not in str(logs)


def test_mistakes_are_said_before_anything_runs(tmp_path: Path, headrace: Headrace) -> None:
    """No log, a wrong setting, an unknown id: exit code 2 and what to do."""
    (tmp_path / "wrong.toml").write_text("[delivery]\ngive_up_after = 0\n")
    data = tmp_path / "data"
    asyncio.run(fill(data))

    assert "--data" in headrace("notify", "--data", tmp_path / "none", code=2).stderr
    assert "delivery.give_up_after" in headrace("notify", "--config", tmp_path / "wrong.toml", code=2).stderr
    assert "notifications list shows" in headrace("notifications", "show", "x", "--data", data, code=2).stderr

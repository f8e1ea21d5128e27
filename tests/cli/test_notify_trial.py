"""`headrace notify test`, with real receivers on loopback."""

import asyncio
import email
import email.policy
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest

from headrace.connectors.notifications.channel import SendLater
from headrace.connectors.notifications.content import Renderer
from headrace.connectors.notifications.trial import Target, try_target
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.dead_contact import DeadContact, dead_contact_key
from tests.cli.conftest import Headrace, in_process
from tests.connectors.notifications.outbox import Receiver, make_topics
from tests.connectors.notifications.receivers import HttpReceiver, Mailbox

USERS = """
[[user]]
id = "ada"
name = "Ada"
email = "ada@example.com"
phone = "+491701234567"
language = "de"
[[user]]
id = "bob"
phone = "+491701234568"
"""
SETTINGS = """
[channels]
dashboard_url = "https://iot.example.com/alerts/{{alert}}"
[channels.email]
host = "127.0.0.1"
port = {mail}
security = "none"
sender = "Alerts <alerts@example.com>"
[channels.webhook]
private_networks = ["127.0.0.0/8"]
[channels.integrations.tickets]
kind = "webhook"
url = "{http}/hooks/s3cret"
[channels.integrations.ops]
kind = "pagerduty"
routing_key = "0123456789abcdef0123456789abcdef"
url = "{http}"
"""


@contextmanager
def listening(receiver: AbstractAsyncContextManager[object]) -> Iterator[None]:
    """A receiver with a loop of its own, beside the command's."""
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with receiver:
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    found = Mailbox()
    with listening(found.running()):
        yield found


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    found = HttpReceiver(202)
    with listening(found.running()):
        yield found


@pytest.fixture
def options(tmp_path: Path, mailbox: Mailbox, receiver: HttpReceiver) -> list[object]:
    """Of every command: a data folder with two users, and channels that lead to the receivers."""
    (tmp_path / "users.toml").write_text(USERS)
    (tmp_path / "headrace.toml").write_text(SETTINGS.format(mail=mailbox.port, http=receiver.url))
    in_process("users", "import", tmp_path / "users.toml", "--data", tmp_path / "data")
    return ["--data", tmp_path / "data", "--config", tmp_path / "headrace.toml"]


def test_a_user_gets_a_mail_that_says_what_it_is(headrace: Headrace, options: list[object], mailbox: Mailbox) -> None:
    """In their language, without links that lead nowhere; what is not configured is passed over."""
    done = headrace("notify", "test", "ada", *options)

    (sent,) = mailbox.mails
    assert isinstance(sent.content, bytes)
    mail = email.message_from_bytes(sent.content, policy=email.policy.default)
    assert mail["Subject"] == "[INFO] Testnachricht, es ist nichts passiert: headrace"
    assert b"iot.example.com" not in sent.content
    assert sent.rcpt_tos == ["ada@example.com"]
    assert done.stdout.decode() == "user:ada email a…@example.com: taken (OK queued as 1)\n"


def test_nothing_of_it_is_in_the_log(headrace: Headrace, options: list[object], tmp_path: Path) -> None:
    """It is no notification: nobody decided it, and nothing repeats it."""
    headrace("notify", "test", "ada", *options)

    assert not list((tmp_path / "data").rglob("*notifications*"))


def test_an_integration_hears_of_begin_and_end(
    headrace: Headrace, options: list[object], receiver: HttpReceiver
) -> None:
    """An incident in PagerDuty is closed again, under its key; no user is looked up for it."""
    done = headrace("notify", "test", "integration:ops", *options[2:], "--json")

    first, second = (json.loads(each.body) for each in receiver.received)
    assert [first["event_action"], second["event_action"]] == ["trigger", "resolve"]
    assert first["dedup_key"] == second["dedup_key"]
    assert "0123456789abcdef" not in done.stdout.decode() + done.stderr
    assert json.loads(done.stdout)["tried"][0] == {
        "to": "integration:ops", "channel": "pagerduty", "contact": "ops", "status": "sent", "providerId": None,
        "error": None,
    }  # fmt: skip


def test_contacts_are_tried_without_a_user(
    headrace: Headrace, options: list[object], receiver: HttpReceiver, mailbox: Mailbox
) -> None:
    """Also where there is no log; addresses of webhooks are shown without what is secret in them."""
    secret = f"{receiver.url}/hooks/s3cret"
    done = headrace("notify", "test", "email:eve@example.com", f"webhook:{secret}", *options[2:])

    assert mailbox.mails[0].rcpt_tos == ["eve@example.com"]
    assert receiver.received[0].path == "/hooks/s3cret"
    assert "s3cret" not in done.stdout.decode()
    assert "email e…@example.com: taken" in done.stdout.decode()


def test_what_a_receiver_refuses_is_said(headrace: Headrace, options: list[object], mailbox: Mailbox) -> None:
    """With its words, and with exit code 1; contacts in them are masked."""
    mailbox.refuse["RCPT"] = ["550 5.1.1 <ada@example.com>: no such user"]

    done = headrace("notify", "test", "ada", "--channel", "email", *options, "--json", code=1)

    (tried,) = json.loads(done.stdout)["tried"]
    assert tried["status"] == "gone"
    assert "no such user" in tried["error"]
    assert "ada@" not in done.stdout.decode()


def test_what_keeps_alerts_from_somebody_is_said(headrace: Headrace, options: list[object], tmp_path: Path) -> None:
    """Not active, switched off, disabled: the test arrives all the same."""
    headrace("users", "set", "ada", "active=false", "notifications.email=false", *options[:2])
    asyncio.run(disable(tmp_path / "data", "ada@example.com"))

    said = headrace("notify", "test", "ada", *options).stderr

    assert "ada is not active" in said
    assert "ada has switched email off" in said
    assert "a…@example.com is disabled" in said


async def disable(folder: Path, address: str) -> None:
    log = EmbeddedLog(folder)
    await make_topics(log)
    contact = DeadContact(channel="email", contact=address, recipient="user:ada", by="bounce", reason="550", at=1)
    key = dead_contact_key("email", address)
    records = Records([key], [contact.model_dump_json().encode()], [1])
    await log.commit(Transaction([Append(TopicPartition(topics.DEAD_CONTACTS, 0), records)]))
    await log.close()


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (["adda"], "there is no user 'adda'; did you mean 'ada'?"),
        (["bob"], "bob has no contact for email: set one with headrace users set bob email=…"),
        (["ada", "--channel", "sms"], "[channels.sms] enabled is missing: nothing is sent by sms"),
        (["integration:opps"], "there is no [channels.integrations.opps]; did you mean 'ops'?"),
        (["sms:+491701234567"], "[channels.sms] enabled is missing"),
        (["email:"], "email:: write the contact behind the colon"),
    ],
)
def test_what_cannot_be_tried_says_what_to_do(
    headrace: Headrace, options: list[object], mailbox: Mailbox, who: list[str], said: str
) -> None:
    """Before anything is sent, to anybody."""
    assert said in headrace("notify", "test", "email:eve@example.com", *who, *options, code=2).stderr
    assert mailbox.mails == []


def test_without_channels_it_says_what_to_configure(headrace: Headrace, options: list[object]) -> None:
    """Not that the user lacks something."""
    said = headrace("notify", "test", "ada", *options[:2], code=2).stderr

    assert "no channel reaches people: set one of [channels.email] host," in said


async def test_a_server_that_is_away_is_told_as_later() -> None:
    """Once: a test is not repeated."""
    calls = 0

    def away(message: object) -> None:
        nonlocal calls
        calls += 1
        raise SendLater("mx.example.com cannot be reached")

    target = Target("email:ada@example.com", "email", "ada@example.com")
    tried = await try_target(target, Receiver(answer=away), Renderer(), "test-1", SystemClock().now_ms())

    assert (tried.status, tried.error, calls) == ("later", "mx.example.com cannot be reached", 1)

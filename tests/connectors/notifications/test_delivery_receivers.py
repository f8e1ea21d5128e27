"""Delivery to real servers that fail, hang, send elsewhere and are away: each message comes in the end, once."""

import asyncio
import email
import email.policy
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from headrace.connectors.notifications.email import EmailChannel
from headrace.connectors.notifications.email_settings import EmailSettings
from headrace.connectors.notifications.settings import WebhookSettings
from headrace.connectors.notifications.webhook import WebhookChannel
from headrace.engine.clock import SteppedClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from headrace.schemas.notification import Notification
from tests.connectors.notifications.outbox import (
    NOW,
    all_records,
    deliverer,
    delivering,
    make_topics,
    notification,
    pending,
    put,
    settle,
    states,
    told,
)
from tests.connectors.notifications.receivers import HttpReceiver, Mailbox, Received, hang
from tests.loop_time import skip

HALF_AN_HOUR = 30 * 60_000
#: To whom, and what the mail server says to which command of the first attempt.
REFUSALS = (
    ("ann", "RCPT", "450 4.2.0 greylisted"),
    ("bob", "RCPT", "550 5.1.1 no such user"),
    ("cid", "DATA", "554 5.7.1 spam"),
    ("bob", "RCPT", "250 OK"),
)


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    found = EmbeddedLog(MEMORY)
    await make_topics(found)
    yield found
    await found.close()


def hooks(clock: SteppedClock, **settings: object) -> WebhookChannel:
    """Webhooks that may go to this machine."""
    return WebhookChannel(WebhookSettings.model_validate({"private_networks": ["127.0.0.0/8"], **settings}), {}, clock)


def mails(clock: SteppedClock, mailbox: Mailbox) -> EmailChannel:
    """Mail through `mailbox`."""
    settings = EmailSettings(host="127.0.0.1", port=mailbox.port, security="none", sender="alerts@example.com")
    return EmailChannel(settings, clock)


def hooked(name: str, url: str) -> Notification:
    """To a webhook."""
    return notification(name, "hook", "webhook", "alert", url)


def message_ids(mailbox: Mailbox) -> Counter[str]:
    """How often each mail is there."""
    found: Counter[str] = Counter()
    for envelope in mailbox.mails:
        assert isinstance(envelope.content, bytes)
        found[str(email.message_from_bytes(envelope.content, policy=email.policy.default)["Message-ID"])] += 1
    return found


async def test_a_server_that_is_down_for_half_an_hour_gets_every_request_once(log: EmbeddedLog) -> None:
    """503 until it is back; then all that waited, in the order of each alert, and nothing is left."""
    clock = SteppedClock(NOW)
    taken: list[str] = []

    async def answer(received: Received) -> web.StreamResponse:
        if clock.now_ms() < NOW + HALF_AN_HOUR:
            return web.Response(status=503)
        taken.append(received.headers["webhook-id"])
        return web.Response(status=204)

    channel = hooks(clock)
    async with HttpReceiver(answer).running() as receiver:
        wanted = [hooked(f"a{number}", f"{receiver.url}/{number % 3}") for number in range(60)]
        await put(log, *wanted)
        async with delivering(deliverer(log, channel, clock=clock)) as delivery:
            await settle(delivery)
    await channel.close()

    assert Counter(taken) == Counter(each.notificationId for each in wanted)
    assert {state["status"] for state in (await states(log)).values()} == {"delivered"}
    assert await pending(log) == []


async def test_a_mail_server_that_is_down_for_half_an_hour_gets_every_mail_once(log: EmbeddedLog) -> None:
    """`421` until it is back; the mails say how late they are."""
    clock = SteppedClock(NOW)
    mailbox = Mailbox()
    refusal = mailbox._refusal
    mailbox._refusal = lambda command: (  # type: ignore[method-assign]
        "451 4.3.0 try again later" if command == "MAIL" and clock.now_ms() < NOW + HALF_AN_HOUR else refusal(command)
    )
    async with mailbox.running():
        channel = mails(clock, mailbox)
        wanted = [notification(f"a{number}", f"u{number % 5}") for number in range(60)]
        await put(log, *wanted)
        async with delivering(deliverer(log, channel, clock=clock)) as delivery:
            await settle(delivery)
        await channel.close()

    assert message_ids(mailbox) == {f"<{each.notificationId}@example.com>": 1 for each in wanted}
    assert all(b"min late]" in (envelope.original_content or b"") for envelope in mailbox.mails)


async def test_a_server_that_fails_then_hangs_takes_it_in_the_end(log: EmbeddedLog) -> None:
    """Every attempt has the same key and body and is in the log; only the last was taken."""
    clock = SteppedClock(NOW)
    channel = hooks(clock, timeout=20)

    async def hang_too_long(received: Received) -> web.StreamResponse:
        skip(20)
        return await hang(received)

    async with HttpReceiver(500, hang_too_long, (429, {"Retry-After": "30"}), 204).running() as receiver:
        await put(log, hooked("a1", receiver.url))
        async with delivering(deliverer(log, channel, clock=clock)) as delivery:
            await settle(delivery)
    await channel.close()

    assert len({(each.headers["webhook-id"], each.body) for each in receiver.received}) == 1
    tries = [("sending", number) for number in (1, 2, 3, 4)]
    ends = [("failed", 1), ("failed", 2), ("failed", 3), ("delivered", 4)]
    assert await told(log) == [each for pair in zip(tries, ends, strict=True) for each in pair]
    assert clock.now_ms() >= NOW + 30_000


async def test_a_redirect_to_a_private_address_reaches_nobody(log: EmbeddedLog) -> None:
    """It is a dead letter that says so, what the address names hears nothing, and others go on."""
    clock = SteppedClock(NOW)
    channel = hooks(clock)
    async with HttpReceiver(204).running() as inside:
        away = (302, {"Location": inside.url.replace("127.0.0.1", "localhost")})
        async with HttpReceiver(away).running() as outside, HttpReceiver(204).running() as other:
            await put(log, hooked("a1", outside.url), hooked("a2", other.url))
            async with delivering(deliverer(log, channel, clock=clock)) as delivery:
                await settle(delivery)
    await channel.close()

    assert inside.received == []
    assert len(other.received) == 1
    (letter,) = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert b"redirect" in letter.headers["dlq-reason"]


async def test_mails_that_are_refused_for_now_come_and_others_are_dead(log: EmbeddedLog) -> None:
    """4xx is tried again, 5xx is a dead letter in the server's words, and an address that is no more is disabled."""
    clock = SteppedClock(NOW)
    async with Mailbox().running() as mailbox:
        channel = mails(clock, mailbox)
        delivery = deliverer(log, channel, clock=clock)
        async with delivering(delivery):
            for number, (user, command, answer) in enumerate(REFUSALS):
                mailbox.refuse[command] = [answer]
                await put(log, notification(f"a{number}", user))
                async with asyncio.timeout(60):
                    while delivery.statistics().taken <= number or delivery.statistics().waiting:
                        await asyncio.sleep(0.001)
        await channel.close()

    found = {state["alertId"]: state for state in (await states(log)).values()}
    assert {name: state["status"] for name, state in found.items()} == {
        "a0": "sent", "a1": "dead", "a2": "dead", "a3": "dropped",
    }  # fmt: skip
    assert found["a0"]["attempts"] == 2
    assert found["a1"]["error"].endswith("550 5.1.1 no such user")
    assert found["a2"]["error"].endswith("554 5.7.1 spam")
    assert found["a3"]["reasons"][-1]["code"] == "no-contact"
    assert [each.rcpt_tos for each in mailbox.mails] == [["ann@example.org"]]

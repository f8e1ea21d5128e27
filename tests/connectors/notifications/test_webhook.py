"""Webhooks: what receivers get, how they know it, and where nothing is ever sent."""

import base64
import hashlib
import hmac
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from headrace.connectors.notifications.channel import ContactGone, Refused, SendLater
from headrace.connectors.notifications.http_client import LONGEST_WAIT, MOST_BYTES
from headrace.connectors.notifications.integration_settings import WebhookIntegration
from headrace.connectors.notifications.settings import WebhookSettings
from headrace.connectors.notifications.webhook import WebhookChannel
from headrace.connectors.notifications.webhook_event import WebhookEvent
from headrace.engine.clock import SteppedClock
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import HttpReceiver, Received, hang

NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
LOOPBACK = ("127.0.0.0/8", "::1/128")
NOW = 1_763_201_103_000


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver().running() as receiver:
        yield receiver


def opened(resolver: AbstractResolver | None = None, **changed: Any) -> WebhookChannel:
    """A channel that may send to loopback; close it."""
    integrations = changed.pop("integrations", {})
    settings = WebhookSettings(**{"private_networks": LOOPBACK, **changed})
    return WebhookChannel(settings, integrations, SteppedClock(NOW), resolver)


class Names(AbstractResolver):
    """A name server that answers each question with the next of its answers; the last one for good."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        address = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        found: ResolveResult = {
            "hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": 0
        }  # fmt: skip
        return [found]

    async def close(self) -> None:
        pass


async def test_event_arrives_whole(receiver: HttpReceiver) -> None:
    """A CloudEvent with the alerts and their words, under the notification's id."""
    channel = opened()
    sent = message(f"{receiver.url}/hook?key=1")

    done = await channel.send(sent)
    await channel.close()

    (received,) = receiver.received
    assert (received.method, received.path) == ("POST", "/hook?key=1")
    assert received.headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"
    assert received.headers["webhook-id"] == sent.notification.notificationId
    event = WebhookEvent.model_validate_json(received.body)
    assert event.type == "io.headrace.notification.alert"
    assert event.id == sent.notification.notificationId
    assert event.data.subjects == sent.notification.subjects
    assert event.data.title == "[WARNING] High temperature at Office 301"
    assert b"ada@example.com" not in received.body
    assert done.delivered


async def test_signature_is_that_of_standard_webhooks(receiver: HttpReceiver) -> None:
    """HMAC-SHA256 of id, timestamp and body; with two secrets two, so that they can be changed."""
    channel = opened(secret=NEW, old_secret=OLD)

    await channel.send(message(receiver.url))
    await channel.close()

    (received,) = receiver.received
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    expected = [base64.b64encode(hmac.digest(key * 32, signed, hashlib.sha256)).decode() for key in (b"n", b"o")]
    assert received.headers["webhook-timestamp"] == str(NOW // 1000)
    assert received.headers["webhook-signature"] == f"v1,{expected[0]} v1,{expected[1]}"


async def test_snippet_of_the_guide_knows_what_is_ours(receiver: HttpReceiver) -> None:
    """With the new secret and the old one; not another body, id, secret, or what is older than five minutes."""
    page = (Path(__file__).parents[3] / "docs" / "guides" / "notification-channels.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(source, "notification-channels.md", "exec"), scope)
    now = [NOW / 1000]
    scope["time"] = SimpleNamespace(time=lambda: now[0])
    is_ours = scope["is_ours"]
    channel = opened(secret=NEW, old_secret=OLD)

    await channel.send(message(receiver.url))
    await channel.close()

    (received,) = receiver.received
    headers = {name.lower(): value for name, value in received.headers.items()}
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert is_ours(NEW, headers, received.body)
    assert is_ours(OLD, headers, received.body)
    assert not is_ours(other, headers, received.body)
    assert not is_ours(NEW, headers, received.body + b" ")
    assert not is_ours(NEW, {**headers, "webhook-id": "another"}, received.body)
    now[0] += 301
    assert not is_ours(NEW, headers, received.body)


async def test_signature_of_the_standards_own_example() -> None:
    """As its reference libraries have it."""
    from headrace.connectors.notifications.webhook import signature
    from headrace.connectors.notifications.webhook_key import webhook_key

    key = webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    made = signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')

    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_integration_has_its_own_address_and_secret(receiver: HttpReceiver) -> None:
    """What its section says, and the shared secret only if it has none."""
    mine = WebhookIntegration(kind="webhook", url=f"{receiver.url}/mine", secret=NEW)
    channel = opened(secret=OLD, integrations={"mine": mine})

    await channel.send(message("mine"))
    with pytest.raises(Refused, match="no integration 'other'"):
        await channel.send(message("other"))
    await channel.close()

    (received,) = receiver.received
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    assert received.path == "/mine"
    assert received.headers["webhook-signature"] == (
        "v1," + base64.b64encode(hmac.digest(b"n" * 32, signed, hashlib.sha256)).decode()
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (400, Refused),
        (401, Refused),
        (404, SendLater),
        (408, SendLater),
        (410, ContactGone),
        (429, SendLater),
        (500, SendLater),
        (503, SendLater),
        (302, Refused),
    ],
)
async def test_answer_says_what_comes_next(answer: int, error: type[Exception]) -> None:
    """Only what can pass is tried again; 410 means never again; one request each."""
    async with HttpReceiver(answer).running() as receiver:
        channel = opened()

        with pytest.raises(error, match=str(answer)) as raised:
            await channel.send(message(receiver.url))
        await channel.close()

    assert type(raised.value) is error
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("asked", "after"),
    [
        ("120", 120.0),
        ("Sat, 15 Nov 2025 10:06:03 GMT", 1260.0 - 1200.0),
        ("999999999999999999999", LONGEST_WAIT),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("Sat, 15 Nov 2025 10:00:00 GMT", 1.0),
        ("-5", 1.0),
        ("soon", 1.0),
        ("", 1.0),
    ],
)
async def test_receiver_may_say_when(asked: str, after: float) -> None:
    """`Retry-After` in seconds or as a date, an hour at most; what is neither does not count."""
    async with HttpReceiver((503, {"Retry-After": asked})).running() as receiver:
        channel = opened()

        with pytest.raises(SendLater) as raised:
            await channel.send(message(receiver.url))
        await channel.close()

    assert raised.value.after == after


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://127.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://user@127.0.0.1:{port}/",
        "http://127.0.0.1.:{port}/",
    ],
)
async def test_nothing_is_sent_to_this_machine(receiver: HttpReceiver, address: str) -> None:
    """However its address is written."""
    channel = opened(private_networks=())

    with pytest.raises((Refused, SendLater)):
        await channel.send(message(address.format(port=receiver.url.rpartition(":")[2])))
    await channel.close()

    assert receiver.received == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1", "fe80::1", "::1"]
)
async def test_name_that_means_a_private_address_is_refused(address: str) -> None:
    """The error says what to change if that is meant; no socket is made."""
    channel = opened(Names(address), private_networks=())

    with pytest.raises(Refused, match=r"not public.*private_networks"):
        await channel.send(message("https://hooks.example.com/x"))
    await channel.close()


async def test_name_that_changes_its_meaning_is_looked_at_again() -> None:
    """A name server that answers with a permitted address first and with a private one then gets one request."""
    async with HttpReceiver((204, {"Connection": "close"})).running() as receiver:
        channel = opened(Names("127.0.0.1", "10.0.0.1"))
        address = f"http://hooks.example.com:{receiver.url.rpartition(':')[2]}/"
        await channel.send(message(address))
        # As when its time to live is over.
        channel._client._session.connector.clear_dns_cache()  # type: ignore[union-attr]
        with pytest.raises(Refused, match="not public"):
            await channel.send(message(address))
        await channel.close()

    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(receiver: HttpReceiver, status: int) -> None:
    """Neither to a private address nor anywhere else: who may name the address has named another one."""
    async with HttpReceiver((status, {"Location": f"{receiver.url}/secret"})).running() as first:
        channel = opened()

        with pytest.raises(Refused, match="redirect"):
            await channel.send(message(first.url))
        await channel.close()

    assert receiver.received == []


async def test_receiver_that_hangs_is_for_later() -> None:
    """It costs the timeout, and no more."""
    async with HttpReceiver(hang).running() as receiver:
        channel = opened(timeout=0.05)

        with pytest.raises(SendLater, match=r"did not answer within 0\.05 s"):
            await channel.send(message(receiver.url))
        await channel.close()


async def test_endless_answer_is_read_to_a_limit() -> None:
    """Of an answer without an end its beginning is enough."""
    pieces = 0

    async def endless(received: Received) -> web.StreamResponse:
        nonlocal pieces
        response = web.StreamResponse(status=400)
        await response.prepare(request_of[0])
        while True:
            await response.write(b"x" * 16_384)
            pieces += 1

    request_of: list[web.Request] = []
    receiver = HttpReceiver(endless)
    plain = receiver._answer

    async def keep(request: web.Request) -> web.StreamResponse:
        request_of.append(request)
        return await plain(request)

    receiver._answer = keep  # type: ignore[method-assign]
    async with receiver.running():
        channel = opened()
        with pytest.raises(Refused, match="xxx") as raised:
            await channel.send(message(receiver.url))
        await channel.close()

    assert len(str(raised.value)) < 500
    assert pieces * 16_384 < MOST_BYTES * 1000


async def test_receiver_that_is_away_is_for_later(receiver: HttpReceiver) -> None:
    """The text names its host, and nothing behind it: that may be a secret."""
    async with HttpReceiver().running() as gone:
        pass
    channel = opened()

    with pytest.raises(SendLater, match="cannot be reached") as raised:
        await channel.send(message(f"{gone.url}/secret-path"))
    await channel.close()

    assert "secret-path" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    ["https://", "http://[", "http://host:99999/", "https://exa mple.com", "ftp://example.com", "http://" + "a" * 300],
)
async def test_address_that_is_none_is_refused(address: str) -> None:
    """Nothing fails but the message."""
    channel = opened()

    with pytest.raises((Refused, SendLater)):
        await channel.send(message(address))
    await channel.close()


async def test_proxy_of_the_environment_is_not_used(receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to whatever it is told."""
    async with HttpReceiver().running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        channel = opened()
        await channel.send(message(receiver.url))
        await channel.close()

    assert len(receiver.received) == 1
    assert proxy.received == []


async def test_bodies_of_a_repeat_are_the_same(receiver: HttpReceiver) -> None:
    """The same id and bytes; only when it was signed differs."""
    channel = opened(secret=NEW)

    await channel.send(message(receiver.url))
    channel._clock.advance(60_000)  # type: ignore[attr-defined]
    await channel.send(message(receiver.url, attempt=2))
    await channel.close()

    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert json.loads(first.body)["specversion"] == "1.0"

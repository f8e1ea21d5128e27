"""Every notification channel keeps the contract, over a real receiver on loopback."""

import asyncio
import email
import email.policy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiobotocore.session import get_session
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from headrace.connectors.notifications.alertmanager import AlertmanagerChannel
from headrace.connectors.notifications.apprise_channel import AppriseChannel
from headrace.connectors.notifications.channel import Channel
from headrace.connectors.notifications.email import EmailChannel
from headrace.connectors.notifications.email_settings import EmailSettings
from headrace.connectors.notifications.integration_settings import (
    AlertmanagerIntegration,
    AppriseIntegration,
    PagerDutyIntegration,
)
from headrace.connectors.notifications.pagerduty import PagerDutyChannel
from headrace.connectors.notifications.push import PushChannel
from headrace.connectors.notifications.push_settings import PushSettings
from headrace.connectors.notifications.settings import WebhookSettings
from headrace.connectors.notifications.sms import open_sms
from headrace.connectors.notifications.sms_settings import SmsSettings
from headrace.connectors.notifications.webhook import WebhookChannel
from headrace.engine.clock import SteppedClock
from tests.connectors.notifications.receivers import HttpReceiver, Mailbox, Received
from tests.contract.channel_contract import SECRET, ChannelContract, ChannelWorld, Mood

NOT_FOUND = {"error": {"code": 404, "details": [{"errorCode": "UNREGISTERED"}]}}
OPTED_OUT = "<ErrorResponse><Error><Code>InvalidParameter</Code><Message>opted out</Message></Error></ErrorResponse>"
SNS_TOOK = "<PublishResponse><PublishResult><MessageId>m1</MessageId></PublishResult></PublishResponse>"
#: Of the service account, made once: it takes a tenth of a second.
KEY = generate_private_key(65537, 2048)
_session = get_session()  # keeps what it has read of AWS's interfaces


class HttpWorld(ChannelWorld):
    """A channel over HTTP.

    Args:
        make: the channel for a receiver's address.
        contact: whom it reaches; `{url}` is the receiver's address.
        key: of a request.
        gone: the answer for a contact that is no more; None: there is none.
        took: the answer for a message that is taken.
        ignored: paths that are no messages, with their answers.
    """

    def __init__(
        self,
        make: Callable[[str], Channel],
        contact: str,
        key: Callable[[Received], str],
        *,
        gone: tuple[int, str] | None = None,
        took: tuple[int, str] = (202, "{}"),
        ignored: dict[str, str] | None = None,
    ) -> None:
        self.knows_gone = gone is not None
        self._make, self._contact, self._key = make, contact, key
        self._answers: dict[Mood, tuple[int, str]] = {"take": took, "busy": (503, "busy"), "gone": gone or (410, "")}
        self._ignored = ignored or {}
        self._mood: Mood = "take"
        self._taken: list[str] = []
        self._arrived, self._go = asyncio.Event(), asyncio.Event()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Start receiver and channel."""
        receiver = await self._stack.enter_async_context(HttpReceiver(self._answer).running())
        self.channel = self._make(receiver.url)
        self.contact = self._contact.format(url=receiver.url)

    async def _answer(self, received: Received) -> web.StreamResponse:
        if received.path in self._ignored:
            return web.Response(text=self._ignored[received.path], content_type="application/json")
        mood = self._mood
        if mood == "hang":
            self._arrived.set()
            await self._go.wait()
            mood = "busy"
        elif mood == "take":
            self._taken.append(self._key(received))
        status, text = self._answers[mood]
        kind = "text/xml" if text.startswith("<") else "application/json"
        return web.Response(status=status, text=text, content_type=kind)

    def set(self, mood: Mood) -> None:
        self._mood = mood
        if mood != "hang":
            self._go.set()

    def taken(self) -> list[str]:
        return self._taken

    async def hanging(self) -> None:
        await self._arrived.wait()

    async def leave(self) -> None:
        await self._stack.aclose()

    async def close(self) -> None:
        """Stop both."""
        self._go.set()
        await self.channel.close()
        await self._stack.aclose()


async def running(world: HttpWorld) -> AsyncIterator[ChannelWorld]:
    """The world for one test."""
    await world.open()
    try:
        yield world
    finally:
        await world.close()


class MailWorld(ChannelWorld, Mailbox):
    """Mail, to aiosmtpd."""

    contact = "ada@example.com"

    def __init__(self) -> None:
        super().__init__()
        self._mood: Mood = "take"
        self._arrived, self._go = asyncio.Event(), asyncio.Event()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Start both."""
        await self._stack.enter_async_context(self.running())
        settings = EmailSettings(host="127.0.0.1", port=self.port, security="none", sender="alerts@example.com")
        self.channel = EmailChannel(settings, SteppedClock())

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if self._mood == "hang":
            self._arrived.set()
            await self._go.wait()
        answers = {"busy": "451 4.3.0 later", "gone": "550 5.1.1 no such user"}
        if self._mood in answers:
            return answers[self._mood]
        return await super().handle_RCPT(server, session, envelope, address, options)

    def set(self, mood: Mood) -> None:
        self._mood = mood
        if mood != "hang":
            self._go.set()

    def taken(self) -> list[str]:
        contents = [each.content for each in self.mails if isinstance(each.content, bytes)]
        parsed = [email.message_from_bytes(each, policy=email.policy.default) for each in contents]
        assert all(each["Bcc"] is None and "\n" not in each["Subject"] for each in parsed)
        return [str(each["Message-ID"]) for each in parsed]

    async def hanging(self) -> None:
        await self._arrived.wait()

    async def leave(self) -> None:
        await self._stack.aclose()

    async def close(self) -> None:
        """Stop both."""
        self._go.set()
        await self.channel.close()
        await self._stack.aclose()


class TestEmail(ChannelContract):
    """Mail."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        world = MailWorld()
        await world.open()
        try:
            yield world
        finally:
            await world.close()


class TestWebhook(ChannelContract):
    """Webhooks of rules."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        settings = WebhookSettings(private_networks=("127.0.0.0/8",), requests=4)
        world = HttpWorld(
            lambda _: WebhookChannel(settings, {}, SteppedClock()),
            f"{{url}}/{SECRET}",
            lambda received: received.headers["webhook-id"],
            gone=(410, ""),
        )
        async for each in running(world):
            yield each


class TestFirebase(ChannelContract):
    """Pushes by Firebase."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        private = KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

        def make(url: str) -> Channel:
            account = {"project_id": "iot", "client_email": "a@b", "token_uri": f"{url}/token"}
            account["private_key"] = private.decode()
            settings = PushSettings(fcm_credentials=json.dumps(account), fcm_url=url, requests=4)
            return PushChannel(settings, SteppedClock())

        world = HttpWorld(
            make,
            "android:token",
            lambda received: json.loads(received.body)["message"]["android"]["notification"]["tag"],
            gone=(404, json.dumps(NOT_FOUND)),
            took=(200, '{"name": "m1"}'),
            ignored={"/token": json.dumps({"access_token": SECRET, "expires_in": 3600})},
        )
        async for each in running(world):
            yield each


class TestNtfy(ChannelContract):
    """Pushes by ntfy; that a topic is gone it does not know, so 410 is what a proxy says."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        world = HttpWorld(
            lambda url: PushChannel(PushSettings(ntfy_url=url, ntfy_token=SECRET, requests=4), SteppedClock()),
            "ntfy:topic",
            lambda received: json.loads(received.body)["click"],
            gone=(410, ""),
            took=(200, '{"id": "n1"}'),
        )
        async for each in running(world):
            yield each


class TestSms(ChannelContract):
    """SMS; SNS knows no key, so the whole text is compared."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        world = HttpWorld(
            lambda _: None,  # type: ignore[arg-type,return-value]
            "+4930123456",
            lambda received: parse_qs(received.body.decode())["Message"][0],
            gone=(400, OPTED_OUT),
            took=(200, SNS_TOOK),
        )
        receiver = await world._stack.enter_async_context(HttpReceiver(world._answer).running())
        settings = SmsSettings(
            enabled=True,
            requests=4,
            endpoint_url=receiver.url,
            region="eu-central-1",
            access_key_id="id",
            secret_access_key=SECRET,
        )
        async with open_sms(settings, _session) as channel:
            world.channel, world.contact = channel, "+4930123456"
            yield world
        await world.close()


class TestPagerDuty(ChannelContract):
    """PagerDuty."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        world = HttpWorld(
            lambda url: PagerDutyChannel(
                {"ops": PagerDutyIntegration(kind="pagerduty", routing_key=SECRET, url=url)}, SteppedClock()
            ),
            "ops",
            lambda received: str(json.loads(received.body)["dedup_key"]),
        )
        async for each in running(world):
            yield each


class TestAlertmanager(ChannelContract):
    """Alertmanager."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        world = HttpWorld(
            lambda url: AlertmanagerChannel(
                {"am": AlertmanagerIntegration(kind="alertmanager", url=url, token=SECRET)}, SteppedClock()
            ),
            "am",
            lambda received: json.dumps(json.loads(received.body)[0]["labels"]),
            took=(200, ""),
        )
        async for each in running(world):
            yield each


class TestApprise(ChannelContract):
    """Apprise, to its JSON service; a repeat is the same text."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ChannelWorld]:
        def make(url: str) -> Channel:
            address = f"{url.replace('http://', 'json://')}/{SECRET}"
            return AppriseChannel({"ops": AppriseIntegration(kind="apprise", url=address)})

        world = HttpWorld(make, "ops", lambda received: str(json.loads(received.body)["message"]), took=(200, "{}"))
        async for each in running(world):
            yield each

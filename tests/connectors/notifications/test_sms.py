"""SMS over Amazon SNS, against moto's server."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiobotocore.session import get_session
from aiohttp import web

from headrace.connectors.notifications.channel import ContactGone, Refused, SendLater
from headrace.connectors.notifications.sms import open_sms
from headrace.connectors.notifications.sms_settings import SmsSettings
from headrace.engine.errors import ConfigError
from tests.connectors.kinesis.aws import Moto
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import Answer, HttpReceiver, Received

_session = get_session()  # keeps what it has read of AWS's interfaces


@pytest.fixture(scope="module")
def sns_url() -> Iterator[str]:
    with Moto() as url:
        yield url


def settings(url: str, **changed: Any) -> SmsSettings:
    """Those of a server on loopback."""
    keys = {"access_key_id": "test", "secret_access_key": "test", "region": "eu-central-1"}
    return SmsSettings(enabled=True, endpoint_url=url, **{**keys, **changed})


def answering(status: int, body: str) -> Answer:
    """An answer as SNS gives it."""

    async def answer(received: Received) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type="text/xml")

    return answer


def refusing(code: str, text: str, status: int) -> Answer:
    """An answer as SNS gives it when it refuses."""
    return answering(
        status, f"<ErrorResponse><Error><Code>{code}</Code><Message>{text}</Message></Error></ErrorResponse>"
    )


async def test_sns_takes_it(sns_url: str) -> None:
    """And says what it calls it."""
    async with open_sms(settings(sns_url, sender_id="Headrace"), _session) as channel:
        done = await channel.send(message("+4930123456"))

    assert done.provider_id is not None
    assert not done.delivered


async def test_sms_is_the_short_form() -> None:
    """To the number, as a transactional one, under the sender's name."""
    taken = "<PublishResponse><PublishResult><MessageId>m1</MessageId></PublishResult></PublishResponse>"
    sent = message("+4930123456")
    receiver = HttpReceiver(answering(200, taken))
    async with receiver.running(), open_sms(settings(receiver.url, sender_id="Headrace"), _session) as channel:
        done = await channel.send(sent)

    form = {name: value for name, (value,) in parse_qs(receiver.received[0].body.decode()).items()}
    assert (form["PhoneNumber"], form["Message"]) == ("+4930123456", sent.content.short)
    assert {"Transactional", "Headrace"} <= set(form.values())
    assert done.provider_id == "m1"


async def test_refusal_says_what_comes_next() -> None:
    """One request each: delivery repeats."""
    cases: list[tuple[str, str, int, type[Exception]]] = [
        ("InvalidParameter", "Invalid parameter: PhoneNumber Reason: +49 is not valid", 400, ContactGone),
        ("InvalidParameter", "Phone number is opted out", 400, ContactGone),
        ("InvalidParameter", "Invalid parameter: Message too long", 400, Refused),
        ("AuthorizationError", "not authorized", 403, SendLater),
        ("InvalidClientTokenId", "no such key", 403, SendLater),
        ("Throttling", "Rate exceeded", 400, SendLater),
        ("InternalFailure", "oops", 500, SendLater),
    ]
    answers = [refusing(code, text, status) for code, text, status, _ in cases]

    found = []
    async with HttpReceiver(*answers).running() as receiver, open_sms(settings(receiver.url), _session) as channel:
        for code, _, _, error in cases:
            with pytest.raises(error, match=code) as raised:
                await channel.send(message("+4930123456"))
            found.append(type(raised.value))

    assert found == [error for _, _, _, error in cases]
    assert len(receiver.received) == len(cases)


async def test_no_server_is_for_later() -> None:
    """It may come back."""
    async with HttpReceiver().running() as gone:
        pass
    async with open_sms(settings(gone.url), _session) as channel:
        with pytest.raises(SendLater, match="Amazon SNS"):
            await channel.send(message("+4930123456"))


async def test_contact_that_is_no_number_is_refused() -> None:
    """Before anything is sent."""
    async with HttpReceiver().running() as receiver, open_sms(settings(receiver.url), _session) as channel:
        for contact in ("0301234", "+0", "", "+49 30 1234", "+49301234\n"):
            with pytest.raises(Refused):
                await channel.send(message(contact))

    assert receiver.received == []


async def test_region_that_is_missing_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mistake of the configuration."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    with pytest.raises(ConfigError, match="region is missing"):
        async with open_sms(settings("http://127.0.0.1:1", region=None)):
            pass

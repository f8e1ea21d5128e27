"""Mail: what is sent, how refusals are taken, and that connections are kept and let go of."""

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from headrace.connectors.notifications.channel import ContactGone, Refused, SendLater
from headrace.connectors.notifications.email import IDLE, EmailChannel
from headrace.connectors.notifications.email_settings import EmailSettings
from headrace.engine.clock import SteppedClock
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import Mailbox


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox().running() as mailbox:
        yield mailbox


def opened(mailbox: Mailbox, **changed: Any) -> EmailChannel:
    """A channel to a mailbox; close it."""
    settings = {"security": "none", "sender": "Alerts <alerts@example.com>", **changed}
    return EmailChannel(EmailSettings(host="127.0.0.1", port=mailbox.port, **settings), SteppedClock())


async def test_mail_arrives_whole(mailbox: Mailbox) -> None:
    """Sender, recipient, subject, both forms of the body and the headers that machines look at."""
    channel = opened(mailbox, reply_to="ops@example.com", unsubscribe_url="https://iot.example.com/preferences")
    sent = message()

    done = await channel.send(sent)
    await channel.close()

    (envelope,) = mailbox.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("alerts@example.com", ["ada@example.com"])
    assert isinstance(envelope.content, bytes)
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert mail["From"] == "Alerts <alerts@example.com>"
    assert mail["Subject"] == "[WARNING] High temperature at Office 301"
    assert mail["Message-ID"] == f"<{sent.notification.notificationId}@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Reply-To"] == "ops@example.com"
    assert mail["List-Unsubscribe"] == "<https://iot.example.com/preferences>"
    plain, html = (part.get_content().replace("\r\n", "\n") for part in mail.iter_parts())
    assert (plain, html.rstrip()) == (sent.content.text, (sent.content.html or "").rstrip())
    assert done.provider_id == "OK queued as 1"
    assert not done.delivered


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\r\n\r\n", "\r\n.\r\n"])
async def test_no_title_begins_a_header(mailbox: Mailbox, end: str) -> None:
    """Neither by a name of a rule nor by a template: nobody else gets the mail, and its body is its own."""
    channel, plain = opened(mailbox), message()
    evil = plain.content._replace(title=f"Hot{end}Bcc: eve@example.com{end}{end}<b>gone</b>")

    await channel.send(plain._replace(content=evil))
    await channel.close()

    (envelope,) = mailbox.mails
    assert isinstance(envelope.content, bytes)
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert envelope.rcpt_tos == ["ada@example.com"]
    assert mail["Bcc"] is None
    assert "Bcc: eve@example.com" in mail["Subject"]
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == plain.content.text


async def test_repeat_is_the_same_mail(mailbox: Mailbox) -> None:
    """Byte for byte, so that whoever looks at Message-IDs knows it."""
    channel = opened(mailbox)

    await channel.send(message())
    await channel.send(message(attempt=2))
    await channel.close()

    assert mailbox.mails[0].content == mailbox.mails[1].content


async def test_connection_is_kept_between_mails(mailbox: Mailbox) -> None:
    """Two mails, one connection; after a while of silence a new one."""
    clock = SteppedClock()
    channel = EmailChannel(
        EmailSettings(host="127.0.0.1", port=mailbox.port, security="none", sender="a@b.example"), clock
    )

    await channel.send(message())
    await channel.send(message())
    assert mailbox.connections == 1
    clock.advance(int(IDLE * 1000) + 1)
    await channel.send(message())
    await channel.close()

    assert mailbox.connections == 2
    assert len(mailbox.mails) == 3


async def test_a_server_that_hangs_does_not_hold_up_the_end() -> None:
    """It takes mails by two connections, and answers no goodbye; a step of the conversation has five minutes."""
    leaving = asyncio.Event()

    class Hanging(Mailbox):
        async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            leaving.set()
            await asyncio.Event().wait()
            raise AssertionError

    async with Hanging().running() as mailbox:
        channel = opened(mailbox, timeout=300)
        await asyncio.gather(channel.send(message()), channel.send(message()))
        assert mailbox.connections == 2

        async with asyncio.timeout(100):
            await channel.close()

        assert leaving.is_set()


@pytest.mark.parametrize(
    ("command", "answer", "error"),
    [
        ("RCPT", "550 5.1.1 no such user", ContactGone),
        ("RCPT", "550 no such user", ContactGone),
        ("RCPT", "550 5.7.1 relaying denied", Refused),
        ("RCPT", "552 5.2.2 mailbox full", Refused),
        ("RCPT", "450 4.2.0 greylisted", SendLater),
        ("MAIL", "550 5.7.1 sender not allowed", Refused),
        ("MAIL", "451 4.3.0 later", SendLater),
        ("DATA", "554 5.7.1 spam", Refused),
        ("DATA", "452 4.3.1 disk full", SendLater),
    ],
)
async def test_refusal_says_what_to_do_next(
    mailbox: Mailbox, command: str, answer: str, error: type[Exception]
) -> None:
    """Each answer is one error with the server's own words, and the next mail goes over the same connection."""
    channel = opened(mailbox)
    mailbox.refuse[command] = [answer]

    with pytest.raises(error, match=answer[4:]) as raised:
        await channel.send(message())
    await channel.send(message())
    await channel.close()

    assert type(raised.value) is error
    assert len(mailbox.mails) == 1
    assert mailbox.connections == 1


async def test_connection_that_ends_after_the_mail_is_for_later(mailbox: Mailbox) -> None:
    """Nobody knows whether it was taken: it is sent again, over a new connection, with the same Message-ID."""
    channel = opened(mailbox)
    mailbox.refuse["DATA"] = ["close"]

    with pytest.raises(SendLater):
        await channel.send(message())
    await channel.send(message(attempt=2))
    await channel.close()

    assert mailbox.connections == 2
    assert mailbox.mails[0].content == mailbox.mails[1].content


async def test_connection_that_the_server_closed_in_between_is_replaced() -> None:
    """A server that was started anew gets the next mail at once."""
    mailbox = Mailbox()
    async with mailbox.running():
        channel = opened(mailbox)
        await channel.send(message())
        first = channel._idle[0].connection.transport
        assert first is not None
        first.close()
        await channel.send(message())
        await channel.close()

    assert len(mailbox.mails) == 2
    assert mailbox.connections == 2


async def test_no_server_is_for_later() -> None:
    """The text names the server."""
    async with Mailbox().running() as mailbox:
        channel = opened(mailbox)

    with pytest.raises(SendLater, match=r"127\.0\.0\.1"):
        await channel.send(message())
    await channel.close()


async def test_server_that_hangs_is_for_later() -> None:
    """A server that takes the connection and says nothing costs the timeout, and no more."""
    writers = []
    with_nothing = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
    port = with_nothing.sockets[0].getsockname()[1]
    channel = EmailChannel(
        EmailSettings(host="127.0.0.1", port=port, security="none", sender="a@b.example", timeout=0.05), SteppedClock()
    )

    with pytest.raises(SendLater):
        await channel.send(message())
    await channel.close()
    for writer in writers:
        writer.close()
    with_nothing.close()


async def test_cancelled_mail_leaves_no_half_conversation(mailbox: Mailbox) -> None:
    """The connection on which it was is dropped; the next mail is not taken for the rest of the first."""
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.rcpt_tos.append(address)
        reached.set()
        await go.wait()
        return "250 OK"

    mailbox.handle_RCPT = slow  # type: ignore[method-assign]
    channel = opened(mailbox)
    sending = asyncio.create_task(channel.send(message("first@example.com")))
    await reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    go.set()

    await channel.send(message("second@example.com"))
    await channel.close()

    assert [each.rcpt_tos for each in mailbox.mails] == [["second@example.com"]]
    assert mailbox.connections == 2


async def test_password_is_not_sent_without_tls(mailbox: Mailbox) -> None:
    """A server that cannot do STARTTLS never hears of it."""
    channel = opened(mailbox, security="starttls", user="alerts", password="geheim")

    with pytest.raises(SendLater, match="security"):
        await channel.send(message())
    await channel.close()

    assert mailbox.mails == []


async def test_certificate_that_nobody_signed_is_refused(tls_mailbox: Mailbox) -> None:
    """The system's authorities decide whom mails are handed to."""
    channel = opened(tls_mailbox, security="starttls")

    with pytest.raises(SendLater, match="certificate"):
        await channel.send(message())
    await channel.close()

    assert tls_mailbox.mails == []


async def test_mail_goes_over_starttls_with_a_password(tls_mailbox: Mailbox, authority: ssl.SSLContext) -> None:
    """With the right password the server takes it, with a wrong one the error says where it is configured."""
    settings = {"host": "localhost", "port": tls_mailbox.port, "sender": "a@b.example", "user": "alerts"}
    right, wrong = (
        EmailChannel(EmailSettings(**settings, password=password), SteppedClock(), authority)
        for password in ("geheim", "falsch")
    )

    await right.send(message())
    with pytest.raises(SendLater, match=r"\[channels.email\] user and password") as raised:
        await wrong.send(message())
    await right.close()
    await wrong.close()

    assert len(tls_mailbox.mails) == 1
    assert "falsch" not in str(raised.value)


async def test_address_in_letters_of_its_own_goes_as_smtputf8(mailbox: Mailbox) -> None:
    """The domain in ASCII, the name as it is."""
    channel = opened(mailbox)

    await channel.send(message("jürgen@bücher.example"))
    await channel.close()

    assert mailbox.mails[0].rcpt_tos == ["jürgen@xn--bcher-kva.example"]
    assert "SMTPUTF8" in mailbox.mails[0].mail_options


@pytest.mark.parametrize("contact", ["ada", "a b@example.com", "ada@example.com\r\nRCPT TO:<eve@example.com>", "@", ""])
async def test_contact_that_is_no_address_is_refused(mailbox: Mailbox, contact: str) -> None:
    """Nothing is sent, not even a command."""
    channel = opened(mailbox)

    with pytest.raises(Refused):
        await channel.send(message(contact))
    await channel.close()

    assert mailbox.connections == 0

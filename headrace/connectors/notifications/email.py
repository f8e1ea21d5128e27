"""Mail by SMTP: text and HTML, one conversation per mail, connections kept."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import aiosmtplib

from headrace.connectors.notifications.channel import ContactGone, Message, Refused, SendLater, Sent
from headrace.connectors.notifications.email_message import EmailMaker
from headrace.connectors.notifications.email_settings import PORTS, EmailSettings, parse_sender
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError

#: A connection that was idle for longer is not used again, seconds: servers close them without a word.
IDLE = 30.0
#: Seconds until the next try when the server does not let us in: only a person can mend it.
LOCKED_OUT = 60.0
#: Seconds for a goodbye, all connections at once: a server that hangs does not keep a worker from its end.
GOODBYE = 1.0
#: Enhanced status codes of a mailbox that is no more (RFC 3463): bad address, moved, switched off.
_GONE = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")
#: Basic codes that mean the same where there is no enhanced one (RFC 5321, 4.2.3).
_NO_MAILBOX = {550, 551, 553}


class _Idle(NamedTuple):
    connection: aiosmtplib.SMTP
    since: float


class EmailChannel:
    """Hands each mail to one SMTP server.

    At least once: a mail whose end nobody knows comes again with the same Message-ID. A connection on which something
    unusual happened, a cancellation too, is never used again.

    Args:
        settings: with `host`.
        clock: see `Clock`.
        context: of TLS; the system's certificate authorities if None.
    Raises:
        ConfigError: settings name no server.
    """

    name = "email"
    #: Some mailboxes show a repeat once, by its Message-ID; not all.
    idempotent = False

    def __init__(self, settings: EmailSettings, clock: Clock, context: ssl.SSLContext | None = None) -> None:
        if settings.host is None or settings.sender is None:
            raise ConfigError("[channels.email] host and sender are missing")
        self.at_once = settings.connections
        self._settings = settings
        self._clock = clock
        self._context = context or ssl.create_default_context()
        self._maker = EmailMaker(settings)
        self._sender = parse_sender(settings.sender)[1]
        self._idle: list[_Idle] = []
        self._places = asyncio.Semaphore(settings.connections)

    async def send(self, message: Message) -> Sent:
        """Hand it over; see `Channel.send`."""
        mail, to = self._maker.make(message)
        async with self._connection() as (connection, used):
            try:
                await self._envelope(connection, to)
            except aiosmtplib.SMTPServerDisconnected:
                # What was idle may have been closed by the server; nothing has been said yet.
                if not used:
                    raise
                connection.close()
                await self._connect(connection)
                await self._envelope(connection, to)
            try:
                _, answer = await connection.data(mail)
            except aiosmtplib.SMTPDataError as error:
                raise _refusal(error, "the mail") from error
        return Sent(answer.split("\n")[0][:200] or None)

    async def _envelope(self, connection: aiosmtplib.SMTP, to: str) -> None:
        options = []
        if not to.isascii():
            if not connection.supports_extension("smtputf8"):
                raise Refused(f"the mail server takes no address like {to!r} (it has no SMTPUTF8)")
            options = ["SMTPUTF8", "BODY=8BITMIME"]
        try:
            await connection.mail(self._sender, options=options, encoding="utf-8" if options else "ascii")
        except aiosmtplib.SMTPSenderRefused as error:
            raise _refusal(error, f"the sender {self._sender}") from error
        try:
            await connection.rcpt(to, encoding="utf-8" if options else "ascii")
        except aiosmtplib.SMTPRecipientRefused as error:
            raise _refusal(error, f"the recipient {to}") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[aiosmtplib.SMTP, bool]]:
        """A connection, and whether it was used before; every error as what `Channel.send` says."""
        async with self._places:
            connection, used = self._taken(), True
            if connection is None:
                connection, used = self._made(), False
            whole = False
            try:
                if not used:
                    await self._connect(connection)
                yield connection, used
                whole = True
            except (SendLater, Refused) as error:
                # The server has answered: after a reset the conversation can begin anew.
                whole = await self._reset(connection) if error.__cause__ is not None else False
                raise
            except aiosmtplib.SMTPAuthenticationError as error:
                raise SendLater(
                    f"the mail server does not let us in: {_said(error)}; correct [channels.email] user and password",
                    LOCKED_OUT,
                ) from error
            except aiosmtplib.SMTPResponseException as error:
                raise SendLater(f"the mail server said {_said(error)}") from error
            except (aiosmtplib.SMTPException, OSError, EOFError) as error:
                raise SendLater(f"the mail server {self._settings.host}: {error or type(error).__name__}") from error
            finally:
                if whole and connection.is_connected:
                    self._idle.append(_Idle(connection, self._clock.monotonic()))
                else:
                    connection.close()

    def _taken(self) -> aiosmtplib.SMTP | None:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_connected and self._clock.monotonic() - since < IDLE:
                return connection
            connection.close()
        return None

    def _made(self) -> aiosmtplib.SMTP:
        settings = self._settings
        return aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port or PORTS[settings.security],
            local_hostname=self._maker.domain,
            timeout=settings.timeout,
            use_tls=settings.security == "tls",
            start_tls=False,  # in _connect, with an error that says more
            tls_context=self._context,
        )

    async def _connect(self, connection: aiosmtplib.SMTP) -> None:
        settings = self._settings
        await connection.connect()
        await connection.ehlo()
        if settings.security == "starttls":
            # A server that "cannot" may be somebody in between: the mail waits rather than goes in the open.
            if not connection.supports_extension("starttls"):
                raise SendLater(
                    f"the mail server {settings.host} offers no STARTTLS: correct [channels.email] port and security",
                    LOCKED_OUT,
                )
            await connection.starttls()
        if settings.user is not None and settings.password is not None:
            await connection.login(settings.user, settings.password.get_secret_value())

    async def _reset(self, connection: aiosmtplib.SMTP) -> bool:
        with suppress(aiosmtplib.SMTPException, OSError):
            await connection.rset()
            return True
        return False

    async def close(self) -> None:
        """Say goodbye and let go of connections."""
        idle, self._idle = self._idle, []
        async with asyncio.TaskGroup() as group:
            for each in idle:
                group.create_task(_leave(each.connection))


async def _leave(connection: aiosmtplib.SMTP) -> None:
    with suppress(aiosmtplib.SMTPException, OSError):
        await connection.quit(timeout=GOODBYE)
    connection.close()


def _refusal(error: aiosmtplib.SMTPResponseException, what: str) -> SendLater | Refused:
    """What a refusal of a mail, or of an address, means."""
    said = f"the mail server refuses {what}: {_said(error)}"
    enhanced = error.message.split(" ", 1)[0]
    if 400 <= error.code < 500:
        return SendLater(said)
    if isinstance(error, aiosmtplib.SMTPRecipientRefused):
        has_code = enhanced.count(".") == 2 and enhanced.replace(".", "").isdigit()
        if enhanced in _GONE or (not has_code and error.code in _NO_MAILBOX):
            return ContactGone(said)
    return Refused(said)


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {' '.join(error.message.split())[:200]}"

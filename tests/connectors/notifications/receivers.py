"""Receivers on loopback, each a real server: HTTP that answers as a test says, SMTP by aiosmtpd."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

Answer = Callable[["Received"], Awaitable[web.StreamResponse]]


class Received(NamedTuple):
    """A request: `path` with its query, headers, and body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpReceiver:
    """Keeps what it is sent, and answers with `answers`, one after the other; with the last one for good.

    An answer is a status, a status with headers, or a function.
    """

    def __init__(self, *answers: Any) -> None:
        self.received: list[Received] = []
        self._answers = list(answers) or [204]
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.method, str(request.rel_url), dict(request.headers), await request.read())
        self.received.append(received)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            response: web.StreamResponse = await answer(received)
            return response
        if isinstance(answer, int):
            return web.Response(status=answer)
        status, headers = answer
        return web.Response(status=status, headers=headers)

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["HttpReceiver"]:
        """Listening on loopback for as long as the `async with` lasts; on a port of its own unless one is named."""
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def hang(received: Received) -> web.StreamResponse:
    """An answer that does not come."""
    await asyncio.Event().wait()
    raise AssertionError


class Mailbox:
    """Keeps mails. `refuse` gives the answer to a command (`MAIL`, `RCPT`, `DATA`) where it has one."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.refuse: dict[str, list[str]] = {}
        self.connections = 0
        self.port = 0
        self.options: dict[str, Any] = {}

    def _refusal(self, command: str) -> str | None:
        answers = self.refuse.get(command, [])
        return answers.pop(0) if answers else None

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._refusal("MAIL") or "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        refusal = self._refusal("RCPT")
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        refusal = self._refusal("DATA")
        if refusal == "close":
            self.mails.append(envelope)
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.close()
            return "250 OK"
        if refusal is None:
            self.mails.append(envelope)
        return refusal or f"250 OK queued as {len(self.mails)}"

    def _made(self) -> SMTP:
        self.connections += 1
        return SMTP(self, hostname="receiver.example", enable_SMTPUTF8=True, **self.options)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Mailbox"]:
        """Listening on loopback for as long as the `async with` lasts."""
        server = await asyncio.get_running_loop().create_server(
            self._made, "127.0.0.1", self.port, family=socket.AF_INET
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

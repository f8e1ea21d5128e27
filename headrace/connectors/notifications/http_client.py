"""Requests to receivers: one answer or one error each, and never more time, bytes or hops than was said."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp

from headrace.connectors.notifications.channel import ContactGone, Refused, SendLater
from headrace.connectors.notifications.public_addresses import Network, PrivateAddress, guarded_sockets
from headrace.engine.clock import Clock

#: What is read of an answer, bytes; and of it for people, characters.
MOST_BYTES = 65_536
SHOWN = 300
#: Longest wait that a receiver may ask for, seconds.
LONGEST_WAIT = 3600.0
#: After an answer that says nothing about when, seconds; who calls waits longer each time.
WAIT = 1.0
#: Where only a person can mend it, seconds.
UNMENDED = 60.0
NO_REMEDIES: Mapping[int, str] = MappingProxyType({})
#: Answers below 500 that pass: a proxy says 404 while what is behind it starts.
PASSING = {404, 408, 409, 421, 423, 425, 429}


class Answer(NamedTuple):
    """What a receiver said.

    Args:
        status: of HTTP.
        headers: by name, in any case.
        body: its first `MOST_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, or None if it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def text(self) -> str:
        """The beginning of the body on one line, for people."""
        return " ".join(self.body[: SHOWN * 4].decode(errors="replace").split())[:SHOWN]


class HttpClient:
    """Posts; follows no redirect, uses no proxy of the environment, keeps no cookie.

    Args:
        clock: that `Retry-After` with a date is compared with.
        connections: at once, count.
        networks: that are not public and may be connected to; None: an operator has named the address, any will do.
        resolver: of names; the system's if None.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        connections: int,
        networks: Sequence[Network] | None = None,
        resolver: aiohttp.abc.AbstractResolver | None = None,
    ) -> None:
        self._clock = clock
        self._connections = connections
        self._networks = networks
        self._resolver = resolver
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made with the first request: what is never used need not be closed."""
        if self._opened is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                limit_per_host=max(1, self._connections // 2),  # one slow receiver leaves room for the others
                socket_factory=None if self._networks is None else guarded_sockets(self._networks),
                resolver=self._resolver or aiohttp.ThreadedResolver(),
            )
            self._opened = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,  # nothing of an answer is worth a decompression bomb
                max_line_size=16_384,
                max_field_size=16_384,
            )
        return self._opened

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """The answer, whatever its status.

        Args:
            timeout: seconds for the whole request.
        Raises:
            SendLater: there was none.
            Refused: the address cannot be used, or must not be connected to.
        """
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=timeout)
            ) as response:
                return Answer(response.status, response.headers, await self._beginning(response))
        except TimeoutError as error:
            raise SendLater(f"{host(url)} did not answer within {timeout:g} s") from error
        except aiohttp.InvalidURL as error:
            raise Refused(f"the address cannot be used: {error}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddress):
                raise Refused(
                    f"{host(url)} has an address that is not public: nothing was sent; if that is meant, put its "
                    "network into private_networks of [channels.webhook]"
                ) from error
            raise SendLater(f"{host(url)} cannot be reached: {error.os_error}") from error
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise SendLater(f"{host(url)}: {type(error).__name__}: {error}"[:SHOWN]) from error
        except ValueError as error:
            # A host that is none (labels too long, ports too high), or a header: found by what aiohttp is made of.
            raise Refused(f"the request cannot be made: {error}"[:SHOWN]) from error

    async def _beginning(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) >= MOST_BYTES:
                response.close()
                break
        return bytes(body[:MOST_BYTES])

    def wait(self, answer: Answer, usual: float = WAIT) -> float:
        """Seconds until the receiver wants to be asked again: its `Retry-After`, in seconds or as a date."""
        asked = answer.headers.get("Retry-After", "").strip()
        if asked.isascii() and asked.isdigit():
            return max(usual, min(float(asked[:9]), LONGEST_WAIT))
        try:
            at = parsedate_to_datetime(asked)
        except ValueError:
            return usual
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(usual, min(at.timestamp() - self._clock.now_ms() / 1000, LONGEST_WAIT))

    def judge(self, answer: Answer, who: str, remedies: Mapping[int, str] = NO_REMEDIES) -> None:
        """Nothing, if the receiver took it.

        Args:
            who: in errors.
            remedies: what a person must do before it can be taken, by status; so long it is tried again.
        Raises:
            SendLater, ContactGone, Refused: it did not.
        """
        status = answer.status
        if 200 <= status < 300:
            return
        said = f"{who} answered {status}" + (f": {answer.text()}" if answer.text() else "")
        if status in remedies:
            raise SendLater(f"{said}; {remedies[status]}", self.wait(answer, UNMENDED))
        if status >= 500 or status in PASSING:
            raise SendLater(said, self.wait(answer))
        if status == 410:
            raise ContactGone(f"{said}: it wants no more")
        if status < 400:
            raise Refused(
                f"{who} answered {status}, a redirect, which is not followed: name the address that it leads to"
            )
        raise Refused(said)

    async def close(self) -> None:
        """Let go of connections."""
        if self._opened is not None:
            await self._opened.close()


def host(url: str) -> str:
    """Of an address what may be in logs: its host; paths and queries hold secrets."""
    return url.split("://", 1)[-1].split("/", 1)[0].split("?", 1)[0].rpartition("@")[2][:100]

"""Answers that are kept under the key that a client gave its request, so that sending it again changes nothing.

As of draft-ietf-httpapi-idempotency-key-header. They are in a compacted topic, in the same commit as the messages: what
was appended is known to be, whenever this process dies.
"""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import msgspec
from aiohttp import web

from headrace.connectors.http.problem import HttpProblem
from headrace.engine.clock import Clock
from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec

TOPIC = "headrace.http.keys"
_TARGET = TopicPartition(TOPIC, 0)
HEADER = "Idempotency-Key"
LONGEST_KEY = 255
#: Of one answer, packed; of all of them.
MAX_ANSWER_BYTES = 256 << 10
MAX_BYTES = 64 << 20
#: Kept answers that may go with one new one.
_DROPPED_AT_ONCE = 100


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer.

    Args:
        digest: of the request.
        until_ms: it is forgotten then, ms since 1970 UTC.
        status: of the answer.
        packed: its body, by zlib.
    """

    digest: bytes
    until_ms: int
    status: int
    packed: bytes

    def response(self) -> web.Response:
        """It, given again."""
        return web.Response(
            status=self.status,
            body=zlib.decompress(self.packed),
            headers={"Idempotency-Replayed": "true"},
            content_type="application/json",
        )


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Kept)


class IdempotencyKeys:
    """Answers by client and key; bounded in number, bytes and age.

    Args:
        log: keeps them.
        clock: for their age.
        seconds: that an answer is kept.
        most: answers.
    """

    def __init__(self, log: Log, clock: Clock, *, seconds: float, most: int) -> None:
        self._log = log
        self._clock = clock
        self._kept_ms = round(seconds * 1000)
        self._most = most
        self._kept: dict[bytes, Kept] = {}
        self._bytes = 0
        self._turns: dict[bytes, tuple[asyncio.Lock, int]] = {}

    @staticmethod
    def topic_specs() -> list[TopicSpec]:
        """The topic that it needs."""
        return [TopicSpec(TOPIC, 1, compacted=True)]

    async def restore(self) -> None:
        """Read what is kept."""
        found: list[tuple[bytes, Kept]] = []
        async for entries in self._log.restore(_TARGET):
            found += [(name, _decoder.decode(value)) for name, value in entries]
        for name, kept in sorted(found, key=lambda each: each[1].until_ms):
            self.put(name, kept)

    @asynccontextmanager
    async def turn(self, name: bytes) -> AsyncIterator[None]:
        """Be the only request with this key: who sends it twice at once is answered twice the same."""
        lock, users = self._turns.get(name, (asyncio.Lock(), 0))
        self._turns[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[name]
            if users == 1:
                del self._turns[name]
            else:
                self._turns[name] = lock, users - 1

    def find(self, name: bytes, digest: bytes) -> Kept | None:
        """The answer that was given under this key; None if there was none.

        Raises:
            HttpProblem: it was given to another request.
        """
        kept = self._kept.get(name)
        if kept is None or kept.until_ms <= self._clock.now_ms():
            return None
        if kept.digest != digest:
            said = f"this {HEADER} came with another request before; give every request one of its own"
            raise HttpProblem(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", said)
        return kept

    def answer(self, digest: bytes, status: int, body: bytes) -> Kept:
        """An answer to keep from now on.

        Raises:
            HttpProblem: it is too long for that.
        """
        packed = zlib.compress(body, 1)
        if len(packed) > MAX_ANSWER_BYTES:
            said = f"the answer is too long to be kept for {HEADER}: too many messages are refused; send less at once"
            raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", said)
        return Kept(digest, self._clock.now_ms() + self._kept_ms, status, packed)

    def changes(self, name: bytes, kept: Kept) -> Changes:
        """What to commit together with the messages; after that, `put` it."""
        entries: dict[bytes, bytes | None] = dict.fromkeys(self._dropped())
        return Changes(_TARGET, entries | {name: _encode(kept)})

    def put(self, name: bytes, kept: Kept) -> None:
        """Answer with it from now on."""
        before = self._kept.pop(name, None)
        if before is not None:
            self._bytes -= _size(name, before)
        self._kept[name] = kept  # at the end: the order is that of age
        self._bytes += _size(name, kept)

    def _dropped(self) -> list[bytes]:
        now, dropped = self._clock.now_ms(), list[bytes]()
        for name, kept in self._kept.items():
            is_too_much = len(self._kept) - len(dropped) >= self._most or self._bytes > MAX_BYTES
            if len(dropped) >= _DROPPED_AT_ONCE or not (is_too_much or kept.until_ms <= now):
                break
            self._bytes -= _size(name, kept)
            dropped.append(name)
        for name in dropped:
            del self._kept[name]
        return dropped


def _size(name: bytes, kept: Kept) -> int:
    return len(name) + len(kept.packed) + 400


def key_of(request: web.BaseRequest, client: str) -> bytes | None:
    """Under what an answer to this request is kept; None if it need not be.

    Raises:
        HttpProblem: the header is no key.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not 0 < len(given) <= LONGEST_KEY or not (given.isascii() and given.isprintable()) or " " in given:
        said = f"{HEADER} must have 1 to {LONGEST_KEY} printable ASCII characters, and no spaces"
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", said)
    return f"{client}\n{given}".encode()


def digest_of(*parts: bytes) -> bytes:
    """What tells one request from another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.digest()

"""Collects messages of many connections into batches, and says when there are too many."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from headrace.engine.clock import Clock

T = TypeVar("T")


class Inflow(Generic[T]):
    """Hands batches, in the order in which their messages came, to `append`, one after the other.

    It takes whatever is put: who puts must look at `full` and hold its sender back.

    Args:
        append: makes a batch durable and acknowledges it.
        on_room: called when it was full and is not any more.
        linger: longest wait for more messages, seconds.
        max_batch: messages in a batch.
        max_bytes: bytes that may wait before it is full.
    """

    def __init__(
        self,
        append: Callable[[Sequence[T]], Awaitable[None]],
        on_room: Callable[[], None],
        clock: Clock,
        *,
        linger: float,
        max_batch: int,
        max_bytes: int,
    ) -> None:
        self._append = append
        self._on_room = on_room
        self._clock = clock
        self._linger = linger
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._waiting: list[T] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._closed = False
        self.full = False

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait, those of the batch that is being appended not included."""
        return self._bytes

    def put(self, message: T, size: int) -> None:
        """Take a message of `size` bytes."""
        self._waiting.append(message)
        self._sizes.append(size)
        self._bytes += size
        count = len(self._waiting)
        if count == 1:
            self._arrived.set()
        if count >= self._max_batch:
            self._enough.set()
        if self._bytes >= self._max_bytes:
            self.full = True

    def close(self) -> None:
        """Take no more: `run` appends what waits and returns."""
        self._closed = True
        self._arrived.set()
        self._enough.set()

    async def run(self) -> None:
        """Append until closed.

        Raises:
            HeadraceError: what `append` raised; nothing of that batch, or behind it, was acknowledged.
        """
        while True:
            await self._arrived.wait()
            if not self._waiting:
                return
            if len(self._waiting) < self._max_batch and not self._closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger):
                        await self._enough.wait()
            await self._append(self._take())

    def _take(self) -> list[T]:
        most = self._max_batch
        batch, self._waiting = self._waiting[:most], self._waiting[most:]
        self._bytes -= sum(self._sizes[:most])
        del self._sizes[:most]
        if not self._closed:
            if not self._waiting:
                self._arrived.clear()
            if len(self._waiting) < most:
                self._enough.clear()
        if self.full and self._bytes <= self._max_bytes // 2:
            self.full = False
            self._on_room()
        return batch

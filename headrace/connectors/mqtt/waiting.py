"""Messages on their way from a connection to the log: bounded in count and bytes."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from headrace.connectors.mqtt.codec.packets import Publish
from headrace.connectors.mqtt.connection import MqttConnection

#: Batches that may wait behind the one being appended.
MOST_BATCHES = 4

Batch = tuple[MqttConnection, Sequence[Publish]]


class WaitingMessages:
    """Takes messages in order and gives them out in batches of one connection. Beyond the bounds it pauses reading.

    One read of a connection, at most 256 KiB and one message, is always taken whole.

    Args:
        max_batch: messages per batch, and a quarter of those that may wait.
        max_bytes: payload bytes that may wait.
        linger: longest wait for a full batch, seconds.
    """

    def __init__(self, max_batch: int, max_bytes: int, linger: float) -> None:
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._linger = linger
        self._reads: deque[Batch] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._closed = False
        #: Messages and payload bytes that wait.
        self.count = self.bytes = 0

    def put(self, connection: MqttConnection, messages: Sequence[Publish]) -> None:
        """Take what one read brought; no messages at all are none."""
        if not messages:
            return
        self._reads.append((connection, messages))
        self._add(messages, 1)
        self._arrived.set()
        if self.count >= self._max_batch:
            self._full.set()
        if self._is_beyond(1.0):
            connection.pause()

    def close(self) -> None:
        """No more will come: give out what is there without waiting, then None."""
        self._closed = True
        self._arrived.set()
        self._full.set()

    async def take(self) -> Batch | None:
        """The next batch; waits for one. None when it is closed and empty."""
        await self._arrived.wait()
        if not self._full.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    await self._full.wait()
        if not self._reads:
            return None
        connection, messages = self._reads[0][0], list[Publish]()
        while self._reads and self._reads[0][0] is connection and len(messages) < self._max_batch:
            messages += self._reads.popleft()[1]
        if len(messages) > self._max_batch:
            self._reads.appendleft((connection, messages[self._max_batch :]))
            del messages[self._max_batch :]
        self._add(messages, -1)
        if not self._closed:
            self._let_in(connection)
        return connection, messages

    def _let_in(self, connection: MqttConnection) -> None:
        if not self._reads:
            self._arrived.clear()
        if self.count < self._max_batch:
            self._full.clear()
        if not self._is_beyond(0.5):
            # The newest connection is the only one that can still be read.
            (self._reads[-1][0] if self._reads else connection).resume()

    def _add(self, messages: Sequence[Publish], sign: int) -> None:
        self.count += sign * len(messages)
        self.bytes += sign * sum([len(message.payload) for message in messages])

    def _is_beyond(self, share: float) -> bool:
        return self.count >= MOST_BATCHES * self._max_batch * share or self.bytes >= self._max_bytes * share

"""Messages of a source that the broker may not be done with: how many, and until when."""

import asyncio
from collections.abc import Iterable, Sequence

from headrace.connectors.mqtt.codec.packets import Publish


class Unsettled:
    """Counts messages with QoS 1 or 2. It must be told of each when it came and when it was acknowledged.

    One with QoS 0 is never acknowledged, and a broker sends it however many others are not.
    """

    def __init__(self) -> None:
        #: Messages that came so far.
        self.came = 0
        #: Most that were not acknowledged at a time, on the newest connection.
        self.most = 0
        self._acknowledged = 0
        self._all_acknowledged, self._all_released = asyncio.Event(), asyncio.Event()
        self._all_acknowledged.set()
        #: Packet identifiers with QoS 2 that came on the newest connection, and that the broker has not released.
        self._unreleased: set[int] = set()

    def connect(self) -> None:
        """A new connection is made."""
        self.most = 0
        self._unreleased.clear()
        self._all_released.set()

    def come(self, messages: Sequence[Publish]) -> None:
        """These came."""
        if count := windowed(messages):
            self.came += count
            self.most = max(self.most, self.came - self._acknowledged)
            self._all_acknowledged.clear()
            self._unreleased.update([message.packet_id for message in messages if message.qos == 2])
            if self._unreleased:
                self._all_released.clear()

    def acknowledge(self, messages: Sequence[Publish]) -> None:
        """These were acknowledged, or are in the log and their connection is gone."""
        self._acknowledged += windowed(messages)
        if self._acknowledged == self.came:
            self._all_acknowledged.set()

    def release(self, packet_ids: Iterable[int]) -> None:
        """The broker released these; it is told in the same step that we know."""
        self._unreleased.difference_update(packet_ids)
        if not self._unreleased:
            self._all_released.set()

    async def wait_acknowledged(self) -> None:
        """Return when everything is acknowledged; it stays so until the caller waits for something else."""
        while not self._all_acknowledged.is_set():
            await self._all_acknowledged.wait()

    async def wait_none(self) -> None:
        """Return when everything is acknowledged and, at QoS 2, released; it stays so likewise."""
        while not (self._all_acknowledged.is_set() and self._all_released.is_set()):
            await self.wait_acknowledged()
            await self._all_released.wait()


def windowed(messages: Sequence[Publish]) -> int:
    """How many of these are to be acknowledged."""
    return len(messages) - [message.qos for message in messages].count(0)

"""Notices that fetching stands still although there is something to fetch."""

import asyncio

from headrace.engine.clock import Clock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.fetcher import Fetcher
from headrace.engine.kafka.offsets import LATEST, list_offsets
from headrace.engine.log import TopicPartition

#: Looks per stall timeout.
LOOKS = 4


class Watchdog:
    """Compares where a fetcher stands with where its partitions end, over a connection that is not the fetcher's.

    Nothing is known while the brokers do not answer: that is not the fetcher's fault, and a new one would not help.

    Args:
        client: asks for the ends.
        stall_timeout: seconds without progress that count as a stall.
        answer_timeout: seconds to wait for the brokers.
    """

    def __init__(self, client: Client, clock: Clock, stall_timeout: float, answer_timeout: float) -> None:
        self._client = client
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._answer_timeout = answer_timeout
        self.interval = stall_timeout / LOOKS

    async def stalled(self, fetcher: Fetcher) -> list[TopicPartition]:
        """Partitions whose reader has read everything fetched, and that have had more for the stall timeout."""
        now = self._clock.monotonic()
        still = {
            target: position
            for target, (position, moved_at) in fetcher.waiting().items()
            if now - moved_at >= self._stall_timeout
        }
        if not still:
            return []
        try:
            async with asyncio.timeout(self._answer_timeout):
                ends = await list_offsets(self._client, still, LATEST)
        except (TimeoutError, LogError):
            return []
        behind = [target for target, position in still.items() if ends[target] > position]
        # What arrived while we asked has moved on.
        return [target for target in behind if fetcher.positions().get(target, (-1, 0))[0] == still[target]]

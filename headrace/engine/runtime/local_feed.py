"""Gives an agent what comes through an in-memory channel, or any async iterator."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import structlog
from faust.types import EventT

from headrace.engine.clock import Clock
from headrace.engine.runtime.batches import FIRST_BACKOFF, MAX_TRIES
from headrace.engine.runtime.events import Unit

log_ = structlog.get_logger()


class _Offered(Unit):
    """A unit that remembers how often it was offered."""

    tries = 0


class LocalFeed:
    """Values that are in no log, as units.

    What such a unit sends is sent at once. A unit that the agent raises on is offered 3 times like any other; then it
    is logged and gone: there is nothing to read it from again.

    Args:
        source: an iterated channel, or an async iterator.
    """

    def __init__(self, source: AsyncIterator[Any], clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._again: deque[Unit] = deque()

    async def next(self) -> Unit:
        """The next value, in a unit of its own."""
        if self._again:
            return self._again.popleft()
        value = await anext(self._source)
        await self._clock.sleep(0)
        if isinstance(value, EventT):
            return _Offered([value], [value.value])
        return _Offered([], [value])

    async def take(self, most: int, within: float | None) -> Unit:
        """Up to `most` values; fewer when no more come within `within` seconds of the first."""
        unit = await self.next()
        deadline = self._clock.monotonic() + (within or 0)
        while len(unit.values) < most and not self._again:
            try:
                async with asyncio.timeout(max(0, deadline - self._clock.monotonic())):
                    more = await self.next()
            except TimeoutError:
                break
            unit.events += more.events
            unit.values += more.values
        return unit

    async def failed(self, unit: Unit, error: Exception) -> None:
        """The agent raised on `unit`: wait, and offer it again, at most 3 times in all."""
        assert isinstance(unit, _Offered)
        unit.tries += 1
        if unit.tries < MAX_TRIES:
            log_.warning("agent failed, event offered again", tries=unit.tries, error=repr(error))
            await self._clock.sleep(FIRST_BACKOFF * 2 ** (unit.tries - 1))
            self._again.append(unit)
        else:
            log_.error("event of a channel given up", values=len(unit.values), error=repr(error))

    def give_back(self, unit: Unit) -> None:
        """The agent was cancelled: offer the same to whoever comes next."""
        self._again.append(unit)

    def close(self) -> None:
        """Nothing waits for the values that are left."""

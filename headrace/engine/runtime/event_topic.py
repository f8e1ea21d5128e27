"""Faust's topic, fed from deliveries."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any, cast

import faust
from faust.types import AppT, EventT
from faust.types.tuples import RecordMetadata
from mode import Seconds, want_seconds

from headrace.engine.errors import ConfigError
from headrace.engine.runtime.event_feed import EventFeed
from headrace.engine.runtime.events import current_unit

_numbers = itertools.count()


class EventTopic(faust.Topic):
    """A topic that is read event by event; what `App.topic` makes."""

    _feed: EventFeed | None = None
    #: Which agent reads; what is read outside of any is named after its topic.
    reader: str | None = None

    def __init__(self, app: AppT, **options: Any) -> None:
        if options.get("pattern") is not None:
            raise ConfigError(f"topics by pattern ({options['pattern']!r}) are not read here; name them")
        super().__init__(app, **options)

    @property
    def feed(self) -> EventFeed:
        """The records for whoever iterates over this."""
        if self._feed is None:
            app = cast(Any, self.app)
            agent = self.reader or str(self)
            name = f"{agent}#{next(_numbers):06}"
            self._feed = EventFeed(name, agent, self, app.record_log, app.clock, app.metrics)
        return self._feed

    async def send(self, *, force: bool = False, **options: Any) -> Awaitable[RecordMetadata]:
        """Send a record; staged with the event that the agent has in hand, unless `force` says at once."""
        if not force:
            return await super().send(**options)
        in_hand = current_unit.set(None)
        try:
            return await super().send(force=True, **options)
        finally:
            current_unit.reset(in_hand)

    async def __anext__(self) -> EventT[Any]:
        """The next event, to be acknowledged by hand: `async with event` or `event.ack()`."""
        unit = await self.feed.next()
        unit.leave(acknowledge=False)
        return unit.events[0]

    async def get(self, *, timeout: Seconds | None = None) -> EventT[Any]:
        async with asyncio.timeout(want_seconds(timeout) if timeout else None):
            return await self.__anext__()

    async def put(self, event: EventT[Any]) -> None:
        raise NotImplementedError("an event cannot be put before the readers of a topic; send it, or use app.channel()")

    async def throw(self, exc: BaseException) -> None:
        self._throw(exc)

    def _throw(self, exc: BaseException) -> None:
        self.feed.throw(exc)

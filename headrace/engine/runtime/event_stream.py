"""Faust's stream, fed from deliveries: an event counts as done when the agent asks for the next."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import faust
from faust.exceptions import Skip
from faust.streams import maybe_forward
from faust.types import EventT, StreamT
from mode import Seconds, want_seconds
from mode.utils.futures import maybe_async

from headrace.engine.runtime.event_feed import EventFeed
from headrace.engine.runtime.event_topic import EventTopic
from headrace.engine.runtime.events import Unit, current_unit
from headrace.engine.runtime.local_feed import LocalFeed


class EventStream(faust.Stream):  # type: ignore[type-arg]
    """A stream whose events are done when the next is asked for.

    Faust's own counts cancelled work, and an event on which its agent raised, as done. Processors (`filter`,
    `group_by`, `through`, `echo`) run as part of the event: one that raises has it offered again.
    """

    def __init__(self, channel: AsyncIterator[Any], **options: Any) -> None:
        super().__init__(channel, **options)
        #: Set by the agent that loops over it: it then says what becomes of an event when the loop ends.
        self.owned = False
        #: StopAsyncIteration came: the agent is to end.
        self.ended = False
        self._unit: Unit | None = None
        self._timed: list[tuple[EventT[Any], Any]] = []
        self._repeated = False
        self._first_processors = list(self._processors)
        if isinstance(channel, EventTopic):
            channel.reader = channel.reader or self.prefix or None
            self._feed: EventFeed | LocalFeed = channel.feed
        else:
            self._feed = LocalFeed(channel, cast(Any, self.app).clock)

    def clone(self, **options: Any) -> StreamT[Any]:
        channel = options.get("channel")
        if isinstance(channel, EventTopic) and isinstance(self.channel, EventTopic):
            channel.reader = channel.reader or self.channel.reader
        stream = cast(EventStream, super().clone(**options))
        stream.owned = self.owned
        return stream

    # -- for the agent

    def begin(self) -> None:
        """An agent starts to loop."""
        self.owned = True
        self.ended = False
        self._first_processors = list(self._processors)

    def begin_again(self) -> None:
        """The agent's function runs anew: what it says again about its stream must not count twice."""
        self._repeated = True
        if self._next is None:
            self._processors[:] = self._first_processors
        else:
            cast(EventStream, self._next).begin_again()

    async def failed(self, error: Exception) -> bool:
        """The agent raised; False if it had no event in hand."""
        unit = self._take_out()
        if unit is not None:
            await self._feed.failed(cast(Any, unit), error)
        return unit is not None

    def give_back(self) -> None:
        """The agent was cancelled, with or without an event in hand."""
        unit = self._take_out()
        if unit is not None:
            self._feed.give_back(cast(Any, unit))

    # -- Faust's interface

    def __aiter__(self) -> AsyncIterator[Any]:
        self._finalized = True
        return _Values(self) if self.owned else self._iterate()

    async def events(self) -> AsyncGenerator[EventT[Any], None]:
        async for _ in self:
            if self.current_event is not None:
                yield self.current_event

    async def take(self, max_: int, within: Seconds) -> AsyncGenerator[Sequence[Any], None]:
        """Up to `max_` values of one partition; see `EventFeed.take` for `within`."""
        async for unit in self._units(max_, within):
            yield unit.values

    async def take_events(self, max_: int, within: Seconds) -> AsyncGenerator[Sequence[EventT[Any]], None]:
        """As `take`, but events."""
        async for unit in self._units(max_, within):
            yield unit.events

    async def take_with_timestamp(
        self, max_: int, within: Seconds, timestamp_field_name: str
    ) -> AsyncGenerator[Sequence[Any], None]:
        """As `take`; values that are dictionaries get the append time, seconds since 1970 UTC."""
        async for unit in self._units(max_, within):
            for event, value in zip(unit.events, unit.values, strict=True):
                if isinstance(value, dict):
                    value[timestamp_field_name] = event.message.timestamp
            yield unit.values

    async def noack_take(self, max_: int, within: Seconds) -> AsyncGenerator[Sequence[EventT[Any]], None]:
        """As `take_events`, to be acknowledged by hand."""
        self.enable_acks = False
        async for unit in self._units(max_, within):
            yield unit.events

    def add_processor(self, processor: Any) -> None:
        if not (self._repeated and self._next is not None):
            super().add_processor(processor)

    def echo(self, *channels: Any) -> StreamT[Any]:
        # Faust's does not look whether its sends went well.
        targets = [self.derive_topic(each) if isinstance(each, str) else each for each in channels]

        async def echoing(value: Any) -> Any:
            for channel in targets:
                await maybe_forward(value, channel)
            return value

        self.add_processor(echoing)
        return self

    def noack(self) -> StreamT[Any]:
        return self._next if self._repeated and self._next is not None else super().noack()

    def through(self, channel: Any) -> StreamT[Any]:
        return self._next if self._repeated and self._next is not None else super().through(channel)

    def group_by(self, key: Any, **options: Any) -> StreamT[Any]:
        return self._next if self._repeated and self._next is not None else super().group_by(key, **options)

    async def _format_key(self, key: Any, value: Any) -> Any:
        # Faust's logs an error in the key function and skips the event.
        if isinstance(key, faust.models.FieldDescriptor):
            return key.getattr(value)
        return await maybe_async(key(value))

    # -- one unit after the other

    async def next_value(self) -> Any:
        """The next value; the one before is done."""
        return (await self._next_unit(1, None)).values[0]

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        """For streams outside of agents: nobody else notices when the loop is left."""
        try:
            async for value in _Values(self):
                yield value
        finally:
            await self._left()

    async def _units(self, most: int, within: Seconds) -> AsyncGenerator[Unit, None]:
        self._finalized = True
        seconds = want_seconds(within) if within else None
        try:
            while True:
                try:
                    unit = await self._next_unit(most, seconds)
                except StopAsyncIteration:
                    return
                yield unit
        finally:
            if not self.owned:
                await self._left()

    async def _next_unit(self, most: int, within: float | None) -> Unit:
        if not self.started:
            await self.maybe_start()
        self._finish()
        while True:
            try:
                unit = await (self._feed.next() if most == 1 else self._feed.take(most, within))
            except StopAsyncIteration:
                self.ended = True
                raise
            self._take_in(unit)
            try:
                await self._process(unit)
            except Exception as error:
                await self.failed(error)
            else:
                if unit.values:
                    return unit
                self._finish(skipped=True)

    async def _process(self, unit: Unit) -> None:
        """Run the processors over every value of the unit; values that they skip are out."""
        if not self._processors and self.join_strategy is None:
            self.events_total += len(unit.values)
            return
        values, events = [], []
        for place, original in enumerate(unit.values):
            event = unit.events[place] if unit.events else None
            self._set_current_event(event)
            value = original
            try:
                for processor in self._processors:
                    value = await maybe_async(processor(value))
                values.append(await self.on_merge(value))
            except Skip:
                continue
            if event is not None:
                events.append(event)
        unit.values, unit.events = values, events or unit.events
        self.events_total += len(values)

    def _take_in(self, unit: Unit) -> None:
        self._unit = unit
        current_unit.set(unit)
        self._set_current_event(unit.events[-1] if unit.events else None)
        begin = self._on_stream_event_in
        self._timed = [(event, begin(event.message.tp, event.message.offset, self, event)) for event in unit.events]

    def _take_out(self) -> Unit | None:
        unit, self._unit = self._unit, None
        current_unit.set(None)
        if unit is not None:
            self.current_event = None
            for event, state in self._timed:
                self._on_stream_event_out(event.message.tp, event.message.offset, self, event, state)
        return unit

    def _finish(self, skipped: bool = False) -> None:
        unit = self._take_out()
        if unit is not None:
            unit.leave(acknowledge=self.enable_acks or skipped)

    async def _left(self) -> None:
        """The loop was left. At a stop what is in hand is not done; otherwise nobody wants it, or more of it."""
        app = cast(Any, self.app)
        if app.should_stop or app.crashed:
            self.give_back()
            return
        self._finish()
        if isinstance(self.channel, EventTopic):
            app.topics.discard(self.channel)
            self._feed.close()
        await self.stop()
        self.service_reset()


class _Values:
    """What `async for` loops over."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    def __aiter__(self) -> "_Values":
        return self

    async def __anext__(self) -> Any:
        return await self._stream.next_value()

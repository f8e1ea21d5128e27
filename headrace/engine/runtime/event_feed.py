"""Gives an agent that goes event by event the records of its deliveries, and again when it raises."""

import asyncio
from collections import deque
from typing import Any

import structlog
from faust.exceptions import DecodeError
from faust.types import ChannelT, EventT
from faust.types.tuples import TP

from headrace.engine.batch import Send
from headrace.engine.clock import Clock
from headrace.engine.dead_letters import dead_letter_records
from headrace.engine.errors import AgentStopped, BadRecord
from headrace.engine.log import Log
from headrace.engine.metrics import Metrics
from headrace.engine.runtime.batches import FIRST_BACKOFF, MAX_CONSECUTIVE_FAILURES, MAX_TRIES
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.events import EventMessage, Flattened, LogUnit, Part
from headrace.schemas import topics

#: Seconds after which a `take` that waits for more looks whether the app stops.
LOOK_AROUND = 0.2
#: Units after which others run, if the agent itself never waits for anything.
BREATHER = 16

log_ = structlog.get_logger()


class EventFeed:
    """The records that one reader of a topic gets, as units.

    A record that cannot be decoded is dead-lettered. One that the agent raises on is offered 3 times, then
    dead-lettered; a `take` is first cut in halves, until the culprit stands alone. A hundred such in a row stop the
    partition. Where `telemetry.dlq` does not exist, dead letters are logged and counted only.

    Args:
        name: of the reader; unique in the app.
        agent: on whose behalf, for dead letters.
        channel: decodes records.
    """

    def __init__(self, name: str, agent: str, channel: ChannelT[Any], log: Log, clock: Clock, metrics: Metrics) -> None:
        self.name = name
        self.agent = agent
        #: Seconds from handing over a delivery to its end, per record, averaged; 0 before the first.
        self.pace = 0.0
        #: Most events that were asked for at once.
        self.most = 1
        self._channel = channel
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._deliveries: deque[Flattened] = deque()
        self._again: deque[Part] = deque()
        self._errors: deque[BaseException] = deque()
        self._changed = asyncio.Event()
        self._failures = 0
        self._handed_out = 0

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery."""
        began, count = self._clock.monotonic(), len(delivery.fetched.records)
        self._deliveries.append(Flattened(delivery, self.name, began))
        delivery.on_finished(lambda: self._note_pace(self._clock.monotonic() - began, count))
        self._changed.set()

    def throw(self, error: BaseException) -> None:
        """Raise `error` where the next event is waited for; StopAsyncIteration is how Faust ends an actor."""
        self._errors.append(error)
        self._changed.set()

    async def next(self) -> LogUnit:
        """The next event, in a unit of its own."""
        return await self.take(1, None)

    async def take(self, most: int, within: float | None) -> LogUnit:
        """Up to `most` events of one partition.

        Fewer when `within` seconds have passed since the first of them was appended, or came here; None waits for no
        more. A partition hands out nothing new before everything it handed out is finished, so waiting longer is of no
        use.
        """
        self.most = max(self.most, most)
        self._handed_out += 1
        if self._handed_out % BREATHER == 0:
            await self._clock.sleep(0)
        while True:
            if self._errors:
                raise self._errors.popleft()
            part, wait = self._due(most, within)
            if part is None:
                await self._wait_changed(wait)
            elif (unit := await self._decoded(part)) is not None:
                return unit

    async def failed(self, unit: LogUnit, error: Exception) -> None:
        """The agent raised on `unit`: take back what it did, wait, and arrange what is offered next."""
        part = unit.part
        unit.drop()
        if unit.delivery.over:
            return
        if isinstance(error, BadRecord) and len(part.rows) == 1:
            self._isolate(part, 0, error.reason, "bad_record")
        elif isinstance(error, BadRecord) and 0 <= error.index < len(part.rows) == len(unit.events):
            self._isolate(part, error.index, error.reason, "bad_record")
        elif part.tries < MAX_TRIES - 1:
            part.tries += 1
            self._metrics.count("headrace_retries_total", agent=self.agent)
            log_.warning("agent failed, event offered again", agent=self.agent, tries=part.tries, error=repr(error))
            await self._clock.sleep(FIRST_BACKOFF * 2 ** (part.tries - 1))
            self._offer(part)
        elif len(part.rows) > 1:
            middle = len(part.rows) // 2
            self._metrics.count("headrace_retries_total", 2, agent=self.agent)
            for rows in (part.rows[middle:], part.rows[:middle]):
                self._offer(Part(part.flattened, rows, MAX_TRIES - 1))
        else:
            self._failures += 1
            if self._failures >= MAX_CONSECUTIVE_FAILURES:
                self._give_up(part, error)
            else:
                self._isolate(part, 0, f"{type(error).__name__}: {error}", "agent_error")

    def give_back(self, unit: LogUnit) -> None:
        """The agent was cancelled: take back what it did, and offer the same events to whoever comes next."""
        unit.drop()
        self._offer(unit.part)

    def close(self) -> None:
        """The reader wants no more: it is done with all that it was not given."""
        for part in self._again:
            part.flattened.done(part.rows, [])
        for flattened in self._deliveries:
            if flattened.left:
                flattened.done(flattened.next(flattened.left, 0), [])
        self._again.clear()
        self._deliveries.clear()

    # -- what comes next

    def _due(self, most: int, within: float | None) -> tuple[Part | None, float | None]:
        """What to hand out now; if nothing, the seconds after which to look again, unless something changes first."""
        while self._again:
            part = self._again.popleft()
            if not part.flattened.delivery.over:
                return part, 0.0
        wait = None
        now = self._clock.monotonic()
        for flattened in list(self._deliveries):
            if flattened.delivery.over or not flattened.left:
                self._deliveries.remove(flattened)
                continue
            if within and flattened.left < most and not self._channel.app.should_stop:
                age = self._clock.real_seconds(flattened.age_ms(self._clock.now_ms()))
                rest = within - max(age, now - flattened.since)
                if rest > 0:
                    wait = min(wait or LOOK_AROUND, rest)
                    continue
            return Part(flattened, flattened.next(most, now)), 0.0
        return None, wait

    async def _wait_changed(self, wait: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _offer(self, part: Part) -> None:
        """Offer this before anything else."""
        self._again.appendleft(part)
        self._changed.set()

    # -- decoding

    async def _decoded(self, part: Part) -> LogUnit | None:
        """A unit of these rows but those that cannot be decoded; None if that leaves none."""
        unit = LogUnit(part, self._done)
        rows = []
        for row in part.rows:
            message = self._message(part.flattened, row, unit)
            try:
                event: EventT[Any] = await self._channel.decode(message, propagate=True)
            except DecodeError as error:
                await self._channel.on_decode_error(error, message)
                self._dead_letter(part.flattened, row, f"{type(error).__name__}: {error}", "bad_record")
            else:
                unit.events.append(event)
                unit.values.append(event.value)
                rows.append(row)
        if len(rows) < len(part.rows):
            part.rows = rows
        return unit if rows else None

    def _message(self, flattened: Flattened, row: int, unit: LogUnit) -> EventMessage:
        fetched = flattened.fetched
        records = fetched.records
        message = EventMessage(
            fetched.target.topic,
            fetched.target.partition,
            fetched.offset(row),
            records.timestamps[row] / 1000,
            0,
            records[row].headers if records.headers else {},
            records.keys[row],
            records.values[row],
            None,
            tp=TP(*fetched.target),
        )
        message.unit = unit
        return message

    def _note_pace(self, seconds: float, count: int) -> None:
        pace = seconds / count
        self.pace = 0.7 * self.pace + 0.3 * pace if self.pace else pace
        self._metrics.count("headrace_agent_records_total", count, agent=self.agent)
        self._metrics.observe("headrace_agent_batch_seconds", seconds, agent=self.agent)

    # -- what becomes of it

    def _done(self, part: Part, sends: list[Send]) -> None:
        self._failures = 0
        part.flattened.done(part.rows, sends)

    def _isolate(self, part: Part, index: int, reason: str, kind: str) -> None:
        """Dead-letter one row of `part` and offer what is around it."""
        self._dead_letter(part.flattened, part.rows[index], reason, kind)
        for rows in (part.rows[index + 1 :], part.rows[:index]):
            if rows:
                self._offer(Part(part.flattened, rows))

    def _dead_letter(self, flattened: Flattened, row: int, reason: str, kind: str) -> None:
        fetched = flattened.fetched
        topic, partition = fetched.target
        offset = fetched.offset(row)
        kept = self._keeps_dead_letters()
        sends = []
        if kept:
            records, counted = fetched.records.take([row]), topic == topics.RAW
            sends.append(dead_letter_records(topic, partition, [offset], records, [reason], self.agent, counted))
        self._metrics.count("headrace_dead_letters_total", agent=self.agent, reason=kind)
        log_.warning(
            "record dead-lettered" if kept else "record given up: there is no topic for dead letters",
            agent=self.agent,
            topic=topic,
            partition=partition,
            offset=offset,
            reason=reason,
        )
        flattened.done([row], sends)

    def _keeps_dead_letters(self) -> bool:
        try:
            return self._log.partitions(topics.DEAD_LETTERS) > 0
        except KeyError:
            return False

    def _give_up(self, part: Part, error: Exception) -> None:
        target = part.flattened.fetched.target
        stopped = AgentStopped(
            f"agent {self.agent} failed on {self._failures} events in a row of {target.topic}[{target.partition}], "
            f"last with {error!r}; the partition stops. Repair the agent and start again: nothing was lost"
        )
        stopped.__cause__ = error
        self._failures = 0
        part.flattened.delivery.stopped(stopped)

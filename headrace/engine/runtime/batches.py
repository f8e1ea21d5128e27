"""What an agent loops over: its batches, each offered again when the agent raises, until the culprit stands alone."""

import asyncio
from collections import deque
from dataclasses import dataclass

import structlog

from headrace.engine.batch import Batch, Send, Shared
from headrace.engine.clock import Clock
from headrace.engine.context import current_batch
from headrace.engine.dead_letters import dead_letters
from headrace.engine.errors import AgentStopped, BadRecord, CutBatch
from headrace.engine.metrics import Metrics
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.lanes import Lanes
from headrace.engine.runtime.together import TogetherFailed

#: How often a batch is offered again before it is cut in halves, and the wait before the n-th time: 2^n × 100 ms.
MAX_TRIES = 3
FIRST_BACKOFF = 0.2
#: Records in a row that an agent may fail on before its partition stops: by then the agent is broken, not the data.
MAX_CONSECUTIVE_FAILURES = 100

log = structlog.get_logger()


@dataclass(slots=True)
class _Part:
    """Records `start` to `stop` of the delivery, offered `tries` times so far; `alone`: not with other partitions."""

    start: int
    stop: int
    tries: int = 0
    alone: bool = False


class Batches:
    """The batches of one agent, as the async iterator that its function loops over.

    Asking for the next batch finishes the last one. A function that raises leaves it unfinished; `failed` then decides
    what is offered next.

    Args:
        joint: the function itself waits for its turn, together with that of other partitions (`Together`).
    """

    def __init__(self, agent: str, clock: Clock, metrics: Metrics, lanes: Lanes, *, joint: bool = False) -> None:
        self._joint = joint
        self._agent = agent
        self._clock = clock
        self._metrics = metrics
        self._lanes = lanes
        self._given = 0.0
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._delivery: Delivery | None = None
        self._parts: deque[_Part] = deque()
        self._part: _Part | None = None
        self._batch: Batch | None = None
        self._sends: list[Send] = []
        self._failures = 0

    def put(self, delivery: Delivery) -> None:
        """Hand over a delivery; batches of it come out of the iterator."""
        self._queue.put_nowait(delivery)

    def __aiter__(self) -> "Batches":
        return self

    async def __anext__(self) -> Batch:
        self._finish()
        self._forget_over()
        while not self._parts:
            self._delivery = await self._queue.get()
            self._sends = []
            self._parts.append(_Part(0, len(self._delivery.fetched.records)))
            if not self._joint:
                await self._lanes.wait_turn(self._delivery.fetched.target)
            self._forget_over()
        self._part = self._parts.popleft()
        self._batch = self._view(self._part)
        current_batch.set(self._batch)
        self._given = self._clock.monotonic()
        return self._batch

    @property
    def alone(self) -> bool:
        """Whether the batch last given is not to be worked on together with those of other partitions."""
        part, delivery = self._part, self._delivery
        return part is None or part.alone or part.tries > 0 or delivery is None or delivery.idle is not None

    async def failed(self, error: Exception) -> None:
        """The agent raised on the batch it had: wait, and arrange what it is offered next."""
        part, delivery = self._part, self._delivery
        if part is not None:
            self._observe()
        current_batch.set(None)
        self._batch = self._part = None
        if part is None or delivery is None:
            raise error  # raised outside any batch: nothing to offer again
        if delivery.over:
            return
        if isinstance(error, TogetherFailed):
            part.alone = True
            self._parts.appendleft(part)
        elif isinstance(error, CutBatch) and error.is_within(part.stop - part.start):
            self._offer_apart(part, part.start + error.row, part.tries)
        elif isinstance(error, BadRecord) and 0 <= error.index < part.stop - part.start:
            self._isolate(delivery, part, part.start + error.index, error.reason, "bad_record")
        elif part.tries < MAX_TRIES - 1:
            part.tries += 1
            self._parts.appendleft(part)
            self._metrics.count("headrace_retries_total", agent=self._agent)
            log.warning("agent failed, batch offered again", agent=self._agent, tries=part.tries, error=repr(error))
            await self._clock.sleep(FIRST_BACKOFF * 2 ** (part.tries - 1))
        elif part.stop - part.start > 1:
            # A half has had its tries as part of the whole: one more each, until one record is left.
            middle = (part.start + part.stop) // 2
            self._metrics.count("headrace_retries_total", 2, agent=self._agent)
            self._offer_apart(part, middle, MAX_TRIES - 1)
        elif delivery.idle is not None:
            self._give_up(delivery, error, "failed when time passed on")
        else:
            self._failures += 1
            if self._failures >= MAX_CONSECUTIVE_FAILURES:
                self._give_up(delivery, error, f"failed on {self._failures} records in a row of")
            else:
                self._isolate(delivery, part, part.start, f"{type(error).__name__}: {error}", "agent_error")

    def _finish(self) -> None:
        if self._batch is None or self._delivery is None:
            return
        batch, self._batch, self._part = self._batch, None, None
        current_batch.set(None)
        self._observe()
        if self._delivery.over:
            return
        batch.finish()
        self._sends += batch.sends
        self._metrics.count("headrace_agent_records_total", len(batch), agent=self._agent)
        if batch.dead_letters:
            self._sends += dead_letters(batch, self._agent)
            self._count_dead(len(batch.dead_letters), "bad_record")
        self._failures = 0
        if not self._parts:
            self._delivery.finished(self._agent, self._sends)
            self._delivery = None

    def _forget_over(self) -> None:
        if self._delivery is not None and self._delivery.over:
            self._delivery = None
            self._parts.clear()

    def _observe(self) -> None:
        """The agent has the last batch no more."""
        seconds = self._clock.monotonic() - self._given
        self._metrics.observe("headrace_agent_batch_seconds", seconds, agent=self._agent)

    def _count_dead(self, count: int, reason: str) -> None:
        self._metrics.count("headrace_dead_letters_total", count, agent=self._agent, reason=reason)

    def _isolate(self, delivery: Delivery, part: _Part, index: int, reason: str, kind: str) -> None:
        """Dead-letter record `index` alone and offer what is around it."""
        log.warning("record dead-lettered", agent=self._agent, offset=delivery.fetched.offset(index), reason=reason)
        culprit = self._view(_Part(index, index + 1))
        culprit.dead_letter(0, reason)
        self._sends += dead_letters(culprit, self._agent)
        self._metrics.count("headrace_agent_records_total", agent=self._agent)
        self._count_dead(1, kind)
        rest = [_Part(part.start, index), _Part(index + 1, part.stop)]
        self._parts.extendleft(reversed([piece for piece in rest if piece.start < piece.stop]))
        if not self._parts:
            delivery.finished(self._agent, self._sends)
            self._delivery = None

    def _offer_apart(self, part: _Part, row: int, tries: int) -> None:
        """Offer what is before record `row` of the delivery, then what is from it on."""
        self._parts.extendleft([_Part(row, part.stop, tries), _Part(part.start, row, tries)])

    def _give_up(self, delivery: Delivery, error: Exception, what: str) -> None:
        target = delivery.fetched.target
        stopped = AgentStopped(
            f"agent {self._agent} {what} {target.topic}[{target.partition}], "
            f"last with {error!r}; the partition stops. Repair the agent and start again: nothing was lost"
        )
        stopped.__cause__ = error
        self._parts.clear()
        self._failures = 0
        self._delivery = None
        delivery.stopped(stopped)

    def _view(self, part: _Part) -> Batch:
        assert self._delivery is not None
        fetched = self._delivery.fetched
        if part.start == 0 and part.stop == len(fetched.records):
            return Batch(self._delivery.shared, self._delivery.idle)
        return Batch(Shared(fetched.part(part.start, part.stop)))

"""What an agent that goes event by event has in hand: the events, and what it wants to happen when it is done."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from faust.types import EventT
from faust.types.tuples import Message

from headrace.engine.batch import Send
from headrace.engine.runtime.delivery import Delivery


class TableWrite(Protocol):
    """A change that an event made to a table: it can be taken back, or kept."""

    def undo(self) -> None:
        """Give the key the value that it had."""
        ...

    def keep(self) -> None:
        """The event is done."""
        ...


class State(Enum):
    """OPEN ─▶ FINISHED, or OPEN ─▶ DROPPED."""

    OPEN = "open"
    FINISHED = "finished"
    DROPPED = "dropped"


class Unit:
    """Events that an agent has in hand: one, or those of one `take`, in log order.

    What the agent sends and the tables it changes meanwhile is staged here. It takes effect when the agent is done with
    all of the events, or not at all. This class is for values that are in no log: it stages nothing.

    Args:
        events: as Faust knows them; empty for a value that came through no channel.
        values: what the stream yields for them.
    """

    def __init__(self, events: list[EventT[Any]], values: list[Any]) -> None:
        self.events = events
        self.values = values
        self.state = State.OPEN

    def stage(self, send: Send) -> bool:
        """Keep `send` until the unit is finished. False when it does not stage: then it is to be sent at once."""
        return False

    def leave(self, *, acknowledge: bool) -> None:
        """The agent went on to its next event; `acknowledge` says that it is done with these by that."""
        self.state = State.FINISHED

    def drop(self) -> None:
        """The agent failed, or was stopped: nothing of this happened."""
        if self.state is State.OPEN:
            self.state = State.DROPPED


class Flattened:
    """One delivery, handed out to one reader record by record. The reader is done with it when every record is done.

    Args:
        reader: one of the agents of the delivery.
        now: monotonic, seconds.
    """

    def __init__(self, delivery: Delivery, reader: str, now: float) -> None:
        self.delivery = delivery
        self.fetched = delivery.fetched
        self.since = now
        self._reader = reader
        self._next = 0
        self._open = len(self.fetched.records)
        self._sends: list[tuple[int, list[Send]]] = []

    @property
    def left(self) -> int:
        """Records not handed out yet."""
        return len(self.fetched.records) - self._next

    def age_ms(self, now_ms: int) -> int:
        """How long ago the next record was appended, ms."""
        return now_ms - self.fetched.records.timestamps[self._next]

    def next(self, most: int, now: float) -> range:
        """The rows to hand out next."""
        rows = range(self._next, min(self._next + most, len(self.fetched.records)))
        self._next, self.since = rows.stop, now
        return rows

    def done(self, rows: Sequence[int], sends: list[Send]) -> None:
        """These records are finished, with what shall be sent for them."""
        if sends:
            self._sends.append((rows[0], sends))
        self._open -= len(rows)
        if not self._open:
            # By row: the order does not depend on which of several actors was faster.
            self._sends.sort(key=lambda each: each[0])
            self.delivery.finished(self._reader, [send for _, sends in self._sends for send in sends])


@dataclass(slots=True)
class Part:
    """Rows of a delivery that are offered together; `tries` times so far."""

    flattened: Flattened
    rows: Sequence[int]
    tries: int = 0


class LogUnit(Unit):
    """Events from the log.

    Args:
        part: where they are from.
        on_finished: called with what was sent when the agent is done.
    """

    def __init__(self, part: Part, on_finished: Callable[[Part, list[Send]], None]) -> None:
        super().__init__([], [])
        self.part = part
        self.delivery = part.flattened.delivery
        self._on_finished = on_finished
        self._sends: list[Send] = []
        self._writes: list[TableWrite] = []
        self._left = False

    def stage(self, send: Send) -> bool:
        if self.state is State.OPEN:
            self._sends.append(send)
        return self.state is not State.FINISHED

    def write(self, write: TableWrite) -> None:
        """Keep a table's change until the unit is finished."""
        self._writes.append(write)

    def leave(self, *, acknowledge: bool) -> None:
        self._left = True
        if acknowledge:
            self._finish()
        else:
            self.acknowledged()

    def acknowledged(self) -> bool:
        """An event was acknowledged by hand: in a stream without acks that finishes it, once the agent went on."""
        if self._left and self.state is State.OPEN and all(event.message.acked for event in self.events):
            self._finish()
        return self.state is State.FINISHED

    def drop(self) -> None:
        if self.state is State.OPEN:
            self.state = State.DROPPED
            # Tables of a partition that was taken away are restored as a whole.
            for write in reversed(self._writes) if not self.delivery.over else ():
                write.undo()

    def _finish(self) -> None:
        if self.delivery.over:
            self.drop()
            return
        self.state = State.FINISHED
        for write in self._writes:
            write.keep()
        self._on_finished(self.part, self._sends)


class EventMessage(Message):
    """Faust's message of one record. `event.ack()` ends up here."""

    __slots__ = ("unit",)
    unit: LogUnit

    def ack(self, consumer: Any, n: int = 1) -> bool:
        """Note that the event is done; what follows from it is up to the unit."""
        self.acked = True
        return self.unit.acknowledged()


#: The unit that the running task has in hand.
current_unit: ContextVar[Unit | None] = ContextVar("headrace_unit", default=None)

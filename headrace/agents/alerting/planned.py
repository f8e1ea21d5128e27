"""What watchers of events have in common: a plan per partition, and batches that are gone through in order."""

from collections.abc import Callable
from itertools import accumulate
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from headrace.engine.batch import Batch
from headrace.schemas.text import why_invalid
from headrace.tables.keyvalue import KeyValue
from headrace.tables.schema import K, V

Plan = TypeVar("Plan")
Event = TypeVar("Event", bound=BaseModel)


class PlannedTable(KeyValue[K, V], Generic[K, V, Plan]):
    """A table with what follows from it and the rules, by partition: not in the changelog, and gone with the partition.

    A watcher takes a plan out until its batch is finished: should that fail, it is made anew from what is committed.
    """

    def __init__(self, name: str, encode: Callable[[V], bytes], decode: Callable[[bytes], V], *parts: str) -> None:
        super().__init__(name, encode, decode, parts)
        self.plans: dict[int, Plan] = {}

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.Stored`."""
        super().restored(partition)
        self.plans.pop(partition, None)

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        super().forget(partition)
        self.plans.pop(partition, None)


def go_through(
    batch: Batch,
    model: type[Event],
    now: float,
    on_time: Callable[[int, float], None],
    take: Callable[[int, Event, int], None],
) -> float:
    """Go through the events of a batch in order; before each, time passes. What is none is dead-lettered.

    Args:
        now: append time reached before, ms.
        on_time: gets the place of the record that comes next, and the append time reached.
        take: gets place, event and append time.
    Returns:
        the append time reached.
    """
    for row, reached in enumerate(list(accumulate(batch.records.timestamps, max, initial=now))[1:]):
        now = reached
        on_time(row, now)
        try:
            event = model.model_validate_json(batch.records.values[row] or b"")
        except ValidationError as error:
            batch.dead_letter(row, f"no {model.__name__.lower()}: {why_invalid(error)}")
            continue
        take(row, event, batch.records.timestamps[row])
    return now

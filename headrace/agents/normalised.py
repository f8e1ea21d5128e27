"""What ingest knows of messages of one device type once their payloads are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.agents.extras import Extras
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Floats, Ints
from headrace.tables.seen_block import Bools


@dataclass(slots=True)
class Normalised:
    """Messages that are right, as columns of equal length n, in the units of their device type.

    Args:
        rows: (n,) int64, their places among those that were read; ascending.
        times: (n,) int64, event time, ms since 1970 UTC.
        measures: by name, (n,) float64; NaN where a message has none.
        extras: per message; None for "nothing, in all of them".
        untimed: (n,) bool, which brought no event time and have that of their append; None for "none of them".
    """

    rows: Ints
    times: Ints
    measures: dict[str, Floats]
    extras: Extras | None
    untimed: Bools | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, chosen: Bools) -> "Normalised":
        """The chosen messages alone."""
        if chosen.all():
            return self
        return Normalised(
            self.rows[chosen],
            self.times[chosen],
            {name: column[chosen] for name, column in self.measures.items()},
            None if self.extras is None else [self.extras[place] for place in chosen.nonzero()[0].tolist()],
            None if self.untimed is None else self.untimed[chosen],
        )

    def column(self, name: str) -> Floats:
        """The measure of each message; all NaN if none has it."""
        column = self.measures.get(name)
        return np.full(len(self), np.nan) if column is None else column


def join(device_type: DeviceType, parts: Sequence[Normalised]) -> Normalised:
    """All parts as one, by place; of a type whose messages bring their times, as others are not read in parts."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    names = [name for name in device_type.measures if any(name in part.measures for part in parts)]
    extras: Extras = [extra for part in parts for extra in part.extras or [None] * len(part)]
    return Normalised(
        rows[order],
        np.concatenate([part.times for part in parts])[order],
        {name: np.concatenate([part.column(name) for part in parts])[order] for name in names},
        [extras[place] for place in order.tolist()] if any(extras) else None,
    )

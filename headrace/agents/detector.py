"""What a detector of single series is: a step that looks at one reading of many series at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.engine.errors import ConfigError
from headrace.schemas.readings import Floats, Ints
from headrace.tables.grouping import Flags


@dataclass(frozen=True, slots=True)
class Moment:
    """The next reading of each of k devices, with m measures, and what is usual for them.

    Where a device did not send a measure, `present` is False and the numbers mean nothing; whatever a detector
    computes there is thrown away.

    Args:
        times: (k,) int64, event time, ms.
        values: (k, m), in the unit of the measure; a counter's are its rise per second.
        present: (k, m).
        count: (k, m) readings of the series before this one.
        previous: (k, m) the value before.
        elapsed: (k, m) since the reading before, ms; 0 for the first.
        interval: (k, m) usual time between two readings, ms; 0 until the second.
        horizon: (k, m) readings to learn from: those of a week, within bounds.
        level, spread: (k, m) mean, and mean distance from it, over the horizon; before this reading.
        known: (k, m) whether there is an expectation.
        expected: (k, m) the value expected at this hour of the day and week.
        usual: (k, m) mean distance from what was expected, at this hour of the day.
        residual: (k, m) value − expected; 0 where nothing is known.
        innovation: (k, m) residual without the part that continues the one before.
        usual_innovation: (k, m) mean of |innovation|, at this hour of the day and over the horizon.
    """

    times: Ints
    values: Floats
    present: Flags
    count: Floats
    previous: Floats
    elapsed: Floats
    interval: Floats
    horizon: Floats
    level: Floats
    spread: Floats
    known: Flags
    expected: Floats
    usual: Floats
    residual: Floats
    innovation: Floats
    usual_innovation: Floats


class Verdict(NamedTuple):
    """What a detector says about the readings of a `Moment`.

    Args:
        score: (k, m) how unusual each is; an anomaly where it reaches the detector's threshold.
        numbers: by name, (k, m): what the score was made of, for the event.
    """

    score: Floats
    numbers: Mapping[str, Floats]


class Detector(Protocol):
    """Finds anomalies in single series. O(1) per reading; `fields` numbers per series."""

    @property
    def name(self) -> str:
        """In events, and of the table."""
        ...

    @property
    def version(self) -> int:
        """Raised when what the fields mean changes."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """What it remembers of a series, zero at first."""
        ...

    @property
    def threshold(self) -> float:
        """Score from which a reading is an anomaly."""
        ...

    def step(self, state: Floats, now: Moment) -> Verdict:
        """Judge a reading by `state`, (fields, k, m), then bring `state` up to date in place."""
        ...

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """How the sentence "temperature of hall is 32.5 °C, …" goes on; `numbers` are those of the verdict."""
        ...


def check(name: str, **arguments: tuple[float, float, bool]) -> None:
    """Refuse arguments below their bounds.

    Args:
        name: of the detector.
        arguments: value, least value, and whether the least value itself is allowed.
    Raises:
        ConfigError: every argument that is below.
    """
    mistakes = [
        f"detect.{name}: {argument} must be {'at least' if allowed else 'greater than'} {least:g}, not {value:g}"
        for argument, (value, least, allowed) in arguments.items()
        if not (value > least or (allowed and value == least))
    ]
    if mistakes:
        raise ConfigError(*mistakes)

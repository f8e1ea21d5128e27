"""Which readings repeat, complete or contradict what is stored under the same device and time (DESIGN 4.7)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace.schemas.readings import Readings


class Leftover(NamedTuple):
    """A reading whose key was taken: its place in the write, and the metrics stored there by now."""

    place: int
    stored: dict[str, Any]


class Contradiction(NamedTuple):
    """A reading in conflict, with what was accepted in its stead."""

    place: int
    accepted: dict[str, Any]


@dataclass(slots=True)
class Repeats:
    """What became of the leftovers, as places in the write.

    `completions` are rounds: within a round no key appears twice, and later rounds follow earlier ones in the log.
    """

    duplicates: list[int] = field(default_factory=list)
    completions: list[list[int]] = field(default_factory=list)
    conflicts: list[Contradiction] = field(default_factory=list)


def judge(readings: Readings, leftovers: Iterable[Leftover]) -> Repeats:
    """Sort leftovers out, one by one in log order, each against all that was accepted before it.

    The same values again are a duplicate; only new metrics complete the row; any metric that differs makes the whole
    reading a conflict. Metrics in columns and in extra count alike.
    """
    repeats = Repeats()
    accepted_by_key: dict[tuple[str, int], dict[str, Any]] = {}
    rounds: dict[tuple[str, int], int] = {}
    for place, stored in leftovers:
        key = (readings.device_ids[place], int(readings.times[place]))
        accepted = accepted_by_key.setdefault(key, stored)
        metrics = metrics_of(readings, place)
        if any(not same(accepted.get(name, value), value) for name, value in metrics.items()):
            repeats.conflicts.append(Contradiction(place, dict(accepted)))
        elif metrics.keys() <= accepted.keys():
            repeats.duplicates.append(place)
        else:
            accepted |= metrics
            turn = rounds.get(key, 0)
            rounds[key] = turn + 1
            if turn == len(repeats.completions):
                repeats.completions.append([])
            repeats.completions[turn].append(place)
    return repeats


def metrics_of(readings: Readings, place: int) -> dict[str, Any]:
    """Everything the reading says: extra and measures."""
    return {**((readings.extras[place] if readings.extras else None) or {}), **readings.measures_of(place)}


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; to Python `True == 1`, to whoever sent them it is not.

    >>> same([1], [1.0]), same([1], [True]), same({"open": 0}, {"open": False})
    (True, False, False)
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)

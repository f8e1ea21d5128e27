"""What simulated devices measure: levels, days, noise, counters; and what a disturbance makes of it."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from random import Random
from typing import NamedTuple

from headrace.connectors.fleet_config import Kind
from headrace.connectors.fleet_script import Disturbance, FaultScript
from headrace.schemas.device_type import DeviceType
from headrace.schemas.simulate import simulated

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
#: Hour of the day (UTC) at which it is warmest.
WARMEST = 15
#: Triangular noise reaches so many standard deviations: nothing looks odd but what is meant to.
REACH = math.sqrt(6)
#: A counter gains so much more, or less, than on average in the course of a day.
COUNTER_DAY = 0.5
#: A burst varies by this part of its size.
BURST_VARIES = 0.2


class _Number(NamedTuple):
    name: str
    daily: float
    reach: float
    #: Values are whole multiples of `times / over`: dividing whole numbers leaves no trailing digits.
    times: int
    over: int
    least: float
    most: float


class FleetValues:
    """Makes up values of every field, in the units of the device type and within its ranges.

    Args:
        device_type: the fields.
        seed: the same gives the same values.
        devices: count.
        script: says when counters start over.
    """

    def __init__(self, device_type: DeviceType, seed: int, devices: int, script: FaultScript) -> None:
        self._script = script
        self._gauges: list[_Number] = []
        self._counters: list[_Number] = []
        draws: dict[str, Callable[[Random], float | str]] = {}
        self._booleans = [name for name, spec in device_type.fields.items() if spec.type == "boolean"]
        self._shares: dict[str, tuple[float, float]] = {}
        for name, spec in device_type.fields.items():
            how = simulated(name, spec)
            if spec.type == "text":
                draws[name] = partial(_chosen, how.values)
                continue
            span = how.rate if name in device_type.counters else how.base
            draws[name] = partial(_drawn, *span)
            if spec.type == "boolean":
                continue
            least = -math.inf if spec.min is None else spec.min
            most = math.inf if spec.max is None else spec.max
            number = _Number(name, how.daily, how.noise * REACH, *_ratio(how.step), least, most)
            (self._counters if name in device_type.counters else self._gauges).append(number)
        self._own = [
            {name: draw(random) for name, draw in draws.items()}
            for random in (Random(f"{seed}/{device}") for device in range(devices))
        ]
        self._levels = [[float(own[each.name]) for each in self._gauges] for own in self._own]
        self._texts = [{name: str(own[name]) for name in device_type.texts} for own in self._own]

    def texts(self, device: int) -> dict[str, str]:
        """What the texts of a device say, always."""
        return self._texts[device]

    def measures(
        self, device: int, age_ms: float, event_time_ms: int, random: Random, wrong: Disturbance | None
    ) -> dict[str, float]:
        """Every measure of `device`.

        Args:
            device: from 0.
            age_ms: since its first message, ms of the clock's time.
            event_time_ms: for the time of day.
            random: the noise is drawn from it.
            wrong: what is wrong with the device now.
        """
        draw, day = random.random, _day(event_time_ms)
        disturbed = None if wrong is None else wrong.metric
        found: dict[str, float] = {}
        for each, level in zip(self._gauges, self._levels[device], strict=True):
            name, daily, reach, times, over, least, most = each
            value = level + daily * day + (draw() + draw() - 1.0) * reach
            if name == disturbed and wrong is not None:
                value = _disturbed(value, level, daily, wrong, age_ms, event_time_ms, draw())
            value = round(value * over / times) * times / over
            found[name] = least if value < least else most if value > most else value
        if self._counters:
            self._count(found, device, age_ms)
        for name in self._booleans:
            share = float(self._own[device][name])
            found[name] = float((age_ms / HOUR_MS + share) % 1.0 < share)
        return found

    def _count(self, found: dict[str, float], device: int, age_ms: float) -> None:
        restarted = self._script.restarted(device, age_ms)
        for name, _, _, times, over, least, most in self._counters:
            rate = float(self._own[device][name])
            hours = (age_ms - max(restarted, 0.0)) / HOUR_MS
            day = 24 / (2 * math.pi)
            gained = rate * (hours + COUNTER_DAY * day * (1 - math.cos(hours / day)))
            # One that was never exchanged has counted before.
            total = gained + (0.0 if restarted >= 0 else rate * 1000)
            start = max(least, 0.0)
            total = start + total % (most - start) if most < math.inf else start + total
            found[name] = math.floor(total * over / times) * times / over


def _ratio(step: float) -> tuple[int, int]:
    return Fraction(str(step)).as_integer_ratio()


def decimals_of(step: float) -> int:
    """Decimals that a multiple of `step` needs."""
    return max(0, next((places for places in range(12) if abs(round(step, places) - step) < step * 1e-9), 12))


def _day(time_ms: float) -> float:
    """1 when it is warmest, -1 twelve hours later."""
    return math.cos(2 * math.pi * (time_ms / DAY_MS - WARMEST / 24))


def _disturbed(
    value: float, level: float, daily: float, wrong: Disturbance, age_ms: float, event_time_ms: int, drawn: float
) -> float:
    match wrong.kind:
        case Kind.STUCK:
            # To the minute: event times are whole ms, ages are not.
            since = (event_time_ms - age_ms + wrong.begin_ms) // 60_000 * 60_000
            return level + daily * _day(since)
        case Kind.DRIFT:
            return value + wrong.size * (age_ms - wrong.begin_ms) / (wrong.end_ms - wrong.begin_ms)
        case Kind.BURST:
            return value + wrong.size * (1 + (drawn - 0.5) * BURST_VARIES)
        case _:
            return value + wrong.size


def _chosen(values: Sequence[str], random: Random) -> str:
    return random.choice(values)


def _drawn(low: float, high: float, random: Random) -> float:
    return random.uniform(low, high)

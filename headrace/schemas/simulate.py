"""How a simulated device makes up the values of a field."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from headrace.schemas.device_type import FieldSpec

#: What is usual by unit: lowest and highest level, daily rise, standard deviation.
_USUAL = {
    "degC": (18.0, 24.0, 3.0, 0.25),
    "%": (45.0, 60.0, 8.0, 0.8),
    "hPa": (1005.0, 1020.0, 1.5, 0.2),
    "ppm": (450.0, 600.0, 60.0, 10.0),
    "ug/m3": (10.0, 18.0, 3.0, 0.8),
    "V": (228.0, 232.0, 1.0, 0.5),
    "Hz": (49.99, 50.01, 0.0, 0.01),
    "dB": (40.0, 50.0, 5.0, 1.0),
    "dBm": (-85.0, -60.0, 0.0, 1.5),
}
#: Where the range is the only hint: level, daily rise and standard deviation as parts of it.
_PARTS = (0.4, 0.6, 0.05, 0.005)
#: A range longer than this is no hint.
_WIDEST = 1000.0
#: A large deviation, of what is usual over a day.
_LARGE = 6.0


class Simulate(BaseModel):
    """How a simulated device makes up a field; what is left out follows from unit and range.

    Args:
        base: lowest and highest usual level, in `unit`; each device has its own between them. Of a boolean the share
            of the time that it is true.
        daily: how far the level rises by the afternoon (UTC) and falls by the night, in `unit`; negative for what falls
            by the afternoon.
        noise: standard deviation about the level, in `unit`.
        step: smallest difference that a device reports, in `unit`.
        deviation: how far off a value is when something is wrong, in `unit`.
        rate: lowest and highest gain of a counter in an hour, in `unit`; each device has its own between them.
        values: what a text says; each device has one of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: tuple[float, float] | None = None
    daily: float | None = None
    noise: float | None = Field(None, ge=0)
    step: float | None = Field(None, gt=0)
    deviation: float | None = Field(None, gt=0)
    rate: tuple[float, float] | None = None
    values: tuple[str, ...] | None = Field(None, min_length=1)


#: What has a meaning for which fields.
_MEANT = {
    "gauge": {"base", "daily", "noise", "step", "deviation"},
    "counter": {"rate", "step"},
    "boolean": {"base"},
    "text": {"values"},
}


class Simulated(NamedTuple):
    """`Simulate` with everything filled in."""

    base: tuple[float, float]
    daily: float
    noise: float
    step: float
    deviation: float
    rate: tuple[float, float]
    values: tuple[str, ...]


def simulated(name: str, spec: "FieldSpec") -> Simulated:
    """How field `name` is simulated: what the file says, the rest from unit and range."""
    said = spec.simulate or Simulate()
    low, high, daily, noise = _usual(spec)
    if spec.type == "boolean":
        low, high = 0.1, 0.5
    noise = noise if said.noise is None else said.noise
    daily = daily if said.daily is None else said.daily
    rate = said.rate or (1.0, 5.0)
    scale = min(rate) / 100 if spec.kind == "counter" else noise / 5
    step = said.step or 10.0 ** math.floor(math.log10(scale or 0.01))
    return Simulated(
        base=said.base or (low, high),
        daily=daily,
        noise=noise,
        step=max(1.0, step) if spec.type == "integer" else step,
        deviation=said.deviation or _LARGE * (abs(daily) + noise) or 1.0,
        rate=rate,
        values=said.values or (name,),
    )


def _usual(spec: "FieldSpec") -> tuple[float, float, float, float]:
    least = -math.inf if spec.min is None else spec.min
    most = math.inf if spec.max is None else spec.max
    usual = _USUAL.get(spec.unit, (10.0, 20.0, 1.0, 0.25))
    low, high, daily, _ = usual
    fits = least <= low - daily and high + daily <= most
    if fits and (spec.unit in _USUAL or most - least > _WIDEST):
        return usual
    if most - least < math.inf:
        span = most - least
        lower, upper, rise, deviation = (part * span for part in _PARTS)
        return least + lower, least + upper, rise, deviation
    if fits:
        return usual
    return (least + 10, least + 20, 1.0, 0.25) if least > -math.inf else (most - 20, most - 10, 1.0, 0.25)


def simulate_mistakes(spec: "FieldSpec") -> Iterator[str]:
    """What is wrong with how a field is simulated."""
    said = spec.simulate
    if said is None:
        return
    kind = spec.type if spec.type in ("boolean", "text") else spec.kind
    for key in sorted(said.model_fields_set - _MEANT[kind]):
        yield f"{key} has no meaning for a {kind}"
    for key, pair in (("base", said.base), ("rate", said.rate)):
        if pair is not None and pair[0] > pair[1]:
            yield f"{key}: {pair[0]:g} is greater than {pair[1]:g}"
    least, most = (0.0, 1.0) if spec.type == "boolean" else (spec.min, spec.max)
    for level in said.base or ():
        if (least is not None and level < least) or (most is not None and level > most):
            yield f"base: {level:g} is not within min and max"
    if said.rate is not None and said.rate[0] <= 0:
        yield "rate: a counter rises, so both must be more than 0"
    if said.step is not None and spec.type == "integer" and said.step % 1:
        yield f"step: {said.step:g} is not whole, and the field is an integer"
    if least is not None and most is not None:
        for key, size in (("step", said.step), ("deviation", said.deviation)):
            if size is not None and size > most - least:
                yield f"{key}: {size:g} is more than lies between min and max"

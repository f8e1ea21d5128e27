"""Units of measurement, by pint: which there are, what they measure, and how one becomes another.

Computed on fractions when device types are loaded; at run time there is only a scale and an offset.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.schemas.text import near

if TYPE_CHECKING:
    from pint import Unit as PintUnit
    from pint import UnitRegistry


class Linear(NamedTuple):
    """`kept = reported * scale + offset`."""

    scale: float
    offset: float


IDENTITY = Linear(1.0, 0.0)

#: Field of a payload in which it may state units of its values, by name: `"$units": {"temperature": "degF"}`.
STATED_UNITS = "$units"

#: Beside pint's own. An angle is no plain number, or an rpm would be 0.105 Hz. Logarithms convert only to themselves.
_DEFINITIONS = [
    "radian = [angle] = rad",
    "bit = [information]",
    "ppb = 1e-9",
    "volt_ampere_reactive = volt * ampere = var",
    "potential_of_hydrogen = [acidity] = pH",
    "nephelometric_turbidity_unit = [turbidity] = NTU",
    "air_quality_index = [air_quality] = AQI",
    "decibel = [level] = dB",
    "decibel_a = [level_a] = dBA",
    "decibelwatt = [level_watt] = dBW",
    "decibelmilliwatt = [level_milliwatt] = dBm",
    "decibelmicrowatt = [level_microwatt] = dBu",
    "neper = [level_neper] = Np",
    "octave = [interval_octave] = oct",
    "decade = [interval_decade]",
]
#: What devices mean by a name that means something else to pint; g alone is what an accelerometer reports.
_MEANT = {"": "dimensionless", "1": "dimensionless", "g": "standard_gravity"}
#: Scales with a zero of their own are units of their own in expressions; in a product they are steps of the scale.
_SCALES = {
    f"{prefix}{name}": short
    for name, short in {"degree_Celsius": "degC", "degree_Fahrenheit": "degF", "degree_Reaumur": "degRe"}.items()
    for prefix in ("", "delta_")
}
#: Names for people, each by a unit that measures it.
_MEASURED = {
    **{"a ratio": "1", "temperature": "K", "pressure": "Pa", "speed": "m/s", "length": "m", "mass": "kg", "time": "s"},
    **{"power": "W", "energy": "J", "voltage": "V", "current": "A", "concentration": "g/m3", "acceleration": "m/s2"},
    **{"frequency": "Hz", "angle": "rad", "volume": "L", "flow": "L/s", "area": "m2", "illuminance": "lx"},
}
_COMMON = """
K degC degF Pa hPa kPa mbar bar psi mmHg inHg m/s km/h mph kn mm/s km m cm mm ft in kg lb gram
d h min s ms W mW kW MW J kJ MJ Wh kWh MWh VA kVA var V mV kV A mA Ah mAh ohm Hz kHz MHz rpm
1 % ppm ppb g/m3 mg/m3 ug/m3 m/s2 g deg rad deg/s L mL m3 L/s L/min m3/h m2 lx W/m2 uS/cm mS/cm
dB dBA dBm pH NTU AQI
"""
#: What devices usually report in: a message may name these, and a hint at a misspelt unit is one of them.
COMMON = tuple(_COMMON.split())
_PART = r"(?:%|°?[^\W\d][^\W]*?)(?:(?:\*\*|\^)?-?\d{1,2})?"
_TEXT = re.compile(rf"(?:1|{_PART})(?:[*/·]{_PART})*")
_POWER = re.compile(r"(?<=[^\W\d])(?:\*\*|\^)?(-?\d{1,2})(?!\w)")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: `scale` times a product of base units.

    Args:
        text: for people.
        powers: base units with their exponents, by name.
        scale: how many of the product it is.
    """

    text: str
    powers: tuple[tuple[str, Fraction], ...]
    scale: Fraction

    def times(self, other: "Unit", text: str, exponent: int = 1) -> "Unit":
        """The unit of a product, or of a quotient when `exponent` is -1."""
        powers = dict(self.powers)
        for name, power in other.powers:
            powers[name] = powers.get(name, Fraction(0)) + power * exponent
        left = tuple(sorted((name, power) for name, power in powers.items() if power))
        return Unit(text, left, self.scale * other.scale**exponent)

    def power(self, exponent: Fraction, text: str) -> "Unit":
        """The unit of a power."""
        powers = tuple((name, power * exponent) for name, power in self.powers if exponent)
        return Unit(text, powers, Fraction(self.scale**exponent))

    def ratio(self, other: "Unit") -> float | None:
        """How many of `other` one of these is; None if they measure different things."""
        if self.powers != other.powers:
            return None
        ratio = float(self.scale / other.scale)
        # Roots of a scale are not exact.
        return 1.0 if abs(ratio - 1) < 1e-12 else ratio


def own_unit(text: str) -> Unit:
    """A unit that is like no other."""
    return Unit(text, ((text, Fraction(1)),), Fraction(1))


PLAIN = Unit("1", (), Fraction(1))


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit:
    """The unit that `text` names: `kWh`, `ug/m3`, `m/s2`, `%`; `1` for none.

    Raises:
        ValueError: there is no such unit; with the one that was probably meant.
    """
    if text in ("", PLAIN.text):
        return PLAIN
    found = _registry().parse_units_as_container(_known(text))
    unit = Unit(text, (), Fraction(1))
    for name, power in found.items():
        base = own_unit(_SCALES[name]) if name in _SCALES else _in_base_units(name)
        unit = unit.times(base.power(_fraction(power), text), text)
    return unit


@lru_cache(maxsize=4096)
def conversion(reported: str, kept: str) -> Linear:
    """How a number in unit `reported` becomes one in unit `kept`.

    Raises:
        ValueError: a unit is unknown, the two measure different things, or there is no linear conversion.

    >>> conversion("degF", "degC")
    Linear(scale=0.5555555555555556, offset=-17.77777777777778)
    """
    if reported == kept:
        return IDENTITY
    try:
        source, target = _pint_unit(reported), _pint_unit(kept)
    except ValueError as error:
        raise ValueError(f"cannot convert {reported} to {kept}: {error}") from error
    if source.dimensionality != target.dimensionality:
        why = f"{_measured(source)} is not {_measured(target)}"
        if any(name.startswith(("[level", "[interval")) for unit in (source, target) for name in unit.dimensionality):
            why = "a logarithmic unit converts only to itself"
        raise ValueError(f"cannot convert {reported} to {kept}: {why}")
    zero, one, two = (_registry().Quantity(Fraction(number), source).to(target).magnitude for number in range(3))
    if two - one != one - zero:
        raise ValueError(f"cannot convert {reported} to {kept}: the conversion is not linear")
    return Linear(float(one - zero), float(zero))


@cache
def convertible(kept: str) -> dict[str, Linear]:
    """The common units that become `kept`, each with its conversion."""
    target = _pint_unit(kept).dimensionality
    return {unit: conversion(unit, kept) for unit in COMMON if _pint_unit(unit).dimensionality == target}


def _in_base_units(name: str) -> Unit:
    one = _registry().Quantity(Fraction(1), name).to_root_units()
    powers = sorted((base, _fraction(power)) for base, power in one.unit_items())
    return Unit(name, tuple(powers), _fraction(one.magnitude))


def _fraction(number: Any) -> Fraction:
    # The registry computes on fractions, which pint's types do not say.
    return Fraction(number)


@lru_cache(maxsize=4096)
def _pint_unit(text: str) -> "PintUnit":
    return _registry().parse_units(_known(text))


def _known(text: str) -> str:
    """`text` as pint writes it.

    Raises:
        ValueError: there is no such unit.
    """
    if text in _MEANT:
        return _MEANT[text]
    # Nothing but names, small powers and products gets to a parser.
    if len(text) > 40 or not _TEXT.fullmatch(text):
        raise ValueError(f"unit {text[:40]!r} is unknown; a unit is names with * / and powers, as in ug/m3")
    from pint import UndefinedUnitError  # noqa: PLC0415

    written = _POWER.sub(r"**\1", text.replace("·", "*"))
    try:
        _registry().parse_units(written)
    except UndefinedUnitError:
        # Rather another letter than one less: degF for degG, and not deg.
        hint = near(text, [unit for unit in COMMON if len(unit) >= len(text)]) or near(text, COMMON)
        raise ValueError(f"unit {text!r} is unknown{hint}") from None
    return written


@cache
def _registry() -> "UnitRegistry[Any]":
    """The one registry: half a second, so it is made when the first unit is looked at, and pint imported."""
    import pint  # noqa: PLC0415

    # Given by path, and not by default: then pint looks at a definition when it is used, and sees ours.
    made: UnitRegistry[Any] = pint.UnitRegistry(None, non_int_type=Fraction, on_redefinition="ignore")
    made.load_definitions(Path(pint.__file__).with_name("default_en.txt"))
    made.load_definitions(_DEFINITIONS)
    return made


@cache
def _dimensions() -> dict[object, str]:
    return {_pint_unit(unit).dimensionality: what for what, unit in _MEASURED.items()}


def _measured(unit: "PintUnit") -> str:
    named = _dimensions().get(unit.dimensionality)
    return named or " ".join(
        f"{name.strip('[]')}{'' if power == 1 else power}" for name, power in sorted(unit.dimensionality.items())
    )

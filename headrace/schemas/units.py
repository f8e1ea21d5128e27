"""Linear conversions between the units that devices report in and the units that headrace keeps.

Factors are exact, from NIST Special Publication 811 (2008), appendix B.8; degF and degC from section 4.2.1.1.
"""

from fractions import Fraction
from typing import NamedTuple

from headrace.schemas.text import near


class Linear(NamedTuple):
    """`kept = reported * scale + offset`."""

    scale: float
    offset: float


IDENTITY = Linear(1.0, 0.0)

#: Unit: (what it measures, how many base units it is, where its zero lies in base units).
_UNITS: dict[str, tuple[str, str, str]] = {
    "K": ("temperature", "1", "0"),
    "degC": ("temperature", "1", "273.15"),
    "degF": ("temperature", "5/9", "45967/180"),
    "Pa": ("pressure", "1", "0"),
    "hPa": ("pressure", "100", "0"),
    "kPa": ("pressure", "1000", "0"),
    "mbar": ("pressure", "100", "0"),
    "bar": ("pressure", "100000", "0"),
    "m/s": ("speed", "1", "0"),
    "km/h": ("speed", "5/18", "0"),
    "mph": ("speed", "0.44704", "0"),
    "kn": ("speed", "463/900", "0"),
    "m": ("length", "1", "0"),
    "cm": ("length", "0.01", "0"),
    "mm": ("length", "0.001", "0"),
    "in": ("length", "0.0254", "0"),
    "W": ("power", "1", "0"),
    "mW": ("power", "0.001", "0"),
    "kW": ("power", "1000", "0"),
    "V": ("voltage", "1", "0"),
    "mV": ("voltage", "0.001", "0"),
    "%": ("ratio", "0.01", "0"),
    "1": ("ratio", "1", "0"),
    "ppm": ("ratio", "1/1000000", "0"),
    "ppb": ("ratio", "1/1000000000", "0"),
    "ug/m3": ("concentration", "1/1000000000", "0"),
    "mg/m3": ("concentration", "1/1000000", "0"),
    "g/m3": ("concentration", "1/1000", "0"),
    "mm/s": ("speed", "0.001", "0"),
    "m/s2": ("acceleration", "1", "0"),
    "g": ("acceleration", "9.80665", "0"),
    "s": ("duration", "1", "0"),
    "ms": ("duration", "0.001", "0"),
    "min": ("duration", "60", "0"),
    "h": ("duration", "3600", "0"),
}


def conversion(reported: str, kept: str) -> Linear:
    """How a number in unit `reported` becomes one in unit `kept`. Equal units need not be known.

    Raises:
        ValueError: a unit is unknown, or the two measure different things.

    >>> conversion("degF", "degC")
    Linear(scale=0.5555555555555556, offset=-17.77777777777778)
    """
    if reported == kept:
        return IDENTITY
    for unit in (reported, kept):
        if unit not in _UNITS:
            raise ValueError(f"cannot convert {reported} to {kept}: unit {unit!r} is unknown{near(unit, _UNITS)}")
    what, scale, zero = _UNITS[reported]
    kept_what, kept_scale, kept_zero = _UNITS[kept]
    if what != kept_what:
        raise ValueError(f"cannot convert {reported} to {kept}: {what} is not {kept_what}")
    factor = Fraction(scale) / Fraction(kept_scale)
    return Linear(float(factor), float((Fraction(zero) - Fraction(kept_zero)) / Fraction(kept_scale)))

"""Numbers, units and times as their reader writes them."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from headrace.connectors.notifications.languages import nearest, words
from headrace.schemas.notification import Reader
from headrace.schemas.units import Linear

#: What readers of imperial units read instead, and those of metric units. Constants of `headrace.schemas.units`, which
#: takes half a second to load; see test_conversions_are_those_of_units.
IMPERIAL: Mapping[str, tuple[str, Linear]] = {
    "degC": ("degF", Linear(1.8, 32.0)),
    "m": ("ft", Linear(1 / 0.3048, 0.0)),
    "cm": ("in", Linear(1 / 2.54, 0.0)),
    "mm": ("in", Linear(1 / 25.4, 0.0)),
    "m/s": ("mph", Linear(3.6 / 1.609344, 0.0)),
    "km/h": ("mph", Linear(1 / 1.609344, 0.0)),
    "kg": ("lb", Linear(1 / 0.45359237, 0.0)),
    "hPa": ("inHg", Linear(100 / 3386.38864034, 0.0)),
    "mbar": ("inHg", Linear(100 / 3386.38864034, 0.0)),
    "kPa": ("psi", Linear(1 / 6.894757293168361, 0.0)),
    "bar": ("psi", Linear(100 / 6.894757293168361, 0.0)),
}
METRIC: Mapping[str, tuple[str, Linear]] = {
    "degF": ("degC", Linear(5 / 9, -160 / 9)),
    "ft": ("m", Linear(0.3048, 0.0)),
    "in": ("mm", Linear(25.4, 0.0)),
    "mph": ("km/h", Linear(1.609344, 0.0)),
    "lb": ("kg", Linear(0.45359237, 0.0)),
    "inHg": ("hPa", Linear(33.8638864034, 0.0)),
    "psi": ("kPa", Linear(6.894757293168361, 0.0)),
}
_CONVERSIONS = {"imperial": IMPERIAL, "metric": METRIC}
#: How units are written that are not written as they are named.
_WRITTEN = {"1": "", "degC": "°C", "degF": "°F", "deg": "°", "ohm": "Ω"}
#: Digits of a number that was converted: it was not measured any better before.
CONVERTED_DIGITS = 4
DIGITS = 6


def digits(value: float, count: int = DIGITS) -> str:
    """A number with `count` significant digits, and all of those before the point.

    >>> [digits(each) for each in (32.5, 30.0, 1234567.8, 0.1 + 0.2, -0.00001234, 1e300)]
    ['32.5', '30', '1234568', '0.3', '-0.00001234', '1e+300']
    """
    if not -1e15 < value < 1e15 or 0 < abs(value) < 1e-6 or value != value:
        return f"{value:.{count}g}"
    exponent = int(f"{value:.{count - 1}e}".split("e")[1])
    text = f"{value:.{max(0, count - 1 - exponent)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def written_unit(unit: str) -> str:
    """A unit for people: `ug/m3` is µg/m³."""
    if unit in _WRITTEN:
        return _WRITTEN[unit]
    text = unit.replace("m3", "m³").replace("m2", "m²").replace("s2", "s²").replace("*", "·")
    return f"µ{text[1:]}" if text.startswith(("ug", "uS")) else text


class Quantities:
    """Writes for one reader.

    Args:
        reader: whose language, zone and units.
    """

    def __init__(self, reader: Reader) -> None:
        self._words = words(nearest(reader.language))
        self._conversions = _CONVERSIONS[reader.units]
        self._zone = ZoneInfo(reader.timezone)

    def value(self, value: float | None, unit: str | None, *, difference: bool = False) -> str:
        """A value of a metric with its unit; empty if there is none.

        Args:
            difference: of two values; 10 degC more are 18 degF more.
        """
        if value is None:
            return ""
        count = DIGITS
        if unit is not None and unit in self._conversions:
            unit, linear = self._conversions[unit]
            value = value * linear.scale + (0.0 if difference else linear.offset)
            count = CONVERTED_DIGITS
        number = digits(value, count).replace(".", self._words["decimal"])
        mark = written_unit(unit or "1")
        if not mark:
            return number
        space = self._words["degree"] if mark[0] in "°%" else " "
        return f"{number}{space}{mark}"

    def time(self, time_ms: int | None) -> str:
        """A moment, with the zone it is told in; empty if there is none."""
        return self._told(time_ms, self._words["time"])

    def minute(self, time_ms: int | None) -> str:
        """The same, hours and minutes alone."""
        return self._told(time_ms, self._words["minute"])

    def _told(self, time_ms: int | None, form: str) -> str:
        if time_ms is None:
            return ""
        try:
            moment = datetime.fromtimestamp(time_ms / 1000, self._zone)
        except (OverflowError, ValueError, OSError):
            return f"{time_ms} ms"
        zone = moment.tzname() or ""
        # Zones without letters of their own are offsets: -03.
        return f"{moment.strftime(form)} {f'UTC{zone}' if zone[:1] in ('+', '-') else zone}"

    @staticmethod
    def duration(milliseconds: int) -> str:
        """How long something took, to two units.

        >>> [Quantities.duration(each) for each in (5_000, 3_900_000, 90_000_000)]
        ['5 s', '1 h 5 min', '1 d 1 h']
        """
        seconds = max(0, milliseconds) // 1000
        parts = [
            (seconds // 86_400, "d"),
            (seconds // 3600 % 24, "h"),
            (seconds // 60 % 60, "min"),
            (seconds % 60, "s"),
        ]
        first = next((place for place, (count, _) in enumerate(parts) if count), 3)
        return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"

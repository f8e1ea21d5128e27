"""Units of SenML by the names that device types know them by.

Source: IANA, Sensor Measurement Lists (SenML): units (RFC 8428) and secondary units (RFC 8798).
"""

#: Those that are called something else here, or mean something else. All others keep their names.
_NAMES = {
    "g": "gram",
    "C": "coulomb",
    "Cel": "degC",
    "Ohm": "ohm",
    "S": "siemens",
    "H": "henry",
    "T": "tesla",
    "F": "farad",
    "l": "L",
    "l/s": "L/s",
    "lat": "deg",
    "lon": "deg",
    "/": "1",
    "count": "1",
    "%RH": "%",
    "%EL": "%",
    "EL": "s",
    "/s": "1/s",
    "1/s": "1/s",
    "1/min": "1/min",
    "beat/min": "1/min",
    "beats": "1",
    "B": "byte",
    "KiB": "kibibyte",
    "GB": "gigabyte",
    "B/s": "byte/s",
    "MB/s": "megabyte/s",
    "VAs": "VA*s",
    "VAh": "VA*h",
    "kVAh": "kVA*h",
    "vars": "var*s",
    "varh": "var*h",
    "kvarh": "kvar*h",
    "mg/l": "mg/L",
    "ug/l": "ug/L",
    "g/l": "gram/L",
    "/100": "%",
    "ppt": "1e-12",
}
#: What a sum over seconds is in.
_SUMS = {"W": "J", "kW": "kJ", "A": "coulomb", "var": "var*s", "VA": "VA*s", "l/s": "L", "m/s": "m", "1": "s", "/": "s"}


def known_unit(name: str) -> str:
    """The unit's name in device types.

    >>> known_unit("Cel"), known_unit("%RH"), known_unit("V")
    ('degC', '%', 'V')
    """
    return _NAMES.get(name, name)


def sum_unit(name: str) -> str:
    """The unit of a sum of values over time (field `s`): the value's times seconds."""
    return _SUMS.get(name) or f"{known_unit(name)}*s"

"""Units of expressions."""

import pytest

from headrace.schemas.expression_units import unit_of
from headrace.schemas.units import parse_unit

UNITS = {
    name: parse_unit(unit)
    for name, unit in {
        **{"t": "degC", "p": "W", "q": "kW", "h": "h", "rh": "%", "n": "1", "whole": "%", "u": "V", "i": "A"},
        **{"k": "W/kW", "s": "dBm", "area": "m2"},
    }.items()
}


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("p * h", "W*h"),
        ("u * i", "VA"),
        ("t - t", "degC"),
        ("t / t", "1"),
        ("t * 9 / 5", "degC"),
        ("log(rh / whole)", "1"),
        ("rh / 100", "%"),
        ("p + k * q", "W"),
        ("max(p, p, p)", "W"),
        ("min(p, p) > p", "1"),
        ("sqrt(area)", "m"),
        ("area ** 0.5", "m"),
        ("p ** -1", "1/W"),
        ("n ** n", "1"),
        ("-p % p", "W"),
        ("abs(s)", "dBm"),
        ("s - s", "dBm"),
        ("(t > t) * p", "W"),
        ("(t and p) or not s", "1"),
        ("(p and t) * p", "W"),
    ],
)
def test_units_are_inferred(text: str, unit: str) -> None:
    """The unit of the result is that of the formula."""
    assert unit_of(text, UNITS).ratio(parse_unit(unit)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("t + p", "t is in degC and p in W"),
        (
            "t - 60",
            't is in degC and 60 a plain number; a number with a unit is a constant, as in constants = { limit = "5',
        ),
        ("p < 5", "p is in W and 5 a plain number"),
        ("p + q", "in W and q in kW, which differ by a factor of 1000: multiply the latter by a constant, 1000 W/kW"),
        ("max(t, p)", "t is in degC and p in W"),
        ("log(t)", "t must be a plain number and is in degC; divide by a constant"),
        (
            "log(rh / 100)",
            "rh / 100 must be a plain number and is in %; divide by a constant, as in constants = { whole",
        ),
        ("exp(p)", "p must be a plain number and is in W"),
        ("p ** n", "p is in W: its exponent must be a number, not n"),
        ("p ** 1e300", "p is in W: its exponent can be 12 at most"),
        ("(p ** 12) ** 12 ** 1", "its exponent must be a number"),
        ("((p ** 12) ** 12) ** 12", "its exponent can be 12 at most"),
        ("n ** p", "p must be a plain number and is in W"),
        ("s + p", "s is in dBm and p in W"),
        ("p * (t + 1)", "t is in degC and 1 a plain number"),
        ("n and t + p > t", "t is in degC and p in W"),
        ("not (t + p)", "t is in degC and p in W"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, why: str) -> None:
    """The message names both sides and says what to do."""
    with pytest.raises(ValueError, match=r"\w") as raised:
        unit_of(text, UNITS)

    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("t > 30 and rh > 80", "1"),
        ("max(t, 5 + 1) - 2", "degC"),
        ("3 - t", "degC"),
        ("p < abs(-5) * 2", "1"),
        ("p * 2", "W"),
    ],
)
def test_bare_numbers_are_in_the_unit_of_the_other_side(text: str, unit: str) -> None:
    """In rules, which have no constants."""
    assert unit_of(text, UNITS, bare_numbers=True).ratio(parse_unit(unit)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("t > p", "t is in degC and p in W: make it a derived metric"),
        ("p > 1000 * q", "which differ by a factor of 1000: make it a derived metric"),
        ("log(rh / 100) > 2", "rh / 100 must be a plain number and is in %; make it a derived metric"),
        ("t > n", "t is in degC and n a plain number: make it a derived metric"),
    ],
)
def test_bare_numbers_mend_no_units(text: str, why: str) -> None:
    """Metrics of different units stay apart, and the message names what helps."""
    with pytest.raises(ValueError, match=r"\w") as raised:
        unit_of(text, UNITS, bare_numbers=True)

    assert why in str(raised.value)

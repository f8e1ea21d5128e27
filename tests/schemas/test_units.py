"""Unit conversions."""

import pytest

from headrace.schemas.units import IDENTITY, conversion


@pytest.mark.parametrize(
    ("reported", "kept", "value", "result"),
    [
        ("degF", "degC", 212.0, 100.0),
        ("degF", "degC", -40.0, -40.0),
        ("K", "degC", 273.15, 0.0),
        ("degC", "degF", 100.0, 212.0),
        ("hPa", "Pa", 1013.25, 101_325.0),
        ("km/h", "m/s", 36.0, 10.0),
        ("kn", "m/s", 1.0, 0.514444),
        ("mg/m3", "ug/m3", 0.035, 35.0),
        ("in", "mm", 1.0, 25.4),
    ],
)
def test_numbers_are_converted(reported: str, kept: str, value: float, result: float) -> None:
    """A number in one unit becomes the same quantity in the other."""
    scale, offset = conversion(reported, kept)

    assert value * scale + offset == pytest.approx(result, rel=1e-6, abs=1e-9)


def test_equal_units_need_not_be_known() -> None:
    """A unit that nobody converts may be anything."""
    assert conversion("furlong", "furlong") == IDENTITY


@pytest.mark.parametrize(
    ("reported", "kept", "why"),
    [
        ("hPa", "degC", "cannot convert hPa to degC: pressure is not temperature"),
        ("degG", "degC", "cannot convert degG to degC: unit 'degG' is unknown; did you mean 'degF'?"),
    ],
)
def test_impossible_conversions_are_refused(reported: str, kept: str, why: str) -> None:
    """The message says which unit is unknown, or what the two measure."""
    with pytest.raises(ValueError, match="cannot convert") as raised:
        conversion(reported, kept)

    assert str(raised.value).startswith(why[:60])

"""Unit conversions."""

import subprocess
import sys

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
        ("g", "m/s2", 1.0, 9.80665),
        ("g/m3", "ug/m3", 1.0, 1e6),
        ("ppm", "%", 10_000.0, 1.0),
        ("W*h", "kWh", 1500.0, 1.5),
        ("rpm", "deg/s", 1.0, 6.0),
        ("m3/h", "L/min", 6.0, 100.0),
        ("µg/m³", "ug/m3", 3.0, 3.0),
        ("°C", "K", 0.0, 273.15),
    ],
)
def test_numbers_are_converted(reported: str, kept: str, value: float, result: float) -> None:
    """A number in one unit becomes the same quantity in the other."""
    scale, offset = conversion(reported, kept)

    assert value * scale + offset == pytest.approx(result, rel=1e-6, abs=1e-9)


def test_factors_are_exact() -> None:
    """Computed on fractions: no digit is lost on the way."""
    assert conversion("dBm", "dBm") == IDENTITY
    assert conversion("mg/m3", "ug/m3") == (1000.0, 0.0)
    assert conversion("degF", "degC") == (5 / 9, -160 / 9)


@pytest.mark.parametrize(
    ("reported", "kept", "why"),
    [
        ("hPa", "degC", "cannot convert hPa to degC: pressure is not temperature"),
        ("degG", "degC", "cannot convert degG to degC: unit 'degG' is unknown; did you mean 'degF'?"),
        ("dBm", "mW", "cannot convert dBm to mW: a logarithmic unit converts only to itself"),
        ("dB", "%", "cannot convert dB to %: a logarithmic unit converts only to itself"),
        ("rpm", "Hz", "cannot convert rpm to Hz: angle time-1 is not frequency"),
        ("deg", "%", "cannot convert deg to %: angle is not a ratio"),
        ("m" * 50, "m", "cannot convert"),
        ("m**9**9**9", "m", "cannot convert m**9**9**9 to m: unit 'm**9**9**9' is unknown"),
        ("__import__('os')", "m", "cannot convert __import__('os') to m: unit"),
    ],
)
def test_impossible_conversions_are_refused(reported: str, kept: str, why: str) -> None:
    """The message says which unit is unknown, or what the two measure."""
    with pytest.raises(ValueError, match="cannot convert") as raised:
        conversion(reported, kept)

    assert str(raised.value).startswith(why[:60])


def test_pint_is_imported_only_when_a_unit_is_looked_at() -> None:
    """It takes half a second, which commands without device types do not pay."""
    program = "import sys, headrace.tables, headrace.cli.main; print('pint' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)

    assert done.stdout == "False\n"

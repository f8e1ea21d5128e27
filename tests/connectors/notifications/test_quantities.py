"""Numbers, units, times and SMS as readers write them."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.notifications import gsm, languages, public_addresses, quantities
from headrace.connectors.notifications.gsm import SINGLE, SINGLE_UNICODE, one_sms, septets
from headrace.connectors.notifications.quantities import IMPERIAL, METRIC, Quantities, digits
from headrace.schemas.notification import Reader
from headrace.schemas.units import conversion


@pytest.mark.parametrize("module", [gsm, languages, public_addresses, quantities], ids=lambda each: each.__name__)
def test_examples_in_docstrings_are_right(module: object) -> None:
    """As somebody would try them."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", [*IMPERIAL, *METRIC])
def test_conversions_are_those_of_units(unit: str) -> None:
    """The constants are what pint says."""
    kept, linear = {**IMPERIAL, **METRIC}[unit]

    assert linear == pytest.approx(conversion(unit, kept), rel=1e-9)


@pytest.mark.parametrize(
    ("value", "unit", "metric", "imperial"),
    [
        (32.5, "degC", "32.5°C", "90.5°F"),
        (-40.0, "degF", "-40°C", "-40°F"),
        (1013.25, "hPa", "1013.25 hPa", "29.92 inHg"),
        (1500.0, "ppm", "1500 ppm", "1500 ppm"),
        (55.0, "%", "55%", "55%"),
        (35.2, "ug/m3", "35.2 µg/m³", "35.2 µg/m³"),
        (3.0, None, "3", "3"),
        (3.0, "1", "3", "3"),
        (9.81, "m/s2", "9.81 m/s²", "9.81 m/s²"),
        (None, "degC", "", ""),
        (float("nan"), "degC", "nan°C", "nan°F"),
    ],
)
def test_value_has_the_readers_unit(value: float | None, unit: str | None, metric: str, imperial: str) -> None:
    """Converted where the other system has another unit, with the digits that mean something."""
    found = [Quantities(Reader(units=units)).value(value, unit) for units in ("metric", "imperial")]

    assert found == [metric, imperial]


def test_german_numbers_have_a_comma() -> None:
    """And a space before the degree."""
    assert Quantities(Reader(language="de")).value(32.5, "degC") == "32,5 °C"


@pytest.mark.parametrize(
    ("timezone", "time_ms", "told"),
    [
        ("UTC", 1_763_201_100_000, "2025-11-15 10:05:00 UTC"),
        ("Europe/Berlin", 1_763_201_100_000, "2025-11-15 11:05:00 CET"),
        ("America/Sao_Paulo", 1_763_201_100_000, "2025-11-15 07:05:00 UTC-03"),
        # The hour that comes twice when summer time ends has two names.
        ("Europe/Berlin", 1_761_438_600_000, "2025-10-26 02:30:00 CEST"),
        ("Europe/Berlin", 1_761_442_200_000, "2025-10-26 02:30:00 CET"),
        ("UTC", 2**62, f"{2**62} ms"),
    ],
)
def test_time_is_told_in_the_readers_zone(timezone: str, time_ms: int, told: str) -> None:
    """With its name, or its offset where it has none."""
    assert Quantities(Reader(timezone=timezone)).time(time_ms) == told


@given(st.floats(-1e14, 1e14).filter(lambda each: each == 0 or abs(each) > 1e-5))
def test_number_loses_nothing_that_matters(value: float) -> None:
    """Six digits, and never an exponent in sizes that people read."""
    text = digits(value)

    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=1e-5)


@given(st.text(max_size=400))
def test_sms_is_one(text: str) -> None:
    """Whatever it says: at most 160 characters of GSM 7-bit, else at most 70."""
    short = one_sms(text)

    size = septets(short)
    if size is None:
        assert len(short.encode("utf-16-le")) // 2 <= SINGLE_UNICODE
    else:
        assert size <= SINGLE


def test_sms_keeps_what_it_can_write() -> None:
    """Umlauts stay, degrees go, accents that the alphabet lacks are left off, brackets count twice."""
    assert one_sms("Büro 3: 32.5 °C – Škoda “x”") == 'Büro 3: 32.5 C - Skoda "x"'
    assert septets("[]") == 4
    assert one_sms("温度" * 50).endswith("…")
    assert len(one_sms("a" * 200)) == SINGLE

"""How fields are simulated: what a device type's file says, and what follows where it says nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.schemas.device_type import DeviceType, FieldSpec
from headrace.schemas.simulate import simulated
from headrace.schemas.type_compare import compare

SIZES = st.none() | st.floats(-1e9, 1e9)


def with_field(**spec: Any) -> DeviceType:
    """A device type of one field."""
    return DeviceType.model_validate({"name": "a", "fields": {"x": spec}})


@pytest.mark.parametrize(
    ("spec", "mistake"),
    [
        ({"max": 5, "simulate": {"base": [1, 6]}}, "base: 6 is not within min and max"),
        ({"simulate": {"base": [3, 2]}}, "base: 3 is greater than 2"),
        ({"type": "boolean", "simulate": {"base": [0.5, 2]}}, "base: 2 is not within min and max"),
        ({"type": "text", "simulate": {"noise": 1}}, "noise has no meaning for a text"),
        ({"simulate": {"rate": [1, 2]}}, "rate has no meaning for a gauge"),
        ({"kind": "counter", "simulate": {"daily": 1}}, "daily has no meaning for a counter"),
        ({"kind": "counter", "simulate": {"rate": [0, 1]}}, "rate: a counter rises"),
        ({"type": "integer", "simulate": {"step": 0.5}}, "step: 0.5 is not whole"),
        ({"min": 0, "max": 1, "simulate": {"step": 2}}, "step: 2 is more than lies between min and max"),
        ({"min": 0, "max": 1, "simulate": {"deviation": 2}}, "deviation: 2 is more than lies between"),
    ],
)
def test_mistakes_are_said_with_their_place(spec: dict[str, Any], mistake: str) -> None:
    """Like all others of the file."""
    with pytest.raises(ValidationError) as raised:
        with_field(**spec)

    assert f"fields.x.simulate.{mistake}" in str(raised.value)


@given(SIZES, SIZES, st.sampled_from(["degC", "%", "1", "W", "dBm"]), st.sampled_from(["number", "integer"]))
def test_what_follows_from_unit_and_range_is_within_the_range(
    one: float | None, other: float | None, unit: str, kind: Any
) -> None:
    """Whatever the range is."""
    if one is not None and other is not None:
        one, other = min(one, other), max(one, other)

    how = simulated("x", FieldSpec(type=kind, unit=unit, min=one, max=other))

    assert all(one is None or level >= one for level in how.base)
    assert all(other is None or level <= other for level in how.base)
    assert how.base[0] <= how.base[1]
    assert how.step > 0
    assert how.deviation > 0


def test_how_a_field_is_simulated_needs_no_new_version() -> None:
    """No message and no reader depends on it."""
    assert compare(with_field(), with_field(simulate={"base": [1, 2]})) == []

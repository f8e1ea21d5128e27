"""The examples inside the shipped device types."""

import numpy as np
import pytest

from headrace.schemas.device_type import DerivedSpec, DeviceType
from headrace.schemas.type_mistakes import failed_examples
from headrace.tables.device_types import load_device_types

CASES = [
    pytest.param(
        device_type, spec.model_copy(update={"examples": (example,)}), id=f"{device_type.name}-{name}-{number}"
    )
    for device_type in load_device_types().values()
    for name, spec in device_type.derived.items()
    for number, example in enumerate(spec.examples, 1)
]


@pytest.mark.parametrize(("device_type", "spec"), CASES)
def test_an_example_gives_its_result(device_type: DeviceType, spec: DerivedSpec) -> None:
    """With the inputs it gives, the expression comes to what it says."""
    assert list(failed_examples(spec, device_type.compiled(spec))) == []


def test_every_derived_metric_that_ships_has_an_example() -> None:
    """Nobody can read a formula without one."""
    assert [
        f"{device_type.name}.{name}"
        for device_type in load_device_types().values()
        for name, spec in device_type.derived.items()
        if not spec.examples
    ] == []


def test_derived_metrics_may_say_and_or_not() -> None:
    """Of what has any unit; the result is a plain 1 or 0, and absent where an input is."""
    fields = {"temperature": {"unit": "degC"}, "burning": {"type": "boolean"}}
    derived = {
        "expression": "burning and not temperature < limit",
        "constants": {"limit": "60 degC"},
        "examples": [
            {"given": {"temperature": 70, "burning": 1}, "result": 1},
            {"given": {"temperature": 50, "burning": 1}, "result": 0},
        ],
    }
    made = DeviceType.model_validate({"name": "boiler", "fields": fields, "derived": {"alarm": derived}})

    columns = {"temperature": np.array([70.0, np.nan]), "burning": np.array([1.0, 1.0])}
    assert made.expressions["alarm"].evaluate(columns).tolist() == pytest.approx([1.0, np.nan], nan_ok=True)

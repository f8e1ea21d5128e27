"""What may be wrong with how the parts of a device type fit together."""

from collections.abc import Iterator
from keyword import iskeyword
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from headrace.schemas.simulate import simulate_mistakes

if TYPE_CHECKING:
    from headrace.schemas.device_type import DerivedSpec, DeviceType
    from headrace.schemas.expression import Expression

#: Columns that every reading has, whatever its type, and those that PostgreSQL keeps for itself.
RESERVED = frozenset(
    {"time", "device_id", "device_type", "message_id", "appended_at", "extra"}
    | {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
)
#: How close an example's result must be, relative.
EXAMPLE_TOLERANCE = 1e-3


def mistakes_of(device_type: "DeviceType") -> Iterator[str]:
    """Every mistake, with its place."""
    for check in (_names, _ranges, _units, _metric, _derived):
        yield from check(device_type)


def _names(device_type: "DeviceType") -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in (*device_type.fields, *device_type.derived):
        # PostgreSQL folds column names to lower case unless quoted, and people do not quote.
        folded = name.lower()
        if folded in RESERVED:
            yield f"{name}: the name is reserved"
        if folded in seen:
            yield f"{name}: the name is already used by {seen[folded]}"
        seen.setdefault(folded, name)
    inputs: dict[str, str] = dict.fromkeys(device_type.time.fields, "time")
    inputs |= dict.fromkeys(device_type.identity, "identity")
    for field, spec in device_type.fields.items():
        for name in (field, *spec.aliases):
            if name in inputs:
                yield f"{field}: the payload name {name!r} already feeds {inputs[name]}"
            inputs.setdefault(name, field)


def _ranges(device_type: "DeviceType") -> Iterator[str]:
    for name, spec in device_type.fields.items():
        if spec.type in ("boolean", "text") and (spec.min is not None or spec.max is not None):
            yield f"fields.{name}: min and max have no meaning for {spec.type}"
        if spec.min is not None and spec.max is not None and spec.min > spec.max:
            yield f"fields.{name}: min {spec.min:g} is greater than max {spec.max:g}"
        if spec.kind == "counter" and spec.type in ("boolean", "text"):
            yield f"fields.{name}: a {spec.type} cannot be a counter"
        yield from (f"fields.{name}.simulate.{mistake}" for mistake in simulate_mistakes(spec))


def _units(device_type: "DeviceType") -> Iterator[str]:
    for field, spec in device_type.fields.items():
        if spec.type != "text":
            yield from _unit(device_type, spec.unit, f"fields.{field}.unit")
        for alias, unit in spec.aliases.items():
            try:
                linear = device_type.conversion(unit, spec.unit)
            except ValueError as error:
                yield f"fields.{field}.aliases.{alias}: {error}"
            else:
                if linear != (1.0, 0.0) and spec.type in ("boolean", "text"):
                    yield f"fields.{field}.aliases.{alias}: a {spec.type} has no unit to convert"


def _unit(device_type: "DeviceType", unit: str, place: str) -> Iterator[str]:
    try:
        device_type.unit(unit)
    except ValueError as error:
        yield f"{place}: {error}{'' if str(error).endswith('?') else ';'} a unit of its own belongs into own_units"


def _metric(device_type: "DeviceType") -> Iterator[str]:
    spec = device_type.metric
    if spec is None:
        return
    used = [spec.name, spec.value, *([spec.unit] if spec.unit else [])]
    fields = {name for field, each in device_type.fields.items() for name in (field, *each.aliases)}
    taken = {*device_type.time.fields, *device_type.identity, *fields}
    for name in used:
        if name in taken or used.count(name) > 1:
            yield f"metric: the payload name {name!r} is used twice"
    if spec.units and not spec.unit:
        yield "metric.units: no payload field holds the unit"
    for written, unit in spec.units.items():
        yield from _unit(device_type, unit, f"metric.units.{written}")


def _derived(device_type: "DeviceType") -> Iterator[str]:
    for name, spec in device_type.derived.items():
        found = list(_derived_units(device_type, name, spec))
        yield from found
        if found:
            continue
        try:
            expression = device_type.compiled(spec)
        except ValueError as error:
            yield f"derived.{name}: {error}"
            continue
        yield from (f"derived.{name}: {mistake}" for mistake in failed_examples(spec, expression))


def _derived_units(device_type: "DeviceType", name: str, spec: "DerivedSpec") -> Iterator[str]:
    yield from _unit(device_type, spec.unit, f"derived.{name}.unit")
    for constant, text in spec.constants.items():
        if constant in device_type.fields or not constant.isidentifier() or iskeyword(constant):
            yield f"derived.{name}.constants.{constant}: the name is a field, or none that an expression can use"
        if not isfinite(float(text.split()[0])):
            yield f"derived.{name}.constants.{constant}: the number is too large"
        yield from _unit(device_type, "".join(text.split()[1:]), f"derived.{name}.constants.{constant}")


def failed_examples(spec: "DerivedSpec", expression: "Expression") -> Iterator[str]:
    """What is wrong with each example that does not give its result."""
    for example in spec.examples:
        missing = set(expression.inputs) - set(example.given)
        if missing:
            yield f"an example does not give {', '.join(sorted(missing))}"
            continue
        got = float(expression.evaluate({key: np.array([value]) for key, value in example.given.items()})[0])
        if not abs(got - example.result) <= EXAMPLE_TOLERANCE * max(1.0, abs(example.result)):
            yield f"an example should give {example.result:g} but gives {got:g}"

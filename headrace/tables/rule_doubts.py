"""What is allowed about an alert rule, and probably not meant: it never triggers, or always."""

import ast
from collections.abc import Collection, Iterator, Mapping

from headrace.schemas.condition import AbsenceCondition, ExpressionCondition, ThresholdCondition, ValueCondition
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import ALL_TYPES, AlertRule
from headrace.schemas.text import near

#: Of more devices than this the id that was probably meant is not looked for: it would take seconds.
MOST_GUESSED = 10_000
#: Devices that are named one by one.
MOST_NAMED = 5


def rule_doubts(
    rule: AlertRule,
    device_types: Mapping[str, DeviceType],
    devices: Collection[str] = (),
    organisations: Collection[str] | None = None,
) -> Iterator[str]:
    """Each with what makes it doubtful. Rules that are not active have none.

    Args:
        device_types: by name.
        devices: ids in the registry; empty if nobody registers devices.
        organisations: those that registered devices have; None if that is not known.
    """
    if rule.status != "active":
        return
    names = device_types if rule.device_type == ALL_TYPES else [rule.device_type]
    types = [device_types[name] for name in names if name in device_types and _is_for(rule, device_types[name])]
    found = [list(_of_type(rule, each)) for each in types]
    # For several types: what makes sense for one of them is meant for that.
    if found and all(found):
        yield found[0][0]
    yield from _devices(rule, devices)
    wanted = rule.organization_id
    if wanted is not None and organisations and wanted not in organisations:
        yield f"organization_id: no registered device is of {wanted!r}{near(wanted, organisations)}"


def _is_for(rule: AlertRule, device_type: DeviceType) -> bool:
    condition = rule.condition
    if isinstance(condition, ExpressionCondition):
        tree = list(ast.walk(_tree(condition.expression)))
        functions = {each.func.id for each in tree if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
        return {each.id for each in tree if isinstance(each, ast.Name)} - functions <= device_type.units.keys()
    return not isinstance(condition, ThresholdCondition) or condition.metric in device_type.units


def _of_type(rule: AlertRule, device_type: DeviceType) -> Iterator[str]:
    condition = rule.condition
    if isinstance(condition, ThresholdCondition):
        yield from _range(condition, device_type)
    cadence = device_type.cadence
    if isinstance(condition, ThresholdCondition):
        cadence = device_type.cadences.get(condition.metric, cadence)
    if isinstance(condition, ValueCondition) and cadence and condition.max_gap and condition.max_gap < cadence:
        yield f"condition.max_gap: {device_type.name} reports every {cadence:g} s: there is a gap after every reading"
    silent_for = condition.silent_for if isinstance(condition, AbsenceCondition) else "learned"
    if silent_for != "learned" and cadence and silent_for < cadence:
        yield f"condition.silent_for: {device_type.name} reports every {cadence:g} s: it is silent for longer as a rule"


def _range(condition: ThresholdCondition, device_type: DeviceType) -> Iterator[str]:
    spec = device_type.fields.get(condition.metric)
    if spec is None or condition.rate_per is not None:
        return
    operator, threshold = condition.operator, condition.threshold
    what = f"condition.threshold: {condition.metric} of {device_type.name} is"
    low, high = spec.min, spec.max
    if high is not None and {">": threshold >= high, ">=": threshold > high, "==": threshold > high}.get(operator):
        yield f"{what} at most {high:g} {spec.unit}, what is above is refused: it never holds"
    elif low is not None and {"<": threshold <= low, "<=": threshold < low, "==": threshold < low}.get(operator):
        yield f"{what} at least {low:g} {spec.unit}, what is below is refused: it never holds"
    elif low is not None and {">": threshold < low, ">=": threshold <= low}.get(operator):
        yield f"{what} at least {low:g} {spec.unit}: it always holds"
    elif high is not None and {"<": threshold > high, "<=": threshold >= high}.get(operator):
        yield f"{what} at most {high:g} {spec.unit}: it always holds"


def _tree(text: str) -> ast.Expression:
    return ast.parse(" ".join(text.split()), mode="eval")


def _devices(rule: AlertRule, devices: Collection[str]) -> Iterator[str]:
    if not devices:
        return
    strangers = [each for each in rule.device_ids if each not in devices]
    for name in strangers[:MOST_NAMED]:
        hint = near(name, devices) if len(devices) <= MOST_GUESSED else ""
        yield f"device_ids: {name!r} is not in the registry{hint}"
    if len(strangers) > MOST_NAMED:
        yield f"device_ids: nor are {len(strangers) - MOST_NAMED:,} others"

"""Whether alert rules fit the device types: names, units and what could never hold."""

import ast
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from headrace.schemas.condition import AnomalyCondition, ExpressionCondition, ThresholdCondition
from headrace.schemas.device_type import DeviceType
from headrace.schemas.expression import Expression
from headrace.schemas.expression_units import unit_of
from headrace.schemas.rule import ALL_TYPES, AlertRule
from headrace.schemas.text import near

#: The metric of anomalies about silence; no device type has it.
CADENCE = "cadence"
#: Device types that are named one by one.
MOST_NAMED = 5


def rule_mistakes_of(
    rule: AlertRule, device_types: Mapping[str, DeviceType], detectors: Collection[str] | None = None
) -> Iterator[str]:
    """What keeps a rule from ever triggering; each says what to do. A deleted rule has no mistakes.

    Args:
        device_types: by name. A rule for all of them is right if one of them has what it needs.
        detectors: those that run; None if that is not known.
    """
    if rule.status == "deleted":
        return
    types = dict(device_types)
    if rule.device_type != ALL_TYPES:
        found = device_types.get(rule.device_type)
        if found is None:
            known = ", ".join(sorted(device_types))
            yield (
                f"device_type: there is no device type {rule.device_type}; there are {known}, and all"
                f"{near(rule.device_type, [*device_types, ALL_TYPES])}"
            )
        else:
            types = {rule.device_type: found}
    yield from (f"condition.{mistake}" for mistake in _condition(rule, types, detectors))
    for name, count in Counter(rule.device_ids).items():
        if count > 1:
            yield f"device_ids: {name!r} is there {count} times"
    for number, stretch in enumerate(rule.schedule.stretches):
        if stretch.start == "24:00":
            yield f"schedule.stretches.{number}.start: 24:00 ends a day; write 00:00 on the next one"
        elif stretch.start == stretch.end:
            yield f"schedule.stretches.{number}: it ends when it starts; a whole day is from 00:00 to 24:00"
        if len(set(stretch.days)) < len(stretch.days):
            yield f"schedule.stretches.{number}.days: a day is there twice"


def _condition(rule: AlertRule, types: Mapping[str, DeviceType], detectors: Collection[str] | None) -> Iterator[str]:
    condition = rule.condition
    match condition:
        case ThresholdCondition(metric=metric):
            yield from _metric(metric, types)
        case ExpressionCondition():
            yield from (f"expression: {mistake}" for mistake in _expression(condition.expression, types))
        case AnomalyCondition():
            if condition.metric is not None and condition.metric != CADENCE:
                yield from _metric(condition.metric, types)
            name = condition.detector
            if name is not None and detectors is not None and name not in detectors:
                running = ", ".join(detectors) or "none"
                yield (f"detector: no detector {name!r} runs; [detect] detectors are {running}{near(name, detectors)}")


def _metric(metric: str, types: Mapping[str, DeviceType]) -> Iterator[str]:
    if any(metric in each.units for each in types.values()):
        return
    if texts := [name for name, each in types.items() if metric in each.texts]:
        yield f"metric: {metric} of {_listed(texts)} is a text; rules compare numbers"
        return
    known = dict.fromkeys(name for each in types.values() for name in each.units)
    meant = _aliases(types).get(metric)
    hint = f"; did you mean {meant!r}?" if meant else near(metric, known)
    if len(types) == 1:
        (only,) = types
        yield f"metric: {only} has no metric {metric}{hint}; it has {', '.join(known)}"
    else:
        yield f"metric: no device type has a metric {metric}{hint}"


def _expression(text: str, types: Mapping[str, DeviceType]) -> Iterator[str]:
    """What is wrong with an expression, if it is with every type."""
    names = dict.fromkeys(name for each in types.values() for name in each.units)
    try:
        # What is wrong whatever the type is said once.
        inputs = Expression(text, list(names), aliases=_aliases(types)).inputs
    except ValueError as error:
        yield _without_type(str(error), types)
        return
    if not _is_truth(_parsed(text)):
        yield f"{text!r} is a number and neither true nor false; compare it, as in ({text}) > 0"
        return
    if unfit := list(_unfit(text)):
        yield from unfit
        return
    wrong: dict[str, str] = {}
    for name, device_type in types.items():
        lacking = [each for each in inputs if each not in device_type.units]
        if lacking:
            wrong[name] = f"{name} has no {' and no '.join(lacking)}"
            continue
        try:
            unit_of(text, {each: device_type.unit(device_type.units[each]) for each in inputs}, bare_numbers=True)
            _need_truths(text, device_type)
        except ValueError as error:
            wrong[name] = f"{name}: {error}"
        else:
            return
    # Types that have nothing of it are not those that were meant.
    meant = [each for name, each in wrong.items() if any(one in types[name].units for one in inputs)]
    if len(types) == 1:
        yield from meant or wrong.values()
        return
    more = f"; and {len(meant) - MOST_NAMED} more" if len(meant) > MOST_NAMED else ""
    what = f"no device type has all of {', '.join(inputs)}" if len(inputs) > 1 else "the units fit no device type"
    yield f"{what}: {'; '.join(meant[:MOST_NAMED])}{more}"


def _without_type(message: str, types: Mapping[str, DeviceType]) -> str:
    whose = next(iter(types)) if len(types) == 1 else "any device type"
    return message.replace("a numeric field of the device type", f"a metric of {whose}")


def _aliases(types: Mapping[str, DeviceType]) -> dict[str, str]:
    """Other names under which measures come, with the measure."""
    return {alias: name for each in types.values() for name, spec in each.fields.items() for alias in spec.aliases}


def _parsed(text: str) -> ast.expr:
    return ast.parse(" ".join(text.split()), mode="eval").body


def _is_truth(node: ast.expr) -> bool:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return True
    return False


def _operands(text: str) -> Iterator[ast.expr]:
    """What `and`, `or` and `not` take for true or false."""
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.BoolOp):
            yield from node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.operand


def _unfit(text: str) -> Iterator[str]:
    """What is the same for every reading, and what is neither true nor false whatever its unit."""
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Compare) and not any(isinstance(each, ast.Name) for each in ast.walk(node)):
            yield f"{ast.unparse(node)} compares no metric: it is the same for every reading"
    for node in _operands(text):
        if not _is_truth(node) and not isinstance(node, ast.Name):
            part = ast.unparse(node)
            yield f"{part!r} is a number and neither true nor false; compare it, as in ({part}) > 0"


def _need_truths(text: str, device_type: DeviceType) -> None:
    for node in _operands(text):
        if isinstance(node, ast.Name) and (unit := device_type.units[node.id]) != "1":
            raise ValueError(f"{node.id} is in {unit}, and neither true nor false; compare it, as in {node.id} > 0")


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:MOST_NAMED]
    return ", ".join(shown) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")

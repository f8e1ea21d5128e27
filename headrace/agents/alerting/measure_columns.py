"""Rules with conditions on values, by what they look at, and by whom they are for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from headrace.agents.alerting.evaluation import Watched, watched
from headrace.agents.alerting.ladder import Ladder
from headrace.schemas.condition import ThresholdCondition, ValueCondition
from headrace.tables.rule_book import RuleSet


class Looked(NamedTuple):
    """What rules look at: a metric, its rate per so many seconds, or an expression."""

    kind: Literal["metric", "rate", "expression"]
    name: str
    per: float = 0.0


class Whom:
    """Whom the rules of a column are for.

    Args:
        rules: in order; a rule's number is its place.
    """

    def __init__(self, rules: Sequence[Watched]) -> None:
        #: Of the rules for all devices.
        self.all: list[int] = []
        self.organisations: defaultdict[str, list[int]] = defaultdict(list)
        self.devices: defaultdict[str, list[int]] = defaultdict(list)
        self.wanted = [(each.rule.device_ids, each.rule.organization_id) for each in rules]
        for number, (device_ids, organisation) in enumerate(self.wanted):
            for device in device_ids:
                self.devices[device].append(number)
            if organisation is not None and not device_ids:
                self.organisations[organisation].append(number)
            elif not device_ids:
                self.all.append(number)


class Column:
    """The rules for a device type that look at the same.

    Rules for all devices share a ladder; those for an organisation, and those for the same listed devices, have ladders
    of their own, so that a device costs what its own rules do.

    Args:
        looked: at what.
        rules: in order; a rule's number is its place here.
        before: the column before rules changed: what is the same is not made anew.
    """

    def __init__(self, looked: Looked, rules: Sequence[Watched], before: "Column | None" = None) -> None:
        self.looked = looked
        self.rules = tuple(rules)
        self.numbers = {each.rule.rule_id: number for number, each in enumerate(self.rules)}
        wanted = [(each.rule.device_ids, each.rule.organization_id) for each in self.rules]
        same = before is not None and before.whom.wanted == wanted
        self.whom: Whom = before.whom if before is not None and same else Whom(self.rules)
        #: Of the rules for all devices.
        self.general: Ladder | None = None
        self._organisations: dict[str, Ladder] = {}
        self._listed: dict[tuple[int, ...], Ladder] = {}
        if before is not None and self.same(before):
            self.general, self._organisations, self._listed = before.general, before._organisations, before._listed
        else:
            self.general = self._ladder(self.whom.all) if self.whom.all else None
            self._organisations = {name: self._ladder(each) for name, each in self.whom.organisations.items()}
        #: Whether it matters which organisation a device has.
        self.by_organisation = any(organisation is not None for _, organisation in wanted)
        #: Whether some rule is not for all devices.
        self.limited = self.by_organisation or bool(self.whom.devices)

    def is_for(self, number: int, device_id: str) -> bool:
        """Whether a rule is for a device, its organisation aside."""
        return not self.rules[number].rule.device_ids or number in self.whom.devices.get(device_id, ())

    def ladders(self, device_id: str, organisation: str | None) -> list[Ladder]:
        """Those of the rules that may be for a device; one whose organisation is another one may be among them."""
        found = [] if self.general is None else [self.general]
        if self.limited:
            if organisation in self._organisations:
                found.append(self._organisations[organisation])
            numbers = tuple(self.whom.devices.get(device_id, ()))
            if numbers and numbers not in self._listed:
                self._listed[numbers] = self._ladder(numbers)
            if numbers:
                found.append(self._listed[numbers])
        return found

    def same(self, other: "Column") -> bool:
        """Whether the rules are the same ones, in whatever places among others."""
        return [each.rule for each in self.rules] == [each.rule for each in other.rules]

    def _ladder(self, numbers: Sequence[int]) -> Ladder:
        return Ladder([(number, self.rules[number].condition) for number in numbers])


class Plan:
    """What is to be looked at for a device type, under one set of rules.

    Args:
        before: the plan before rules changed.
    """

    def __init__(self, rules: RuleSet, device_type: str, before: "Plan | None" = None) -> None:
        known = {} if before is None else before.columns
        found: defaultdict[Looked, list[Watched]] = defaultdict(list)
        for place in rules.of_type(device_type):
            each = watched(rules.rules[place], place)
            if each is not None:
                found[_looked(each.condition)].append(each)
        self.columns: dict[Looked, Column] = {
            looked: Column(looked, each, known.get(looked)) for looked, each in found.items()
        }
        self.rated = sorted({looked.name for looked in found if looked.kind == "rate"})
        self.by_organisation = any(column.by_organisation for column in self.columns.values())


def _looked(condition: ValueCondition) -> Looked:
    if not isinstance(condition, ThresholdCondition):
        return Looked("expression", condition.expression)
    if condition.rate_per is None:
        return Looked("metric", condition.metric)
    return Looked("rate", condition.metric, condition.rate_per)

"""The alert rules that apply to a record: those of the file, and those of the topic `rules`, which win."""

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.engine.errors import ConfigError
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Ints
from headrace.schemas.rule import AlertRule
from headrace.tables.replicated import Replicated
from headrace.tables.rules import check_rules, read_rule


def encode_rule(rule: AlertRule) -> bytes:
    """A rule as the topic `rules` has it: the JSON of its model; the key is its id."""
    return rule.model_dump_json(by_alias=True).encode()


def rule_table(device_types: Mapping[str, DeviceType]) -> Replicated[AlertRule]:
    """The topic `rules` as a table. Rules that could never fire, because of a name, are refused."""

    def decode(value: bytes) -> AlertRule:
        rule = read_rule(value)
        check_rules([rule], device_types)
        return rule

    return Replicated(topics.RULES, decode)


class RuleSet:
    """Rules that apply at the same time, in the order in which they are evaluated."""

    def __init__(self, rules: Sequence[AlertRule]) -> None:
        self.rules = tuple(rules)
        self._by_type: dict[str, list[int]] = {}

    def of_type(self, device_type: str) -> list[int]:
        """Places of the rules that are evaluated for devices of this type."""
        found = self._by_type.get(device_type)
        if found is None:
            found = [number for number, rule in enumerate(self.rules) if rule.applies_to(device_type)]
            self._by_type[device_type] = found
        return found


class RuleBook:
    """Says which rules apply to records, by their append times.

    A rule of the topic takes the place of the file's one with the same id, until it is deleted; others come behind
    those of the file, in the order of their ids. Its id is the key, whatever the value says.

    Args:
        rules: those of the file, with different ids.
        changes: those of the topic; None if there are no others.
    Raises:
        ConfigError: two rules have the same id.
    """

    def __init__(self, rules: Sequence[AlertRule], changes: Replicated[AlertRule] | None = None) -> None:
        ids = [rule.rule_id for rule in rules]
        if doubles := sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1}):
            raise ConfigError(*(f"alert: there is more than one rule {rule_id!r}" for rule_id in doubles))
        self._rules = tuple(rules)
        self._changes = changes
        self._known: dict[int, RuleSet] = {}
        self._revision = -1

    def sets(self, timestamps: Sequence[int]) -> tuple[list[RuleSet], Ints]:
        """The sets that apply to records with these append times (ms), and for each, (n,) int64, which of them."""
        which = np.zeros(len(timestamps), dtype=np.int64)
        if self._changes is None:
            return [self.at(0)], which
        spans = self._changes.spans(timestamps)
        for number, span in enumerate(spans[1:], 1):
            which[list(span.rows)] = number
        return [self.at(span.at_ms) for span in spans], which

    def at(self, at_ms: int | None = None) -> RuleSet:
        """The rules for a record appended at `at_ms`, or the newest ones."""
        if self._changes is not None and self._revision != self._changes.revision:
            self._known.clear()
            self._revision = self._changes.revision
        at_ms = _FOR_EVER if at_ms is None else at_ms
        found = self._known.get(at_ms)
        if found is None:
            found = self._known[at_ms] = RuleSet(self._merged(at_ms))
        return found

    def _merged(self, at_ms: int) -> list[AlertRule]:
        changed = {} if self._changes is None else dict(self._changes.items(at_ms))
        for key, rule in changed.items():
            if rule.rule_id != key:
                changed[key] = rule.model_copy(update={"rule_id": key})
        merged = [changed.pop(rule.rule_id, rule) for rule in self._rules]
        return [*merged, *(changed[key] for key in sorted(changed))]


#: Later than any change.
_FOR_EVER = 2**63 - 1

"""What becomes of watches when rules change."""

from dataclasses import replace

from headrace.agents.alerting.standing import rested
from headrace.agents.alerting.watch import IDLE
from headrace.agents.alerting.watch_table import WatchTable, draft_of
from headrace.agents.alerting.work import Work
from headrace.schemas.condition import ValueCondition
from headrace.schemas.rule import AlertRule


def drop_ended(work: Work, table: WatchTable) -> None:
    """Forget the watches of alerts that this batch has ended for a reason that is none of the condition's."""
    draft = draft_of(work, table)
    for key, standing in work.staged.items():
        if draft.get(key).met and not standing.met and not standing.open:
            draft.changed[key] = IDLE


def drop_uncovered(work: Work, table: WatchTable) -> None:
    """Forget the watches whose rule is gone, inactive, of another kind, or no longer for their device.

    The same when it runs again, as it does after a restart. So the organisation of a device is not asked for: it may
    change without the rule.
    """
    rules = {rule.rule_id: rule for rule in work.rules.rules}
    draft = draft_of(work, table)
    for key, _ in table.entries(work.partition):
        rule = rules.get(key[0])
        if rule is not None and _covers(rule, *key[1:]):
            continue
        draft.changed[key] = IDLE
        standing = work.standing(key)
        if standing.met or standing.blocked:
            work.set(key, rested(replace(standing, met=False, blocked=False), work.now_ms[0]))


def _covers(rule: AlertRule, device_type: str, device_id: str) -> bool:
    listed = not rule.device_ids or device_id in rule.device_ids
    return isinstance(rule.condition, ValueCondition) and rule.applies_to(device_type) and listed

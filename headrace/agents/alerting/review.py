"""What happens to open alerts although nothing comes from their devices: rules go, suppressions begin and end."""

from dataclasses import replace

from headrace.agents.alerting.standing import resolved
from headrace.agents.alerting.work import Surroundings, Work
from headrace.schemas.alert import Change, Resolution


def end_uncovered(work: Work) -> None:
    """End the alerts whose rule is gone, inactive, or no longer for their device."""
    rules = {rule.rule_id: rule for rule in work.rules.rules}
    at_ms = work.now_ms[0]
    for key, standing in work.open_alerts():
        rule_id, device_type, device_id = key
        rule = rules.get(rule_id)
        if rule is not None and rule.applies_to(device_type) and work.applies(rule, device_id, 0):
            continue
        over = replace(resolved(standing, at_ms, Resolution(by="rule")), met=False, blocked=False)
        assert over.alert is not None
        work.set(key, over)
        work.add(0, -1, "resolved", over.alert, at_ms, rule)


def review_suppressions(work: Work, around: Surroundings) -> None:
    """Note which open alerts are suppressed now, and by what."""
    row, at_ms = len(work.now_ms) - 1, work.now_ms[-1]
    for key, standing in work.open_alerts():
        assert standing.alert is not None
        before = standing.alert.suppressed
        after = around.suppression(standing.alert, standing.snoozed_until, at_ms)
        if after == before:
            continue
        alert = standing.alert.model_copy(update={"suppressed": after, "revision": standing.alert.revision + 1})
        work.set(key, replace(standing, alert=alert))
        change: Change = "updated" if after and before else "suppressed" if after else "unsuppressed"
        work.add(row, _LAST, change, alert, at_ms, None)


#: Behind everything else of its row.
_LAST = 1 << 30

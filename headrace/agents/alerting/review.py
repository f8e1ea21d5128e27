"""What happens to alerts although nothing comes from their devices: rules go, suppressions begin and end."""

from dataclasses import replace

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.moments import Plan, rules_by_id
from headrace.agents.alerting.standing import Standing, resolved, rested
from headrace.agents.alerting.work import Work
from headrace.schemas.alert import EXPLAINS, Change, Resolution
from headrace.schemas.rule import AlertRule


def review(work: Work, plan: Plan, keep_over_ms: int) -> None:
    """Bring the alerts of a plan to what they are at the batch's first record, before what that says.

    Those whose rule is gone, inactive, or no longer for their device end, and those whose device is retired. Of the
    others is noted what suppresses them, and whether they explain others. Those that have been over for long are
    forgotten.
    """
    rules = rules_by_id(work.rules) if plan.keys else {}
    for key in plan.keys:
        standing = work.standing(key)
        if standing.open:
            _look_at(work, key, standing, rules.get(key[0]))
        elif standing.over_at is not None and work.now_ms[0] >= standing.over_at + keep_over_ms:
            assert standing.alert is not None
            work.forget(key, standing.alert.alertId)


def _look_at(work: Work, key: Key, standing: Standing, rule: AlertRule | None) -> None:
    alert, at_ms = standing.alert, work.now_ms[0]
    assert alert is not None
    _, device_type, device_id = key
    retired = work.device(device_id, 0).status == "retired"
    if retired or rule is None or not rule.applies_to(device_type) or not work.applies(rule, device_id, 0):
        over = replace(resolved(standing, at_ms, Resolution(by="rule")), met=False, blocked=False)
        assert over.alert is not None
        work.set(key, rested(over, at_ms))
        work.add(0, _FIRST, "resolved", over.alert, at_ms, rule)
        return
    after = work.suppressed(alert, standing.snoozed_until, 0)
    cause = None
    if rule.explains != bool(alert.metadata.get(EXPLAINS)):
        cause = rule.explains
        others = {name: value for name, value in after.metadata.items() if name != EXPLAINS}
        after = after.model_copy(update={"metadata": {**others, **({EXPLAINS: True} if cause else {})}})
    if (after.suppressed, after.metadata) == (alert.suppressed, alert.metadata):
        return
    after = after.model_copy(update={"revision": alert.revision + 1})
    work.set(key, replace(standing, alert=after))
    change: Change = "updated"
    if bool(alert.suppressed) != bool(after.suppressed):
        change = "suppressed" if after.suppressed else "unsuppressed"
    work.add(0, _FIRST, change, after, at_ms, rule, cause=cause)


#: Before everything else of its row.
_FIRST = -1

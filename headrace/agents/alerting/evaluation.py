"""One reading and one rule: what becomes of the watch, and what is reported of it."""

from typing import NamedTuple

from headrace.agents.alerting.sample import at_once, metric_of
from headrace.agents.alerting.watch import Sampled, Watch, observe, threshold_of
from headrace.agents.alerting.watch_table import WatchDraft
from headrace.agents.alerting.work import Finding, Work
from headrace.schemas.condition import ValueCondition
from headrace.schemas.rule import AlertRule


class Watched(NamedTuple):
    """A rule with a condition on values.

    Args:
        rule, condition: the rule, and its condition.
        place: among the rules.
        metric, threshold: what findings say.
        at_once: whether one reading is enough to meet it.
    """

    rule: AlertRule
    condition: ValueCondition
    place: int
    metric: str
    threshold: float | None
    at_once: bool


class Seen(NamedTuple):
    """A reading: its place in the batch, whose it is, event time (ms), and message id."""

    row: int
    device_type: str
    device_id: str
    time: int
    message_id: str


def watched(rule: AlertRule, place: int) -> Watched | None:
    """The rule as something to evaluate; None if its condition is not on values."""
    condition = rule.condition
    if not isinstance(condition, ValueCondition):
        return None
    metric, threshold = metric_of(condition), threshold_of(condition)
    return Watched(rule, condition, place, metric, threshold, at_once(condition))


def evaluate(work: Work, each: Watched, seen: Seen, sample: Sampled, watches: WatchDraft) -> bool:
    """Take a reading of the ordinary lane; whether more on the same side of the thresholds would change nothing.

    The rule must be for the device, but for its organisation, which is looked up.
    """
    if not _applies(work, each, seen):
        return True
    key = (each.rule.rule_id, seen.device_type, seen.device_id)
    standing = work.standing(key)
    if standing.alert is not None and standing.open and seen.time < standing.alert.triggeredAt:
        return False  # triggered in the priority lane, which has overtaken this reading
    before = watches.get(key)
    after, no_data_at = observe(each.condition, before, sample)
    if no_data_at is not None:
        standing = work.report(_finding(each, seen, after, None, no_data_at, met=False))
    if standing.met != after.met or not standing.settled:
        standing = work.report(_finding(each, seen, after, sample[1], seen.time, met=after.met))
    if after.met and after.evidence and standing.open:
        after = Watch(met=True, clear_since=after.clear_since, seen=after.seen, recent=after.recent)
    if after != before:
        watches.changed[key] = after
    return after.settled(each.condition, sample[1]) and standing.settled and after.met == standing.met


def evaluate_early(work: Work, each: Watched, seen: Seen, sample: Sampled, watches: WatchDraft) -> bool:
    """Take a reading of the priority lane; whether it has triggered an alert. See `evaluate`."""
    if not each.at_once or not _applies(work, each, seen):
        return False
    key = (each.rule.rule_id, seen.device_type, seen.device_id)
    standing, before = work.standing(key), watches.get(key)
    if before.met or standing.open:
        return False
    after, _ = observe(each.condition, before, sample)
    if not after.met or not work.report(_finding(each, seen, after, sample[1], seen.time, met=True)).open:
        return False
    watches.changed[key] = Watch(met=True, seen=after.seen)
    return True


def _applies(work: Work, each: Watched, seen: Seen) -> bool:
    wanted = each.rule.organization_id
    return wanted is None or work.organisation(seen.device_id, seen.row) == wanted


def _finding(each: Watched, seen: Seen, after: Watch, value: float | None, time: int, *, met: bool) -> Finding:
    return Finding(
        each.rule,
        each.place,
        seen.row,
        seen.device_type,
        seen.device_id,
        time,
        met,
        each.metric,
        value,
        each.threshold,
        after.evidence,
        seen.message_id,
        "condition" if value is not None else "no-data",
    )

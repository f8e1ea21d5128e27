"""Whether the condition of a rule is met on a device, from one reading to the next: pure functions.

           holds for `duration`
waiting ──────────────────────▶ met
   ▲  does not hold (any more)    │ clear for `clear_for`, or no reading for `max_gap` with gap "no-data"
   └──────────────────────────────┘
"""

import operator
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.schemas.alert import MOST_EVIDENCE
from headrace.schemas.condition import ExpressionCondition, Operator, ThresholdCondition, ValueCondition

COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}

#: Event time in ms, what the rule looks at, and of an expression the metrics that it was made of.
Sampled = tuple[int, float, dict[str, float] | None]


class Watch(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What is remembered of one rule on one device; nothing is needed when all is at its default.

    Args:
        met: whether the condition is met: it has held for its duration, and was not clear for long enough since.
        since: event time of the first reading of the running streak in which it holds, ms; None while met.
        evidence: samples of that streak, up to the moment when it was met; of many, the first and the newest. Kept
            until an alert has them.
        clear_since: while met, event time of the first reading of the running streak in which it does not hold, ms.
        seen: event time of the last reading, ms; kept where a gap after it would change something.
        recent: with "n of m", whether it held on each of the last readings, the newest last; while it is met, left out
            if it did on all of them; while not, if on none.
    """

    met: bool = False
    since: int | None = None
    evidence: tuple[Sampled, ...] = ()
    clear_since: int | None = None
    seen: int | None = None
    recent: tuple[bool, ...] = ()

    def settled(self, condition: ValueCondition, value: float) -> bool:
        """Whether more readings on the side of the thresholds on which `value`, the last one, is change nothing."""
        if self.met:
            return self.clear_since is None and self.seen is None and not self.recent
        # With "n of m" it may be over on a reading on which it holds again: the next one counts.
        return (
            self.since is None
            and not self.recent
            and (condition.out_of is None or not holds(condition, value, met=False))
        )


IDLE = Watch()
MET = Watch(met=True)


def holds(condition: ValueCondition, value: float, *, met: bool) -> bool:
    """Whether a value fits the condition; while it is met, the threshold is that of `clear`."""
    if isinstance(condition, ExpressionCondition):
        return value != 0
    threshold = condition.clear if met and condition.clear is not None else condition.threshold
    return bool(COMPARE[condition.operator](value, threshold))


def threshold_of(condition: ValueCondition) -> float | None:
    """What values are compared with; None for an expression."""
    return condition.threshold if isinstance(condition, ThresholdCondition) else None


def observe(condition: ValueCondition, watch: Watch, sample: Sampled) -> tuple[Watch, int | None]:
    """The watch after a reading, and since when no data ended it, ms, if that happened before the reading.

    Args:
        condition: of the rule.
        watch: as it was.
        sample: of the reading; its event time is not before that of the reading before.
    """
    time, value, _ = sample
    no_data_at = None
    if watch.seen is not None and condition.max_gap is not None and time - watch.seen > condition.max_gap * 1000:
        if watch.met and condition.gap == "no-data":
            no_data_at = watch.seen + round(condition.max_gap * 1000)
            watch = IDLE
        else:
            watch = Watch(met=watch.met, evidence=watch.evidence if watch.met else ())
    held = holds(condition, value, met=watch.met)
    seen = None if condition.max_gap is None else time
    if watch.met:
        return _met(condition, watch, time, seen, held=held), no_data_at
    return _waiting(condition, watch, sample, seen, held=held), no_data_at


def _waiting(condition: ValueCondition, watch: Watch, sample: Sampled, seen: int | None, *, held: bool) -> Watch:
    recent: tuple[bool, ...] = ()
    fits = held
    if condition.out_of is not None:
        recent = (*watch.recent, held)[-condition.out_of.m :]
        fits = sum(recent) >= condition.out_of.n
        if not any(recent):
            return IDLE
    elif not held:
        return IDLE
    evidence = _added(watch.evidence, sample) if held else watch.evidence
    if not fits:
        # The samples on which it held are kept: they may be part of the n.
        return Watch(evidence=evidence, seen=seen, recent=recent)
    since = sample[0] if watch.since is None else watch.since
    if sample[0] - since < condition.duration * 1000:
        return Watch(since=since, evidence=evidence, seen=seen, recent=recent)
    return _still_met(condition, Watch(met=True, evidence=evidence, recent=recent), seen)


def _met(condition: ValueCondition, watch: Watch, time: int, seen: int | None, *, held: bool) -> Watch:
    recent: tuple[bool, ...] = ()
    fits = held
    if condition.out_of is not None:
        n, m = condition.out_of.n, condition.out_of.m
        recent = (*watch.recent, held)[-m:]
        # What a gap has taken away counts for the alert, which stays.
        fits = recent.count(False) <= m - n
    if fits:
        return _still_met(condition, Watch(met=True, evidence=watch.evidence, recent=recent), seen)
    clear_since = time if watch.clear_since is None else watch.clear_since
    if time - clear_since >= condition.clear_for * 1000:
        return IDLE
    return Watch(met=True, evidence=watch.evidence, clear_since=clear_since, seen=seen, recent=recent)


def _still_met(condition: ValueCondition, watch: Watch, seen: int | None) -> Watch:
    recent = () if all(watch.recent) else watch.recent
    return Watch(
        met=True,
        evidence=watch.evidence,
        seen=seen if recent or condition.gap == "no-data" else None,
        recent=recent,
    )


def _added(evidence: tuple[Sampled, ...], sample: Sampled) -> tuple[Sampled, ...]:
    evidence = (*evidence, sample)
    return evidence if len(evidence) <= MOST_EVIDENCE else (evidence[0], *evidence[2:])

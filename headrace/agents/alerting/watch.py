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
        evidence: samples of that streak, up to the moment when it was met; of many, the first and the newest.
        clear_since: while met, event time of the first reading of the running streak in which it does not hold, ms.
        seen: event time of the last reading, ms; kept where the condition has a gap rule.
        recent: whether it held on each of the last readings, the newest last; kept with "n of m".
    """

    met: bool = False
    since: int | None = None
    evidence: tuple[Sampled, ...] = ()
    clear_since: int | None = None
    seen: int | None = None
    recent: tuple[bool, ...] = ()


IDLE = Watch()


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
    if condition.max_gap is not None:
        if watch.seen is not None and time - watch.seen > condition.max_gap * 1000:
            if watch.met and condition.gap == "no-data":
                no_data_at = watch.seen + round(condition.max_gap * 1000)
                watch = IDLE
            else:
                watch = Watch(met=watch.met)
        watch = msgspec.structs.replace(watch, seen=time)
    held = holds(condition, value, met=watch.met)
    recent = watch.recent
    if condition.out_of is not None:
        recent = (*recent, held)[-condition.out_of.m :]
        fits = sum(recent) >= condition.out_of.n
    else:
        fits = held
    if watch.met:
        return _met(condition, watch, time, recent, fits=fits), no_data_at
    if not fits:
        # With "n of m" the samples that fit are kept: they may be part of the n.
        evidence = watch.evidence if any(recent) else ()
        evidence = _added(evidence, sample) if held and condition.out_of is not None else evidence
        return Watch(seen=watch.seen, recent=recent if any(recent) else (), evidence=evidence), no_data_at
    since = time if watch.since is None else watch.since
    evidence = _added(watch.evidence, sample) if held else watch.evidence
    met = time - since >= condition.duration * 1000
    after = Watch(met=met, since=None if met else since, evidence=evidence, seen=watch.seen, recent=recent)
    return after, no_data_at


def _met(condition: ValueCondition, watch: Watch, time: int, recent: tuple[bool, ...], *, fits: bool) -> Watch:
    if fits:
        return Watch(met=True, evidence=watch.evidence, seen=watch.seen, recent=recent)
    clear_since = time if watch.clear_since is None else watch.clear_since
    if time - clear_since >= condition.clear_for * 1000:
        return Watch(seen=watch.seen, recent=recent if any(recent) else ())
    return Watch(met=True, evidence=watch.evidence, clear_since=clear_since, seen=watch.seen, recent=recent)


def _added(evidence: tuple[Sampled, ...], sample: Sampled) -> tuple[Sampled, ...]:
    evidence = (*evidence, sample)
    return evidence if len(evidence) <= MOST_EVIDENCE else (evidence[0], *evidence[2:])

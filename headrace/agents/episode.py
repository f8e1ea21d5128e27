"""One rule on one device: the states between the first reading that meets a condition and the end of the cooldown.

            holds for duration,
pending ──── after cooldown ────▶ open
 │  ▲                              │
 │  └── holds ── (none) ◀── past ──┤ does not hold: resolved
 └─ does not ───▶  ▲    cooldown   ▼
    hold           └──────────── cooling (pending again as soon as it holds)
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from headrace.schemas.rule import AlertRule, Operator

#: Readings kept as evidence per episode: the first one and the newest others.
MAX_EVIDENCE = 20

COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}

Change = Literal["triggered", "resolved"]


@dataclass(frozen=True, slots=True)
class Episode:
    """What is remembered; nothing of it is needed when all is at its default.

    Args:
        since: event time of the first reading of the running streak in which the condition holds, ms.
        evidence: (event time in ms, value) of that streak, up to the trigger.
        triggered_at: event time of the trigger of the open alert, ms.
        quiet_until: no new alert before this event time, ms.
    """

    since: int | None = None
    evidence: tuple[tuple[int, float], ...] = ()
    triggered_at: int | None = None
    quiet_until: int | None = None

    @property
    def open(self) -> bool:
        """Whether there is an alert now."""
        return self.triggered_at is not None

    def encode(self) -> bytes:
        """The episode as JSON."""
        return orjson.dumps([self.since, self.evidence, self.triggered_at, self.quiet_until])

    @classmethod
    def decode(cls, data: bytes) -> "Episode":
        """An episode from what `encode` made."""
        since, evidence, triggered_at, quiet_until = orjson.loads(data)
        return cls(since, tuple((time, value) for time, value in evidence), triggered_at, quiet_until)


IDLE = Episode()


def advance(rule: AlertRule, episode: Episode, time: int, value: float) -> tuple[Episode, Change | None]:
    """The episode after a reading of the rule's metric, and what that changed about the alert.

    Args:
        rule: the rule.
        episode: as it was.
        time: event time of the reading, ms; not before that of the reading before.
        value: of the rule's metric.
    """
    holds = COMPARE[rule.condition.operator](value, rule.condition.threshold)
    if episode.triggered_at is not None:
        if time < episode.triggered_at:  # triggered in the priority lane, which has overtaken this reading
            return episode, None
        return (episode, None) if holds else (_cooling(episode), "resolved")
    quiet = episode.quiet_until if episode.quiet_until is not None and time < episode.quiet_until else None
    if not holds:
        return Episode(quiet_until=quiet), None
    since = time if episode.since is None else episode.since
    evidence = (*episode.evidence, (time, float(value)))
    if len(evidence) > MAX_EVIDENCE:
        evidence = (evidence[0], *evidence[2:])
    pending = Episode(since, evidence, None, quiet)
    if time - since >= rule.condition.duration * 1000 and quiet is None:
        quiet_until = time + round(rule.cooldown_period * 1000)
        return replace(pending, triggered_at=time, quiet_until=quiet_until), "triggered"
    return pending, None


def announce(rule: AlertRule, episode: Episode, time: int, value: float) -> tuple[Episode, Change | None]:
    """As `advance`, for a reading of the priority lane: it may trigger an alert, and changes nothing else.

    What came before it is not known yet, so that it says nothing about a streak, nor that an alert is over.

    Args:
        rule: without duration.
    """
    if episode.open:
        return episode, None
    after, change = advance(rule, Episode(quiet_until=episode.quiet_until), time, value)
    return (after, change) if change == "triggered" else (episode, None)


def _cooling(episode: Episode) -> Episode:
    return Episode(quiet_until=episode.quiet_until)

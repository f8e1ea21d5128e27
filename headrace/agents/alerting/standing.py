"""When an alert of one rule on one device opens and ends: pure functions.

                 met, not in the cooldown, schedule covers it
   no alert ─────────────────────────────────────────────────▶ triggered ──▶ acknowledged
      ▲                                                            │              │
      └──────────────── not met (flapping: for a while) ───────────┴──────────────┤
      └──────────────── a person (then not before it was clear once) ─────────────┘

One alert at the most is open; the newest stays known when it is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from headrace.schemas.alert import Alert, Flaps, Resolution
from headrace.schemas.rule import AlertRule

#: Ids of commands on an alert that are kept to know repeats: the newest.
MOST_COMMANDS = 50


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of the alerts of one rule on one device.

    Args:
        alert: the newest one, open or over.
        met: whether the condition is met, as far as was heard.
        quiet_until: no new alert before this event time, ms.
        cooled: times that the condition was met in the cooldown, since the last trigger.
        triggers: event times of the last triggers, ms; as many as tell whether it is flapping.
        cleared_at: event time since which the condition of a flapping alert has been clear, ms.
        blocked: a person resolved the alert while the condition was met: nothing triggers until it was clear.
        snoozed_until: append time until which nobody is to be told, ms.
        commands: ids of the commands on `alert` that were carried out, or refused.
        over_at: append time since which there is nothing to remember but what was, ms: no alert is open, and the
            condition is not met.
    """

    alert: Alert | None = None
    met: bool = False
    quiet_until: int | None = None
    cooled: int = 0
    triggers: tuple[int, ...] = ()
    cleared_at: int | None = None
    blocked: bool = False
    snoozed_until: int | None = None
    commands: tuple[str, ...] = ()
    over_at: int | None = None

    @property
    def open(self) -> bool:
        """Whether there is an alert now."""
        return self.alert is not None and self.alert.status != "resolved"

    @property
    def settled(self) -> bool:
        """Whether nothing happens before the condition is met, or not met any more: time alone leads to nothing."""
        if self.met:
            return self.blocked or (self.open and self.cleared_at is None)
        return not self.open and not self.blocked

    def encode(self) -> bytes:
        """The standing as JSON; what is at its default is left out."""
        document: dict[str, Any] = {
            name: value
            for name in _PLAIN
            if (value := getattr(self, name)) != getattr(NOTHING, name)
        }  # fmt: skip
        if self.alert is not None:
            document["alert"] = orjson.Fragment(alert_json(self.alert))
        return orjson.dumps(document)

    @classmethod
    def decode(cls, data: bytes) -> "Standing":
        """A standing from what `encode` made."""
        document = orjson.loads(data)
        alert = document.pop("alert", None)
        for name in ("triggers", "commands"):
            document[name] = tuple(document.get(name, ()))
        return cls(alert=None if alert is None else Alert.model_validate(alert), **document)


_PLAIN = ("met", "quiet_until", "cooled", "triggers", "cleared_at", "blocked", "snoozed_until", "commands", "over_at")
NOTHING = Standing()


def alert_json(alert: Alert) -> bytes:
    """An alert as `alerts.state.v1` has it: what is not known is left out."""
    return alert.model_dump_json(exclude_none=True).encode()


def judge(
    rule: AlertRule,
    standing: Standing,
    time: int,
    value: float | None,
    make: Callable[[], Alert],
    *,
    met: bool,
    by: Literal["condition", "no-data"] = "condition",
) -> tuple[Standing, Literal["triggered", "resolved"] | None]:
    """The standing after the condition was found met or not, and what that changed about the alert.

    Args:
        rule: the rule.
        standing: as it was.
        time: event time of that, ms; not before that of the time before.
        value: what the rule looks at.
        make: the alert, if it triggers now; `flaps` and `cooldownSuppressed` are put in here.
        met: whether the condition is met.
        by: why it is not.
    """
    if not met:
        return _cleared(rule, standing, time, value, by)
    begins = not standing.met
    standing = replace(standing, met=True, cleared_at=None)
    if standing.open or standing.blocked or not rule.schedule.covers(time):
        return standing, None
    cooling = standing.quiet_until is not None and time < standing.quiet_until
    # The id of an alert is made of its trigger time: one that is over and the next differ by that.
    again = standing.alert is not None and time <= standing.alert.triggeredAt
    if cooling or again:
        return replace(standing, cooled=standing.cooled + (begins and cooling)), None
    triggers, flaps = _flaps(rule, standing.triggers, time)
    alert = make().model_copy(update={"flaps": flaps, "cooldownSuppressed": standing.cooled})
    quiet_until = time + round(rule.cooldown_period * 1000)
    return Standing(alert, True, quiet_until, triggers=triggers), "triggered"


def resolved(standing: Standing, time: int, resolution: Resolution, value: float | None = None) -> Standing:
    """The standing with its open alert over."""
    assert standing.alert is not None
    over = standing.alert.model_copy(
        update={
            "status": "resolved",
            "revision": standing.alert.revision + 1,
            "resolvedAt": time,
            "resolvedValue": value,
            "resolved": resolution,
        }
    )
    return replace(standing, alert=over, cleared_at=None, snoozed_until=None)


def rested(standing: Standing, now_ms: int) -> Standing:
    """The standing with `over_at` as it must be at this append time."""
    rests = standing.alert is not None and not (standing.open or standing.met or standing.blocked)
    if rests == (standing.over_at is not None):
        return standing
    return replace(standing, over_at=now_ms if rests else None)


def _cleared(
    rule: AlertRule, standing: Standing, time: int, value: float | None, by: Literal["condition", "no-data"]
) -> tuple[Standing, Literal["resolved"] | None]:
    standing = replace(standing, met=False, blocked=False)
    if not standing.open:
        return standing, None
    assert standing.alert is not None
    if standing.alert.flaps.flapping and rule.flapping is not None and by == "condition":
        since = time if standing.cleared_at is None else standing.cleared_at
        if time - since < rule.flapping.within * 1000:
            return replace(standing, cleared_at=since), None
    return resolved(standing, time, Resolution(by=by), value), "resolved"


def _flaps(rule: AlertRule, triggers: tuple[int, ...], time: int) -> tuple[tuple[int, ...], Flaps]:
    if rule.flapping is None:
        return (), Flaps()
    since = time - rule.flapping.within * 1000
    lately = (*(each for each in triggers if each >= since), time)[-rule.flapping.triggers :]
    return lately, Flaps(triggers=len(lately), flapping=len(lately) >= rule.flapping.triggers)

"""What is held for one recipient on one channel, until quiet hours or a cap let it go in one digest."""

from typing import NamedTuple

import msgspec

from headrace.agents.notifying.timers import TimedTable
from headrace.schemas.alert import Alert
from headrace.schemas.notification import MOST_ALERTS, Kind, RuleCount
from headrace.schemas.rule import Severity
from headrace.tables.keyvalue import KeyValue

#: Alerts of a list that are known one by one; more are only counted. When one of those ends, one less of its rule is
#: open, and each counts as one more device.
MOST_TRACKED = 1_000
#: Alerts of a list that are told to be held one by one; of the others so many are told together.
MOST_SINGLY, TOGETHER = MOST_ALERTS, 50
GRAVITY: dict[Severity, int] = {"critical": 2, "warning": 1, "info": 0}


class LineKey(NamedTuple):
    """A recipient on a channel."""

    recipient: str
    channel: str


class ItemKey(NamedTuple):
    """An alert that is held there."""

    recipient: str
    channel: str
    alert_id: str


class ToldKey(NamedTuple):
    """An alert that a recipient was told of."""

    recipient: str
    alert_id: str


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one rule in a list: alerts, those that are not over, and those beyond `MOST_TRACKED`, counts."""

    name: str
    severity: Severity
    alerts: int = 0
    open: int = 0
    untracked: int = 0


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A list.

    Args:
        since: append time at which the first one was held, ms.
        due: when to look at it, ms.
        rules: by id.
        tracked: items in the table, count.
        whole: items with their alert, by severity, counts.
        number: of the next item, so that they have an order.
        why: "quiet-hours" and "cap", as far as they are why.
        untold: ids that were not told to be held so far.
    """

    since: int
    due: int
    rules: dict[str, Tally] = {}
    tracked: int = 0
    whole: dict[Severity, int] = {}
    number: int = 0
    why: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    @property
    def severities(self) -> set[Severity]:
        """Of what is in it."""
        return {each.severity for each in self.rules.values()}

    @property
    def overflows(self) -> bool:
        """Whether some are only counted."""
        return any(each.untracked for each in self.rules.values())


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recipient on a channel: what went out lately, ms, digests so far, and what is held."""

    sent: tuple[int, ...] = ()
    digests: int = 0
    held: Held | None = None


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One alert of a list.

    Args:
        rule_id, device_id: of it.
        number: its place.
        kind: what happened last.
        at: append time of that, ms.
        open: whether it is not over.
        told: whether the recipient was told of it on this channel before.
        step, team: of the escalation.
        again: as in `headrace.schemas.notification.Request`.
        subject: JSON; empty unless the list has it whole.
    """

    rule_id: str
    device_id: str
    number: int
    kind: Kind
    at: int
    open: bool = True
    told: bool = False
    step: int = 0
    team: str | None = None
    again: int = 0
    subject: str = ""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """By which channels, and when last; see `headrace.schemas.notification.Request.again`."""

    channels: dict[str, int] = {}


def line_table() -> TimedTable[LineKey, Line]:
    """About 500 bytes per recipient and channel, and 200 per rule of which something is held."""
    return TimedTable.of("dispatch.lines", LineKey, Line, lambda each: each.held.due if each.held else None)


def item_table() -> KeyValue[ItemKey, Item]:
    """Per list at most `MOST_TRACKED` entries of 400 bytes, of which `MOST_ALERTS` of each severity have their
    alert: up to 10 KiB."""
    return KeyValue.typed("dispatch.held", key=ItemKey, value=Item)


def told_table() -> KeyValue[ToldKey, Told]:
    """About 400 bytes per open alert and person told of it."""
    return KeyValue.typed("dispatch.told", key=ToldKey, value=Told)


def added(held: Held, alert: Alert, *, whole: bool, tracked: bool) -> Held:
    """The list with one alert more."""
    tally = held.rules.get(alert.ruleId) or Tally(alert.ruleName, alert.severity)
    tally = msgspec.structs.replace(
        tally,
        alerts=tally.alerts + 1,
        open=tally.open + (alert.status != "resolved"),
        untracked=tally.untracked + (not tracked),
    )
    return msgspec.structs.replace(
        held,
        rules={**held.rules, alert.ruleId: tally},
        tracked=held.tracked + tracked,
        whole={**held.whole, alert.severity: held.whole.get(alert.severity, 0) + whole},
        number=held.number + 1,
    )


def ended(held: Held, rule_id: str) -> Held:
    """The list with one alert less of a rule that is open."""
    tally = held.rules.get(rule_id)
    if tally is None or not tally.open:
        return held
    tally = msgspec.structs.replace(tally, open=tally.open - 1)
    return msgspec.structs.replace(held, rules={**held.rules, rule_id: tally})


def removed(held: Held, alert_id: str, rule_id: str, item: "Item | None", *, was_open: bool) -> Held | None:
    """The list without an alert; None if that was the last one.

    Args:
        item: None if it was only counted.
    """
    rules = dict(held.rules)
    tally = rules.get(rule_id)
    if tally is None:
        return held
    whole = {**held.whole}
    if item is not None and item.subject:
        whole[tally.severity] -= 1
    tally = msgspec.structs.replace(
        tally,
        alerts=tally.alerts - 1,
        open=max(0, tally.open - was_open),
        untracked=max(0, tally.untracked - (item is None)),
    )
    rules[rule_id] = tally
    if tally.alerts <= 0:
        del rules[rule_id]
    if not rules:
        return None
    untold = tuple(each for each in held.untold if each != alert_id)
    return msgspec.structs.replace(
        held, rules=rules, whole=whole, tracked=held.tracked - (item is not None), untold=untold
    )


def counts(rules: dict[str, Tally], devices: dict[str, set[str]]) -> tuple[RuleCount, ...]:
    """Of a digest, the gravest and most frequent first.

    Args:
        devices: by rule, those of the items.
    """
    found = [
        RuleCount(
            ruleId=rule_id,
            ruleName=each.name,
            severity=each.severity,
            alerts=each.alerts,
            open=each.open,
            devices=len(devices.get(rule_id, ())) + each.untracked,
        )
        for rule_id, each in rules.items()
    ]
    return tuple(sorted(found, key=lambda each: (-GRAVITY[each.severity], -each.alerts, each.ruleId)))

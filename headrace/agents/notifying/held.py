"""What is held for one recipient on one channel, until quiet hours or a cap let it go in one digest."""

from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from headrace.agents.notifying.timers import TimedTable
from headrace.schemas.alert import Alert
from headrace.schemas.notification import MOST_ALERTS, Kind, RuleCount, Subject
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


class ChunkKey(NamedTuple):
    """Some of the alert ids of a list, in the order in which they came."""

    recipient: str
    channel: str
    number: int


class Tally(msgspec.Struct, omit_defaults=True):
    """Of one rule and severity in a list: alerts, those that are not over, and those beyond `MOST_TRACKED`, counts."""

    rule_id: str
    name: str
    severity: Severity
    alerts: int = 0
    open: int = 0
    untracked: int = 0


class Held(msgspec.Struct, omit_defaults=True):
    """A list.

    Args:
        since: append time at which the first one was held, ms.
        due: when to look at it, ms.
        rules: by `tally_key`.
        tracked: items in the table, count.
        whole: items with all of their alert, by severity, counts.
        number: how many there have been, so that they have an order.
        chunks: ids of items that are in the table of ids, in chunks of `TOGETHER`, count; `recent`: those that are not.
        why: "quiet-hours" and "cap", as far as they are why.
        untold: ids that were not told to be held so far.
        uncounted: the newest subject beyond `MOST_TRACKED` by severity, as in `Item.subject`.
    """

    since: int
    due: int
    rules: dict[str, Tally] = {}
    tracked: int = 0
    whole: dict[Severity, int] = {}
    number: int = 0
    chunks: int = 0
    recent: list[str] = []
    why: list[str] = []
    untold: list[str] = []
    uncounted: dict[Severity, str] = {}

    @property
    def severities(self) -> set[Severity]:
        """Of what is in it."""
        return {each.severity for each in self.rules.values()}

    @property
    def overflows(self) -> bool:
        """Whether some are only counted."""
        return any(each.untracked for each in self.rules.values())

    def copy(self) -> "Held":
        """To change."""
        return Held(
            self.since, self.due, {name: replace(each) for name, each in self.rules.items()}, self.tracked,
            dict(self.whole), self.number, self.chunks, list(self.recent), list(self.why), list(self.untold),
            dict(self.uncounted),
        )  # fmt: skip

    def add(self, alert: Alert, *, whole: bool, tracked: bool) -> None:
        """One alert more."""
        name = tally_key(alert.severity, alert.ruleId)
        tally = self.rules.get(name)
        if tally is None:
            tally = self.rules[name] = Tally(alert.ruleId, alert.ruleName, alert.severity)
        tally.alerts += 1
        tally.open += alert.status != "resolved"
        tally.untracked += not tracked
        self.tracked += tracked
        self.whole[alert.severity] = self.whole.get(alert.severity, 0) + whole
        self.number += 1

    def end(self, name: str) -> None:
        """One alert of a rule is over.

        Args:
            name: see `tally_key`.
        """
        tally = self.rules.get(name)
        if tally is not None and tally.open:
            tally.open -= 1

    def remove(self, alert_id: str, name: str, item: "Item | None") -> None:
        """One alert less.

        Args:
            name: see `tally_key`.
            item: None if it was only counted.
        """
        tally = self.rules.get(name)
        if tally is None or (item is None and not tally.untracked):
            return
        if item is not None and item.is_whole:
            self.whole[tally.severity] -= 1
        tally.alerts -= 1
        tally.open = max(0, tally.open - (item is None or item.open))
        tally.untracked -= item is None
        if tally.alerts <= 0:
            del self.rules[name]
        self.tracked -= item is not None
        if alert_id in self.untold:
            self.untold.remove(alert_id)

    def remove_all(self, severities: set[Severity], items: int) -> None:
        """Without some severities, which had so many items."""
        for name in [name for name, each in self.rules.items() if each.severity in severities]:
            del self.rules[name]
        for severity in severities:
            self.whole.pop(severity, None)
            self.uncounted.pop(severity, None)
        self.tracked -= items


class Line(msgspec.Struct, omit_defaults=True):
    """A recipient on a channel: what went out lately, ms, digests so far, and what is held."""

    sent: list[int] = []
    digests: int = 0
    held: Held | None = None

    def copy(self) -> "Line":
        """To change."""
        return Line(list(self.sent), self.digests, self.held and self.held.copy())


class Chunk(msgspec.Struct, frozen=True):
    """Alert ids."""

    ids: tuple[str, ...]


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One alert of a list.

    Args:
        rule_id, severity, device_id: of it.
        number: its place.
        kind: what happened last.
        at: append time of that, ms.
        open: whether it is not over.
        told: whether the recipient was told of it on this channel before.
        step, team: of the escalation.
        again: as in `headrace.schemas.notification.Request`.
        subject: JSON; without what makes alerts long unless `is_whole`, see `brief`.
    """

    rule_id: str
    severity: Severity
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
    is_whole: bool = False

    @property
    def tally(self) -> str:
        """See `tally_key`."""
        return tally_key(self.severity, self.rule_id)


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """By which channels, and when last; see `headrace.schemas.notification.Request.again`."""

    channels: dict[str, int] = {}


def line_table() -> TimedTable[LineKey, Line]:
    """About 500 bytes per recipient and channel, and 200 per rule of which something is held."""
    return TimedTable.of("dispatch.lines", LineKey, Line, lambda each: each.held.due if each.held else None)


def item_table() -> KeyValue[ItemKey, Item]:
    """Per list at most `MOST_TRACKED` entries of 1 KiB, of which `MOST_ALERTS` of each severity have all of their
    alert: up to 10 KiB."""
    return KeyValue.typed("dispatch.held", key=ItemKey, value=Item)


def chunk_table() -> KeyValue[ChunkKey, Chunk]:
    """Per list at most `MOST_TRACKED` ids of 40 bytes, and those of alerts that were let go of one by one."""
    return KeyValue.typed("dispatch.ids", key=ChunkKey, value=Chunk)


def told_table() -> KeyValue[ToldKey, Told]:
    """About 400 bytes per open alert and person told of it."""
    return KeyValue.typed("dispatch.told", key=ToldKey, value=Told)


def tally_key(severity: Severity, rule_id: str) -> str:
    """Where a list counts such alerts: of a rule that was changed there may be some of another severity."""
    return f"{severity} {rule_id}"


def brief(subject: Subject) -> str:
    """A subject as JSON, without what makes alerts long."""
    slim = subject.alert.model_copy(update=_LONG)
    return subject.model_copy(update={"alert": slim}).model_dump_json(exclude_defaults=True)


_LONG = {name: Alert.model_fields[name].default for name in ("evidence", "comments", "relatedAlerts", "metadata")}


def counts(rules: dict[str, Tally], devices: dict[str, set[str]]) -> tuple[RuleCount, ...]:
    """Of a digest, the gravest and most frequent first.

    Args:
        rules: as in `Held`.
        devices: likewise, those of the items.
    """
    found = [
        RuleCount(
            ruleId=each.rule_id,
            ruleName=each.name,
            severity=each.severity,
            alerts=each.alerts,
            open=each.open,
            devices=len(devices.get(name, ())) + each.untracked,
        )
        for name, each in rules.items()
    ]
    return tuple(sorted(found, key=lambda each: (-GRAVITY[each.severity], -each.alerts, each.ruleId)))

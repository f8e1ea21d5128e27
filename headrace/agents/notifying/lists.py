"""What is held for people, and lets go of it in digests as soon as it may."""

from collections.abc import Sequence

from msgspec.structs import replace

from headrace.agents.notifying.asked import Asked, Policy
from headrace.agents.notifying.caps import Cap, kept_for, next_free
from headrace.agents.notifying.decisions import Because, Decisions, about, rfc3339
from headrace.agents.notifying.held import (
    GRAVITY,
    MOST_SINGLY,
    MOST_TRACKED,
    TOGETHER,
    Chunk,
    ChunkKey,
    Held,
    Item,
    ItemKey,
    Line,
    LineKey,
    Told,
    ToldKey,
    brief,
    counts,
    tally_key,
)
from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.agents.notifying.subscriptions import Match, may_be_told, subscribed
from headrace.agents.notifying.timers import Agenda
from headrace.schemas.alert import Alert
from headrace.schemas.notification import MOST_ALERTS, Kind, Reason, Status, Subject, notification_id
from headrace.schemas.rule import Severity
from headrace.schemas.user import User
from headrace.tables.draft import Draft

#: Subjects that a batch remembers.
_MOST_SUBJECTS = 2_000


class Lists:
    """The lines of a batch, which are changed in place, as copies, and written at its end.

    Args:
        lines, items, chunks, told: the tables, as the batch changes them.
        agenda: when to look at which line.
    """

    def __init__(
        self,
        policy: Policy,
        decisions: Decisions,
        lines: Draft[LineKey, Line],
        items: Draft[ItemKey, Item],
        chunks: Draft[ChunkKey, Chunk],
        told: Draft[ToldKey, Told],
        agenda: Agenda[LineKey, Line],
    ) -> None:
        self._policy = policy
        self._decisions = decisions
        self._lines = lines
        self._items = items
        self._chunks = chunks
        self._told = told
        self._agenda = agenda
        self._copies: dict[LineKey, Line] = {}
        self._before: dict[LineKey, Line] = {}
        self._briefed: tuple[Subject | None, str] = None, ""
        self._subjects: dict[str, Subject] = {}

    def pass_time(self, now_ms: int) -> None:
        """Let go of what is due."""
        while (moment := self._agenda.pop(now_ms)) is not None:
            due_ms, key = moment
            held = self.line(key).held
            if held is not None and held.due == due_ms:
                self.let_go(key, due_ms)

    def finish(self) -> None:
        """Write the lines that are others now."""
        for key, line in self._copies.items():
            if line != self._before[key]:
                self._lines.put(key, line, 0)

    def line(self, key: LineKey) -> Line:
        """A line, to change."""
        found = self._copies.get(key)
        if found is None:
            before = self._before[key] = self._lines.get(key, 0) or Line()
            found = self._copies[key] = before.copy()
        return found

    def item(self, key: LineKey, alert_id: str) -> Item | None:
        """What is held of an alert there."""
        return None if self.line(key).held is None else self._items.get(ItemKey(*key, alert_id), 0)

    def hold(self, key: LineKey, asked: Asked, reasons: Sequence[Because], quiet: int | None, *, told: bool) -> None:
        """Put something on the list.

        Args:
            quiet: end of the quiet hours that are in the way, ms; None: a cap is.
            told: whether they were told of the alert on this channel before.
        """
        head, alert, at_ms = asked.head, asked.subject.alert, asked.at_ms
        line = self.line(key)
        due = next_free(line.sent, self._policy.caps[key.channel], at_ms if quiet is None else quiet)
        held = line.held
        if held is None:
            held = line.held = Held(since=at_ms, due=due)
            self._agenda.add(key, line)
        elif due < held.due:
            held.due = due
            self._agenda.add(key, line)
        whole = held.whole.get(alert.severity, 0) < MOST_ALERTS
        tracked = whole or held.tracked < MOST_TRACKED
        number = held.number
        held.add(alert, whole=whole, tracked=tracked)
        if not tracked:
            held.uncounted[alert.severity] = self._brief(asked.subject)
        else:
            item = Item(
                alert.ruleId, alert.severity, alert.deviceId, number, head.kind, at_ms, alert.status != "resolved",
                told, head.step, head.team, head.again,
                asked.encoded.decode() if whole else self._brief(asked.subject), whole,
            )  # fmt: skip
            self._items.put(ItemKey(*key, alert.alertId), item, 0)
            held.recent.append(alert.alertId)
            if len(held.recent) >= TOGETHER:
                self._chunks.put(ChunkKey(*key, held.chunks), Chunk(tuple(held.recent)), 0)
                held.chunks += 1
                held.recent.clear()
        why = "cap" if quiet is None else "quiet-hours"
        if why not in held.why:
            held.why.append(why)
        if number < MOST_SINGLY:
            self._say_held(asked, key, [*reasons, self._why_held(key, quiet, due)], due)
        else:
            held.untold.append(alert.alertId)
            if len(held.untold) >= TOGETHER:
                self._say_untold(key, held, at_ms)

    def update(self, key: LineKey, item: Item, asked: Asked, *, by_step: bool = False) -> None:
        """What is held of an alert is what that is now.

        Args:
            by_step: whether the step that asks, if one does, goes by this channel: then it is what holds.
        """
        head, alert = asked.head, asked.subject.alert
        held, is_open = self.line(key).held, alert.status != "resolved"
        assert held is not None
        if item.open and not is_open:
            held.end(item.tally)
        now = replace(
            item,
            kind=head.kind,
            open=is_open,
            step=head.step if by_step and head.step else item.step,
            team=head.team if by_step and head.step else item.team,
            again=head.again,
            subject=asked.encoded.decode() if item.is_whole else self._brief(asked.subject),
        )
        self._items.put(ItemKey(*key, alert.alertId), now, 0)
        self._say_held(asked, key, [*head.reasons, _HELD_ALREADY], held.due)

    def end_uncounted(self, key: LineKey, alert: Alert) -> None:
        """One of those that are only counted is over."""
        held = self.line(key).held
        if held is not None:
            held.end(tally_key(alert.severity, alert.ruleId))

    def forget(self, key: LineKey, alert_id: str, tally: str, item: Item | None) -> None:
        """Take one alert from a list.

        Args:
            tally: see `headrace.agents.notifying.held.tally_key`.
        """
        line = self.line(key)
        assert line.held is not None
        line.held.remove(alert_id, tally, item)
        if item is not None:
            self._items.delete(ItemKey(*key, alert_id), 0)
        self._drop_empty(key, line)

    def note_told(self, recipient: str, alert_id: str, channel: str, again: int) -> None:
        """They were told of an alert."""
        key = ToldKey(recipient, alert_id)
        before = self._told.get(key, 0)
        self._told.put(key, Told({channel: again} if before is None else {**before.channels, channel: again}), 0)

    def let_go(self, key: LineKey, at_ms: int) -> None:
        """Send what is held as one digest, as far as it may go now; the rest waits on."""
        line = self.line(key)
        held = line.held
        assert held is not None
        user = self._policy.user(key.recipient, at_ms)
        if user is None or not user.active:
            self._drop_all(key, line, held.severities, [gone(user)], at_ms)
            return
        ready = {each for each in held.severities if quiet_until(user, each, at_ms) is None}
        if not ready or next_free(line.sent, self._policy.caps[key.channel], at_ms) > at_ms:
            self._wait_on(key, line, user, at_ms)
            return
        if held.untold:
            self._say_untold(key, held, at_ms)
        self._check(key, line, user, ready, at_ms)
        if line.held is not None and ready & line.held.severities:
            self._send_digest(key, line, user, ready, at_ms)
        if line.held is not None:
            self._wait_on(key, line, user, at_ms)

    def _send_digest(self, key: LineKey, line: Line, user: User, ready: set[Severity], at_ms: int) -> None:
        held, caps = line.held, self._policy.caps[key.channel]
        assert held is not None
        rules = {name: each for name, each in held.rules.items() if each.severity in ready}
        items = [(alert_id, item) for alert_id, item in self._items_of(key, held) if item.tally in rules]
        shown = sorted(items, key=lambda each: (-GRAVITY[each[1].severity], each[1].number))[:MOST_ALERTS]
        devices: dict[str, set[str]] = {}
        for _, item in items:
            devices.setdefault(item.tally, set()).add(item.device_id)
        # Without items there are only some that are counted: as their example the newest of the gravest.
        subjects = [item.subject for _, item in shown] or [
            held.uncounted[max((each.severity for each in rules.values()), key=lambda each: GRAVITY[each])]
        ]
        subject = Subject.model_validate_json(subjects[0])
        first, since = (items[0][0], items[0][1].at) if items else (subject.alert.alertId, held.since)
        digest_id = notification_id(f"{first}\0{since}\0{line.digests}", key.recipient, key.channel, "digest")
        contacts = self._policy.choice(key.channel, user, subject, "digest", Match(True, ()), 0).contacts
        self._decisions.send(
            digest_id, about(key.recipient, "digest", 0, subject), [_OVER[each] for each in held.why], at_ms,
            channel=key.channel, contacts=contacts, severity=subject.alert.severity,
            subjects=[each.encode() for each in subjects], dedup_key=digest_id, user=user,
            counts=counts(rules, devices), since=since, alert_ids=[alert_id for alert_id, _ in items],
        )  # fmt: skip
        for alert_id, item in items:
            self._items.delete(ItemKey(*key, alert_id), 0)
            if item.open:
                self.note_told(key.recipient, alert_id, key.channel, item.again)
        line.sent = sent_now(line.sent, caps, at_ms)
        line.digests += 1
        held.remove_all(ready, len(items))
        self._drop_empty(key, line)

    def _check(self, key: LineKey, line: Line, user: User, ready: set[Severity], at_ms: int) -> None:
        """Take out what the person does not want any more, by their newest preferences.

        What holds for all items of a severity holds for those of it that are only counted.
        """
        fine: set[Severity] = set()
        last: dict[Severity, Sequence[Reason]] = {}
        held = line.held
        assert held is not None
        for alert_id, item in self._items_of(key, held):
            if item.severity not in ready:
                continue
            against = self._against(key, user, self._subject(item), item)
            if against is None or item.told:
                fine.add(item.severity)
            else:
                last[item.severity] = against
            if against is not None:
                self._say_many("dropped", key, [alert_id], item, against, at_ms)
                self.forget(key, alert_id, item.tally, item)
                if line.held is None:
                    return
        for severity, reasons in last.items():
            if severity not in fine and line.held is not None and severity in line.held.severities:
                self._drop_all(key, line, {severity}, reasons, at_ms)

    def _against(self, key: LineKey, user: User, subject: Subject, item: Item) -> Sequence[Reason] | None:
        """What is against telling somebody of what was held; None if nothing is."""
        hindrance = may_be_told(user, subject.alert)
        if hindrance is not None:
            return [hindrance]
        match = Match(True, ())
        if item.kind != "escalation" and not item.step and not item.told:
            match = subscribed(user, subject)
            if not match.fits:
                return match.reasons
        kind: Kind = item.kind if item.told else "escalation" if item.step else "alert"
        choice = self._policy.choice(key.channel, user, subject, kind, match, item.step)
        return None if choice.send else choice.reasons

    def _wait_on(self, key: LineKey, line: Line, user: User, at_ms: int) -> None:
        """Look at the list again when something of it may go."""
        assert line.held is not None
        caps = self._policy.caps[key.channel]
        ends = [quiet_until(user, each, at_ms) or at_ms for each in line.held.severities]
        line.held.due = min(next_free(line.sent, caps, each) for each in ends)
        self._agenda.add(key, line)

    def _drop_all(
        self, key: LineKey, line: Line, severities: set[Severity], reasons: Sequence[Because], at_ms: int
    ) -> None:
        """Nothing of these severities is told."""
        held = line.held
        assert held is not None
        items = [(alert_id, item) for alert_id, item in self._items_of(key, held) if item.severity in severities]
        for alert_id, _ in items:
            self._items.delete(ItemKey(*key, alert_id), 0)
        if items:
            self._say_many("dropped", key, [alert_id for alert_id, _ in items], items[0][1], reasons, at_ms)
        held.remove_all(severities, len(items))
        self._drop_empty(key, line)

    def _drop_empty(self, key: LineKey, line: Line) -> None:
        """A list with nothing in it is none."""
        if line.held is not None and not line.held.rules:
            for number in range(line.held.chunks):
                self._chunks.delete(ChunkKey(*key, number), 0)
            line.held = None

    def _items_of(self, key: LineKey, held: Held) -> list[tuple[str, Item]]:
        """Alert ids and items, in the order in which they came."""
        ids = dict.fromkeys(
            alert_id
            for number in range(held.chunks)
            for alert_id in (self._chunks.get(ChunkKey(*key, number), 0) or Chunk(())).ids
        )
        ids.update(dict.fromkeys(held.recent))
        found = [(alert_id, item) for alert_id in ids if (item := self._items.get(ItemKey(*key, alert_id), 0))]
        return sorted(found, key=lambda each: each[1].number)

    def _subject(self, item: Item) -> Subject:
        """Of an item; read once, as many are told of one."""
        found = self._subjects.get(item.subject)
        if found is None:
            if len(self._subjects) >= _MOST_SUBJECTS:
                self._subjects.clear()
            found = self._subjects[item.subject] = Subject.model_validate_json(item.subject)
        return found

    def _brief(self, subject: Subject) -> str:
        """See `headrace.agents.notifying.held.brief`; of the same as last time at once, as many are told of one."""
        if self._briefed[0] is not subject:
            self._briefed = subject, brief(subject)
        return self._briefed[1]

    # -- events

    def _say_held(self, asked: Asked, key: LineKey, reasons: Sequence[Because], due: int) -> None:
        self._decisions.say(
            "held", asked.notification_id(key.channel), asked.about, reasons, asked.at_ms,
            channel=key.channel, mark=asked.subject.alert.revision, message_id=asked.head.messageId, until=due,
        )  # fmt: skip

    def _say_untold(self, key: LineKey, held: Held, at_ms: int) -> None:
        """Say which others are held, all at once."""
        first = self._items.get(ItemKey(*key, held.untold[0]), 0)
        self._say_many("held", key, held.untold, first, [_ONE_OF_MANY], at_ms, until=held.due)
        held.untold = []

    def _say_many(
        self,
        status: Status,
        key: LineKey,
        alert_ids: Sequence[str],
        first: Item | None,
        reasons: Sequence[Because],
        at_ms: int,
        until: int | None = None,
    ) -> None:
        again = first.again if first else 0
        cause = f"{alert_ids[0]}\0{again}" if again else alert_ids[0]
        said = {
            "alertId": alert_ids[0],
            "alertIds": list(alert_ids) if len(alert_ids) > 1 else None,
            "ruleId": first.rule_id if first else "",
            "deviceId": first.device_id if first else "",
            "recipient": key.recipient,
            "kind": "alert",
            "step": 0,
        }
        self._decisions.say(
            status, notification_id(cause, key.recipient, key.channel, "alert"), said, reasons, at_ms,
            channel=key.channel, mark=f"many/{at_ms}", until=until,
        )  # fmt: skip

    def _why_held(self, key: LineKey, quiet: int | None, due: int) -> Reason:
        if quiet is not None:
            return Reason(code="quiet-hours", text=f"quiet hours until {rfc3339(quiet)}")
        caps = ", ".join(map(str, self._policy.caps[key.channel]))
        return Reason(code="cap", text=f"{key.channel} has at most {caps}; the next one may go at {rfc3339(due)}")


_HELD_ALREADY = Reason(code="cap", text="is held already: the digest tells how it is then")
_ONE_OF_MANY = Reason(code="cap", text="one of many that are held for one digest")
_OVER = {
    "quiet-hours": Reason(code="quiet-hours-over", text="quiet hours are over"),
    "cap": Reason(code="cap-over", text="one more may go"),
}


def gone(user: User | None) -> Reason:
    """Why somebody is told of nothing."""
    return Reason(code="user-inactive", text="is not active" if user else "is no user any more")


def sent_now(sent: Sequence[int], caps: Sequence[Cap], at_ms: int) -> list[int]:
    """When messages went, one more now, as far as caps ask for it."""
    since, most = at_ms - kept_for(caps), max((count for count, _ in caps), default=0)
    kept = sorted(each for each in (*sent, at_ms) if each > since)
    return kept[max(0, len(kept) - most) :]

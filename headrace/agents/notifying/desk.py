"""Decides for people: by which channels, now or later, and what of it is told together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from headrace.agents.notifying import held as lists
from headrace.agents.notifying.caps import Cap, kept_for, next_free
from headrace.agents.notifying.channels import CHANNELS, Choice, choose
from headrace.agents.notifying.decisions import Decisions, about, rfc3339
from headrace.agents.notifying.escalation import step_of, steps_of
from headrace.agents.notifying.held import GRAVITY, Held, Item, ItemKey, Line, LineKey, Told, ToldKey
from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.subscriptions import Match, may_be_told, subscribed
from headrace.agents.notifying.timers import Agenda
from headrace.schemas.alert import Alert
from headrace.schemas.notification import MOST_ALERTS, Kind, Reason, Request, Subject, notification_id
from headrace.schemas.rule import Channel, Severity
from headrace.schemas.user import User
from headrace.tables.draft import Draft
from headrace.tables.replicated import Replicated

#: Choices that are remembered.
_MOST_CHOICES = 5_000


class Asked(NamedTuple):
    """A request of a person, as JSON its subject, and the append time of the decision, ms."""

    request: Request
    encoded: bytes
    at_ms: int

    @property
    def alert(self) -> Alert:
        return self.request.subject.alert

    @property
    def cause(self) -> str:
        """What ids are made of: one more for each time that telling began anew."""
        again = self.request.again
        return f"{self.alert.alertId}\0{again}" if again else self.alert.alertId

    def notification_id(self, channel: str | None) -> str:
        return notification_id(self.cause, self.request.recipient, channel, self.request.kind, self.request.step)


class Rules:
    """What of the settings decides, and choices that were made.

    Args:
        users: people, as of append times.
    """

    def __init__(self, settings: NotifySettings, users: Replicated[User]) -> None:
        self.settings = settings
        self.users = users
        self.caps: dict[str, tuple[Cap, ...]] = {each: settings.limits(each) for each in CHANNELS}
        self._choices: dict[object, tuple[User, tuple[Choice, ...]]] = {}

    def step_channels(self, alert: Alert, step: int) -> tuple[Channel, ...] | None:
        """Those that an escalation's step names."""
        policy = steps_of(alert, self.settings) if step else None
        return None if policy is None else step_of(policy, step).channels

    def choices(self, user: User, subject: Subject, kind: Kind, match: Match, step: int) -> tuple[Choice, ...]:
        """See `headrace.agents.notifying.channels.choose`; remembered, as many alerts are alike in this."""
        alert = subject.alert
        wanted = alert.actions.notifications
        like = (id(user), alert.severity, kind, match.channels, wanted, alert.ruleName if wanted else "", step)
        if step:
            like = (*like, alert.organizationId)  # type: ignore[assignment]
        known = self._choices.get(like)
        if known is None:
            if len(self._choices) >= _MOST_CHOICES:
                self._choices.clear()
            step_channels = self.step_channels(alert, step)
            found = choose(user, subject, kind, match, self.settings, step_channels)
            known = self._choices[like] = (user, found)
        return known[1]


class Desk:
    """People's requests of one batch. What it changes takes effect when the batch is finished.

    Args:
        lines, items, told: the tables, as the batch changes them.
        agenda: when to look at which line.
    """

    def __init__(
        self,
        rules: Rules,
        decisions: Decisions,
        lines: Draft[LineKey, Line],
        items: Draft[ItemKey, Item],
        told: Draft[ToldKey, Told],
        agenda: Agenda[LineKey, Line],
    ) -> None:
        self._rules = rules
        self._users = rules.users
        self._decisions = decisions
        self._lines = lines
        self._items = items
        self._told = told
        self._agenda = agenda

    def pass_time(self, now_ms: int) -> None:
        """Let go of what is due."""
        while (moment := self._agenda.pop(now_ms)) is not None:
            due_ms, key = moment
            line = self._lines.get(key, 0)
            if line is not None and line.held is not None and line.held.due == due_ms:
                self._let_go(key, line, due_ms)

    def take(self, asked: Asked) -> None:
        """Decide on one request."""
        request, alert = asked.request, asked.alert
        user = self._users.get(request.recipient.removeprefix("user:"), asked.at_ms)
        if user is None or not user.active:
            self._drop(asked, None, [*request.reasons, _gone(user)])
        elif alert.suppressed is not None:
            self._withhold(asked)
        elif request.kind in ("acknowledged", "resolved"):
            self._follow_up(user, asked)
        else:
            self._tell(user, asked)
        if request.kind == "resolved":
            self._told.delete(ToldKey(request.recipient, alert.alertId), 0)

    def _tell(self, user: User, asked: Asked) -> None:
        """That an alert triggered, or that nobody has acknowledged it."""
        request, at_ms = asked.request, asked.at_ms
        hindrance = may_be_told(user, asked.alert)
        if hindrance is not None:
            others = [each for each in request.reasons if each.code != hindrance.code]
            self._drop(asked, None, [*others, hindrance])
            return
        narrowed = None if request.channels is None else frozenset(request.channels)
        match = Match(True, request.reasons, narrowed)
        before = self._told.get(ToldKey(request.recipient, asked.alert.alertId), 0) or Told()
        for choice in self._rules.choices(user, request.subject, request.kind, match, request.step):
            key = LineKey(request.recipient, choice.channel)
            item = self._items.get(ItemKey(*key, asked.alert.alertId), 0)
            if item is not None:
                self._update(key, item, asked, by_step=choice.send)
            elif not choice.send:
                if any(each.code != "matrix" for each in choice.reasons):
                    self._drop(asked, choice.channel, [*request.reasons, *choice.reasons])
            elif request.kind == "alert" and before.channels.get(choice.channel, -1) >= request.again:
                self._drop(asked, choice.channel, [*request.reasons, _ALREADY_TOLD])
            else:
                reasons = [*request.reasons, *choice.reasons, *_override(user, asked.alert.severity, at_ms)]
                self._send_or_hold(user, asked, choice, reasons, told=choice.channel in before.channels)

    def _follow_up(self, user: User, asked: Asked) -> None:
        """Tell those who were told, by the channels by which they were."""
        request, alert = asked.request, asked.alert
        before = self._told.get(ToldKey(request.recipient, alert.alertId), 0) or Told()
        heard = False
        for choice in self._rules.choices(user, request.subject, request.kind, Match(True, request.reasons), 0):
            key = LineKey(request.recipient, choice.channel)
            item = self._items.get(ItemKey(*key, alert.alertId), 0)
            line = self._lines.get(key, 0) or Line()
            if item is not None:
                self._update(key, item, asked)
            elif choice.channel in before.channels:
                reasons = [*request.reasons, *choice.reasons]
                if choice.send:
                    self._send_or_hold(user, asked, choice, reasons, told=True)
                else:
                    self._drop(asked, choice.channel, reasons)
            elif line.held is not None and line.held.overflows and alert.ruleId in line.held.rules:
                if request.kind == "resolved":
                    self._put(key, msgspec.structs.replace(line, held=lists.ended(line.held, alert.ruleId)))
            else:
                continue
            heard = True
        if not heard:
            self._drop(asked, None, [_NOT_TOLD])

    def _withhold(self, asked: Asked) -> None:
        """Nobody is to be told of it now: what is held of it is let go of."""
        request, alert = asked.request, asked.alert
        before = self._told.get(ToldKey(request.recipient, alert.alertId), 0) or Told()
        for channel in CHANNELS:
            key = LineKey(request.recipient, channel)
            line = self._lines.get(key, 0)
            if line is None or line.held is None:
                continue
            item = self._items.get(ItemKey(*key, alert.alertId), 0)
            if item is None and (channel in before.channels or not line.held.overflows):
                continue
            self._forget(key, line, alert.alertId, alert.ruleId, item)
        assert alert.suppressed is not None
        self._drop(asked, None, [*request.reasons, Reason(code="suppressed", text=alert.suppressed.text)])

    def _send_or_hold(self, user: User, asked: Asked, choice: Choice, reasons: Sequence[Reason], *, told: bool) -> None:
        """Send it, unless quiet hours or a cap are in the way."""
        request, at_ms = asked.request, asked.at_ms
        key = LineKey(request.recipient, choice.channel)
        line = self._lines.get(key, 0) or Line()
        caps = self._rules.caps[choice.channel]
        quiet = quiet_until(user, asked.alert.severity, at_ms)
        free = quiet is None and next_free(line.sent, caps, at_ms) <= at_ms
        # What waits may go now if their quiet hours are others than when it was held.
        joins = line.held is not None and any(quiet_until(user, each, at_ms) is None for each in line.held.severities)
        if free and not joins:
            self._decisions.send(
                asked.notification_id(choice.channel), about(request), reasons, at_ms,
                channel=choice.channel, contacts=choice.contacts, severity=asked.alert.severity,
                subjects=[asked.encoded], dedup_key=asked.alert.alertId, user=user, team=request.team,
                message_id=request.messageId,
            )  # fmt: skip
            self._put(key, msgspec.structs.replace(line, sent=_sent(line, caps, at_ms)))
            if asked.alert.status != "resolved":
                self._note_told(request.recipient, asked.alert.alertId, choice.channel, request.again)
            return
        self._hold(key, line, asked, reasons, quiet, told=told)
        if free:
            self._let_go(key, self._line(key), at_ms)

    def _hold(
        self, key: LineKey, line: Line, asked: Asked, reasons: Sequence[Reason], quiet: int | None, *, told: bool
    ) -> None:
        """Put it on the list."""
        request, alert, at_ms = asked.request, asked.alert, asked.at_ms
        caps = self._rules.caps[key.channel]
        due = next_free(line.sent, caps, at_ms if quiet is None else quiet)
        held = line.held or Held(since=at_ms, due=due)
        whole = held.whole.get(alert.severity, 0) < MOST_ALERTS
        tracked = whole or held.tracked < lists.MOST_TRACKED
        if tracked:
            item = Item(
                alert.ruleId, alert.deviceId, held.number, request.kind, at_ms, alert.status != "resolved", told,
                request.step, request.team, request.again, asked.encoded.decode() if whole else "",
            )  # fmt: skip
            self._items.put(ItemKey(*key, alert.alertId), item, 0)
        number, why = held.number, "cap" if quiet is None else "quiet-hours"
        held = lists.added(held, alert, whole=whole, tracked=tracked)
        held = msgspec.structs.replace(
            held, due=min(held.due, due), why=held.why if why in held.why else (*held.why, why)
        )
        if number < lists.MOST_SINGLY:
            self._say_held(asked, key, [*reasons, self._why_held(key, quiet, due)], due)
        else:
            held = msgspec.structs.replace(held, untold=(*held.untold, alert.alertId))
            if len(held.untold) >= lists.TOGETHER:
                held = self._say_untold(key, held, at_ms)
        self._put(key, msgspec.structs.replace(line, held=held))

    def _update(self, key: LineKey, item: Item, asked: Asked, *, by_step: bool = False) -> None:
        """What is held of an alert is what that is now.

        Args:
            by_step: whether the step that asks, if one does, goes by this channel: then it is what holds.
        """
        request, alert = asked.request, asked.alert
        is_open = alert.status != "resolved"
        line = self._line(key)
        assert line.held is not None
        if item.open and not is_open:
            self._put(key, msgspec.structs.replace(line, held=lists.ended(line.held, alert.ruleId)))
        now = msgspec.structs.replace(
            item,
            kind=request.kind,
            open=is_open,
            step=request.step if by_step and request.step else item.step,
            team=request.team if by_step and request.step else item.team,
            again=request.again,
            subject=asked.encoded.decode() if item.subject else "",
        )
        self._items.put(ItemKey(*key, alert.alertId), now, 0)
        self._say_held(asked, key, [*request.reasons, _HELD_ALREADY], line.held.due)

    def _let_go(self, key: LineKey, line: Line, at_ms: int) -> None:
        """Send what is held as one digest, as far as it may go now; the rest waits on."""
        held = line.held
        assert held is not None
        user = self._users.get(key.recipient.removeprefix("user:"), at_ms)
        if user is None or not user.active:
            self._drop_list(key, line, held.severities, [_gone(user)], at_ms)
            return
        caps = self._rules.caps[key.channel]
        quiet = {each: quiet_until(user, each, at_ms) for each in held.severities}
        ready = {each for each, until in quiet.items() if until is None}
        if not ready or next_free(line.sent, caps, at_ms) > at_ms:
            self._wait_on(key, line, user, at_ms)
            return
        held = self._say_untold(key, held, at_ms) if held.untold else held
        line = self._checked(key, msgspec.structs.replace(line, held=held), user, ready, at_ms)
        if line.held is None or not ready & line.held.severities:
            if line.held is not None:
                self._wait_on(key, line, user, at_ms)
            return
        self._send_digest(key, line, user, ready, at_ms)

    def _send_digest(self, key: LineKey, line: Line, user: User, ready: set[Severity], at_ms: int) -> None:
        held, caps = line.held, self._rules.caps[key.channel]
        assert held is not None
        rules = {rule_id: each for rule_id, each in held.rules.items() if each.severity in ready}
        items = [(alert_id, item) for alert_id, item in self._of_list(key) if item.rule_id in rules]
        whole = sorted(
            (each for each in items if each[1].subject),
            key=lambda each: (-GRAVITY[rules[each[1].rule_id].severity], each[1].number),
        )[:MOST_ALERTS]
        devices: dict[str, set[str]] = {}
        for _, item in items:
            devices.setdefault(item.rule_id, set()).add(item.device_id)
        first, since = items[0][0], items[0][1].at
        cause = f"{first}\0{since}\0{line.digests}"
        found_id = notification_id(cause, key.recipient, key.channel, "digest")
        (choice,) = (
            each
            for each in self._rules.choices(
                user, Subject.model_validate_json(whole[0][1].subject), "digest", Match(True, ()), 0
            )
            if each.channel == key.channel
        )
        top = whole[0]
        said = {
            "alertId": top[0], "ruleId": top[1].rule_id, "deviceId": top[1].device_id, "recipient": key.recipient,
            "kind": "digest", "step": 0,
        }  # fmt: skip
        self._decisions.send(
            found_id, said, [_OVER[each] for each in held.why], at_ms,
            channel=key.channel, contacts=choice.contacts, severity=rules[top[1].rule_id].severity,
            subjects=[item.subject.encode() for _, item in whole], dedup_key=found_id, user=user,
            counts=lists.counts(rules, devices), since=since, alert_ids=[alert_id for alert_id, _ in items],
        )  # fmt: skip
        for alert_id, item in items:
            self._items.delete(ItemKey(*key, alert_id), 0)
            if item.open:
                self._note_told(key.recipient, alert_id, key.channel, item.again)
        after = Line(_sent(line, caps, at_ms), line.digests + 1, _rest(held, ready, len(items)))
        if after.held is None:
            self._put(key, after)
        else:
            self._wait_on(key, after, user, at_ms)

    def _checked(self, key: LineKey, line: Line, user: User, ready: set[Severity], at_ms: int) -> Line:
        """The line without what the person does not want any more, by their newest preferences.

        What holds for all alerts of a severity that are whole holds for those of it that are only counted.
        """
        fine: set[Severity] = set()
        last: dict[Severity, Sequence[Reason]] = {}
        for alert_id, item in self._of_list(key):
            assert line.held is not None
            severity = line.held.rules[item.rule_id].severity
            if severity not in ready or not item.subject:
                continue
            subject = Subject.model_validate_json(item.subject)
            against = self._against(key, user, subject, item)
            if against is None:
                fine.add(severity)
                continue
            last[severity] = against
            request = Request(
                recipient=key.recipient, kind=item.kind, subject=subject, at=at_ms, step=item.step, again=item.again
            )
            self._drop(Asked(request, b"", at_ms), key.channel, against)
            self._forget(key, line, alert_id, item.rule_id, item)
            line = self._line(key)
            if line.held is None:
                return line
        for severity, reasons in last.items():
            if severity not in fine and line.held is not None and severity in line.held.severities:
                self._drop_list(key, line, {severity}, reasons, at_ms)
                line = self._line(key)
        return line

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
        choices = self._rules.choices(user, subject, kind, match, item.step)
        (choice,) = (each for each in choices if each.channel == key.channel)
        return None if choice.send else choice.reasons

    def _wait_on(self, key: LineKey, line: Line, user: User, at_ms: int) -> None:
        """Look at the list again when something of it may go."""
        assert line.held is not None
        caps = self._rules.caps[key.channel]
        ends = [quiet_until(user, each, at_ms) or at_ms for each in line.held.severities]
        due = min(next_free(line.sent, caps, each) for each in ends)
        self._put(key, msgspec.structs.replace(line, held=msgspec.structs.replace(line.held, due=due)))

    def _drop_list(
        self, key: LineKey, line: Line, severities: set[Severity], reasons: Sequence[Reason], at_ms: int
    ) -> None:
        """Nothing of these severities is told."""
        held = line.held
        assert held is not None
        items = [
            (alert_id, item) for alert_id, item in self._of_list(key) if held.rules[item.rule_id].severity in severities
        ]
        for alert_id, _ in items:
            self._items.delete(ItemKey(*key, alert_id), 0)
        if items:
            self._say_many("dropped", key, [alert_id for alert_id, _ in items], items[0][1], reasons, at_ms)
        rest = _rest(held, severities, len(items))
        self._put(key, msgspec.structs.replace(line, held=rest))

    def _forget(self, key: LineKey, line: Line, alert_id: str, rule_id: str, item: Item | None) -> None:
        """Take one alert from a list."""
        assert line.held is not None
        was_open = item is None or item.open
        held = lists.removed(line.held, alert_id, rule_id, item, was_open=was_open)
        if item is not None:
            self._items.delete(ItemKey(*key, alert_id), 0)
        self._put(key, msgspec.structs.replace(line, held=held))

    def _of_list(self, key: LineKey) -> Iterator[tuple[str, Item]]:
        """Alert ids and items, in the order in which they came."""
        found = self._items.range(tuple(key), tuple(key), 0)
        return iter(sorted(((each.alert_id, item) for each, item in found), key=lambda each: each[1].number))

    def _line(self, key: LineKey) -> Line:
        return self._lines.get(key, 0) or Line()

    def _put(self, key: LineKey, line: Line) -> None:
        self._lines.put(key, line, 0)
        self._agenda.add(key, line)

    def _note_told(self, recipient: str, alert_id: str, channel: str, again: int) -> None:
        key = ToldKey(recipient, alert_id)
        before = self._told.get(key, 0) or Told()
        self._told.put(key, Told({**before.channels, channel: again}), 0)

    # -- events

    def _drop(self, asked: Asked, channel: str | None, reasons: Sequence[Reason]) -> None:
        self._decisions.say(
            "dropped", asked.notification_id(channel), about(asked.request), reasons, asked.at_ms,
            channel=channel, mark=asked.alert.revision, message_id=asked.request.messageId,
        )  # fmt: skip

    def _say_held(self, asked: Asked, key: LineKey, reasons: Sequence[Reason], due: int) -> None:
        self._decisions.say(
            "held", asked.notification_id(key.channel), about(asked.request), reasons, asked.at_ms,
            channel=key.channel, mark=asked.alert.revision, message_id=asked.request.messageId, until=due,
        )  # fmt: skip

    def _say_untold(self, key: LineKey, held: Held, at_ms: int) -> Held:
        """Say which others are held, all at once."""
        self._say_many("held", key, held.untold, self._items.get(ItemKey(*key, held.untold[0]), 0),
                       [_ONE_OF_MANY], at_ms, until=held.due)  # fmt: skip
        return msgspec.structs.replace(held, untold=())

    def _say_many(
        self, status: str, key: LineKey, alert_ids: Sequence[str], first: Item | None, reasons: Sequence[Reason],
        at_ms: int, until: int | None = None,
    ) -> None:  # fmt: skip
        said = {
            "alertId": alert_ids[0],
            "alertIds": list(alert_ids),
            "ruleId": first.rule_id if first else "",
            "deviceId": first.device_id if first else "",
            "recipient": key.recipient,
            "kind": "alert",
            "step": 0,
        }
        self._decisions.say(
            status, notification_id(alert_ids[0], key.recipient, key.channel, "alert"), said, reasons, at_ms,  # type: ignore[arg-type]
            channel=key.channel, mark="many", until=until,
        )  # fmt: skip

    def _why_held(self, key: LineKey, quiet: int | None, due: int) -> Reason:
        if quiet is not None:
            return Reason(code="quiet-hours", text=f"quiet hours until {rfc3339(quiet)}")
        caps = ", ".join(map(str, self._rules.caps[key.channel]))
        return Reason(code="cap", text=f"{key.channel} has at most {caps}; the next one may go at {rfc3339(due)}")


_ALREADY_TOLD = Reason(code="already-told", text="was told of it before it was suppressed")
_NOT_TOLD = Reason(code="not-told-before", text="was told of the alert on no channel, or only how many there are")
_HELD_ALREADY = Reason(code="cap", text="is held already: the digest tells how it is then")
_ONE_OF_MANY = Reason(code="cap", text="one of many that are held for one digest")
_OVER = {
    "quiet-hours": Reason(code="quiet-hours-over", text="quiet hours are over"),
    "cap": Reason(code="cap-over", text="one more may go"),
}


def _gone(user: User | None) -> Reason:
    return Reason(code="user-inactive", text="is not active" if user else "is no user any more")


def _override(user: User, severity: Severity, at_ms: int) -> list[Reason]:
    """Why somebody is told in quiet hours, if they are."""
    quiet = user.preferences.quiet_hours
    if quiet is None or severity not in quiet.override:
        return []
    others = [each for each in GRAVITY if each not in quiet.override]
    if not others or quiet_until(user, others[0], at_ms) is None:
        return []
    return [Reason(code="override", text=f"{severity} alerts come through quiet hours")]


def _sent(line: Line, caps: Sequence[Cap], at_ms: int) -> tuple[int, ...]:
    """When messages went, as far as caps ask for it."""
    since, most = at_ms - kept_for(caps), max((count for count, _ in caps), default=0)
    kept = sorted(each for each in (*line.sent, at_ms) if each > since)
    return tuple(kept[len(kept) - most :] if len(kept) > most else kept)


def _rest(held: Held, gone: set[Severity], items: int) -> Held | None:
    """A list without some severities, which had so many items; None if nothing is left."""
    rules = {rule_id: each for rule_id, each in held.rules.items() if each.severity not in gone}
    if not rules:
        return None
    whole = {severity: count for severity, count in held.whole.items() if severity not in gone}
    return msgspec.structs.replace(held, rules=rules, whole=whole, tracked=held.tracked - items)

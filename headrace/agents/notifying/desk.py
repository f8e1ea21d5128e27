"""Decides for people: by which channels they are told, and whether now or later."""

from collections.abc import Sequence

from headrace.agents.notifying.asked import Asked, Policy
from headrace.agents.notifying.caps import next_free
from headrace.agents.notifying.channels import CHANNELS, Choice
from headrace.agents.notifying.decisions import Because, Decisions
from headrace.agents.notifying.held import GRAVITY, Item, LineKey, Told, ToldKey, tally_key
from headrace.agents.notifying.lists import Lists, gone, sent_now
from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.agents.notifying.subscriptions import Match, may_be_told
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Reason
from headrace.schemas.rule import Severity
from headrace.schemas.user import User
from headrace.tables.draft import Draft


class Desk:
    """People's requests of one batch. What it changes takes effect when the batch is finished.

    Args:
        lists: what is held.
        told: who was told of what, as the batch changes it.
    """

    def __init__(self, policy: Policy, decisions: Decisions, lists: Lists, told: Draft[ToldKey, Told]) -> None:
        self._policy = policy
        self._decisions = decisions
        self._lists = lists
        self._told = told

    def take(self, asked: Asked) -> None:
        """Decide on one request."""
        head, alert = asked.head, asked.subject.alert
        user = self._policy.user(head.recipient, asked.at_ms)
        if user is None or not user.active:
            self._drop(asked, None, [*head.reasons, gone(user)])
        elif alert.suppressed is not None:
            self._withhold(asked)
        elif head.kind in ("acknowledged", "resolved"):
            self._follow_up(user, asked)
        else:
            self._tell(user, asked)
        if head.kind == "resolved":
            self._told.delete(ToldKey(head.recipient, alert.alertId), 0)

    def _tell(self, user: User, asked: Asked) -> None:
        """That an alert triggered, or that nobody has acknowledged it."""
        head, alert = asked.head, asked.subject.alert
        hindrance = may_be_told(user, alert)
        if hindrance is not None:
            others = [each for each in head.reasons if each.code != hindrance.code]
            self._drop(asked, None, [*others, hindrance])
            return
        match = Match(True, (), None if head.channels is None else frozenset(head.channels))
        # Nothing was told, or is held, of an alert that has triggered this moment.
        is_new = head.kind == "alert" and alert.revision == 1
        before = Told() if is_new else self._before(asked)
        for choice in self._policy.choices(user, asked.subject, head.kind, match, head.step):
            key = LineKey(head.recipient, choice.channel)
            item = None if is_new else self._lists.item(key, alert.alertId)
            if item is not None:
                self._lists.update(key, item, asked, by_step=choice.send)
            elif not choice.send:
                if any(each.code != "matrix" for each in choice.reasons):
                    self._drop(asked, choice.channel, [*head.reasons, *choice.reasons])
            elif head.kind == "alert" and before.channels.get(choice.channel, -1) >= head.again:
                self._drop(asked, choice.channel, [*head.reasons, _ALREADY_TOLD])
            else:
                reasons: list[Because] = [*head.reasons, *choice.reasons, *_override(user, alert.severity, asked.at_ms)]
                self._send_or_hold(user, asked, choice, reasons, told=choice.channel in before.channels)

    def _follow_up(self, user: User, asked: Asked) -> None:
        """Tell those who were told, by the channels by which they were."""
        head, alert = asked.head, asked.subject.alert
        before, heard = self._before(asked), False
        for choice in self._policy.choices(user, asked.subject, head.kind, Match(True, ()), 0):
            key = LineKey(head.recipient, choice.channel)
            item, held = self._lists.item(key, alert.alertId), self._lists.line(key).held
            if item is not None:
                self._lists.update(key, item, asked)
            elif choice.channel in before.channels:
                reasons: list[Because] = [*head.reasons, *choice.reasons]
                if choice.send:
                    self._send_or_hold(user, asked, choice, reasons, told=True)
                else:
                    self._drop(asked, choice.channel, reasons)
            elif held is not None and held.overflows and tally_key(alert.severity, alert.ruleId) in held.rules:
                if head.kind == "resolved":
                    self._lists.end_uncounted(key, alert)
            else:
                continue
            heard = True
        if not heard:
            self._drop(asked, None, [_NOT_TOLD])

    def _withhold(self, asked: Asked) -> None:
        """Nobody is to be told of it now: what is held of it is let go of."""
        head, alert = asked.head, asked.subject.alert
        before = self._before(asked)
        for channel in CHANNELS:
            key = LineKey(head.recipient, channel)
            held = self._lists.line(key).held
            if held is None:
                continue
            item = self._lists.item(key, alert.alertId)
            if item is not None or (channel not in before.channels and held.overflows and alert.revision > 1):
                self._lists.forget(key, alert.alertId, _tally(alert, item), item)
        assert alert.suppressed is not None
        self._drop(asked, None, [*head.reasons, Reason(code="suppressed", text=alert.suppressed.text)])

    def _send_or_hold(
        self, user: User, asked: Asked, choice: Choice, reasons: Sequence[Because], *, told: bool
    ) -> None:
        """Send it, unless quiet hours or a cap are in the way."""
        head, alert, at_ms = asked.head, asked.subject.alert, asked.at_ms
        key = LineKey(head.recipient, choice.channel)
        line = self._lists.line(key)
        caps = self._policy.caps[choice.channel]
        quiet = quiet_until(user, alert.severity, at_ms)
        if quiet is not None or next_free(line.sent, caps, at_ms) > at_ms:
            self._lists.hold(key, asked, reasons, quiet, told=told)
            return
        # What waits may go now if the quiet hours are others than when it was held.
        if line.held is not None and any(quiet_until(user, each, at_ms) is None for each in line.held.severities):
            self._lists.hold(key, asked, reasons, quiet, told=told)
            self._lists.let_go(key, at_ms)
            return
        self._decisions.send(
            asked.notification_id(choice.channel), asked.about, reasons, at_ms,
            channel=choice.channel, contacts=choice.contacts, severity=alert.severity,
            subjects=[asked.encoded], dedup_key=alert.alertId, user=user, team=head.team,
            message_id=head.messageId,
        )  # fmt: skip
        line.sent = sent_now(line.sent, caps, at_ms)
        if alert.status != "resolved":
            self._lists.note_told(head.recipient, alert.alertId, choice.channel, head.again)

    def _before(self, asked: Asked) -> Told:
        return self._told.get(ToldKey(asked.head.recipient, asked.subject.alert.alertId), 0) or Told()

    def _drop(self, asked: Asked, channel: str | None, reasons: Sequence[Because]) -> None:
        self._decisions.say(
            "dropped", asked.notification_id(channel), asked.about, reasons, asked.at_ms,
            channel=channel, mark=asked.subject.alert.revision, message_id=asked.head.messageId,
        )  # fmt: skip


_ALREADY_TOLD = Reason(code="already-told", text="was told of it before it was suppressed")
_NOT_TOLD = Reason(code="not-told-before", text="was told of the alert on no channel, or only how many there are")


def _tally(alert: Alert, item: Item | None) -> str:
    """Where a list counts it."""
    return tally_key(alert.severity, alert.ruleId) if item is None else item.tally


def _override(user: User, severity: Severity, at_ms: int) -> list[Reason]:
    """Why somebody is told in quiet hours, if they are."""
    quiet = user.preferences.quiet_hours
    if quiet is None or severity not in quiet.override:
        return []
    others = [each for each in GRAVITY if each not in quiet.override]
    if not others or quiet_until(user, others[0], at_ms) is None:
        return []
    return [Reason(code="override", text=f"{severity} alerts come through quiet hours")]

"""By which channels somebody is told of an alert, and why by the others not."""

from typing import NamedTuple, get_args

from headrace.agents.notifying.settings import NotifySettings, Told
from headrace.agents.notifying.subscriptions import Match
from headrace.schemas.notification import Code, Kind, Reason, Subject
from headrace.schemas.rule import Channel
from headrace.schemas.user import User

CHANNELS: tuple[Channel, ...] = get_args(Channel)
#: Which of `[notify] tell` a kind belongs to; the others are always told.
_TOLD: dict[Kind, Told] = {"alert": "triggered", "acknowledged": "acknowledged", "resolved": "resolved"}


class Choice(NamedTuple):
    """What is decided of one channel.

    Args:
        channel: which.
        contacts: where it would go: an address, a number, tokens as `platform:token`; empty if there is none.
        send: whether.
        reasons: why, or why not, beside those of the `Match`.
    """

    channel: Channel
    contacts: tuple[str, ...]
    send: bool
    reasons: tuple[Reason, ...]


def choose(
    user: User,
    subject: Subject,
    kind: Kind,
    match: Match,
    settings: NotifySettings,
    step_channels: tuple[Channel, ...] | None = None,
) -> tuple[Choice, ...]:
    """One choice per channel: email, push, sms. Quiet hours and caps come after it.

    The matrix gives channels, or the escalation's step does; rule, person and subscription only take some away, and
    none that the floor has for the severity.

    Args:
        match: that fits; see `headrace.agents.notifying.subscriptions`.
        step_channels: of the escalation's step, instead of the matrix.
    """
    choices = []
    for channel in CHANNELS:
        contacts = contacts_of(user, channel)
        reason, send = _decide(channel, user, subject, kind, match, settings, step_channels)
        reasons = [reason]
        if send and not contacts:
            send = False
            reasons.append(_reason("no-contact", f"has no {_CONTACT[channel]}"))
        choices.append(Choice(channel, contacts, send, tuple(reasons)))
    return tuple(choices)


_CONTACT: dict[Channel, str] = {"email": "address", "push": "device token", "sms": "phone number"}


def contacts_of(user: User, channel: Channel) -> tuple[str, ...]:
    """Where a channel reaches somebody; empty if it does not."""
    if channel == "push":
        return tuple(f"{each.platform}:{each.token}" for each in user.device_tokens)
    contact = user.email if channel == "email" else user.phone
    return () if contact is None else (contact,)


def _decide(
    channel: Channel,
    user: User,
    subject: Subject,
    kind: Kind,
    match: Match,
    settings: NotifySettings,
    step_channels: tuple[Channel, ...] | None,
) -> tuple[Reason, bool]:
    severity = subject.alert.severity
    told = _TOLD.get(kind)
    if told is not None and told not in settings.tell:
        return _reason("matrix", f"nobody is told when an alert is {told} ([notify] tell)"), False
    if channel == "sms" and kind in ("acknowledged", "resolved"):
        return _reason("matrix", f"sms does not tell that an alert is {told}"), False
    given = settings.matrix[severity] if step_channels is None else step_channels
    giver = f"{severity} alerts go" if step_channels is None else "the step goes"
    if channel not in given:
        return _reason("matrix", f"{giver} by {_list(given)}"), False
    yes = _reason("severity", f"{giver} by {_list(given)}")
    narrowed = _narrowed(channel, user, subject, match)
    if narrowed is None:
        return yes, True
    if channel in settings.floor.get(severity, ()):
        return _reason("floor", f"{channel} cannot be switched off for {severity} alerts, though {narrowed.text}"), True
    return narrowed, False


def _narrowed(channel: Channel, user: User, subject: Subject, match: Match) -> Reason | None:
    """What takes a channel away; None if nothing does."""
    alert, preferences = subject.alert, user.preferences
    wanted = alert.actions.notifications
    if wanted and channel not in wanted:
        return _reason("rule-channels", f"the rule {alert.ruleName} goes by {_list(wanted)}")
    if not getattr(preferences.notifications, channel):
        return _reason("preference", f"{channel} is switched off")
    chosen = preferences.severities.get(alert.severity)
    if chosen is not None and channel not in chosen:
        return _reason("preference", f"wants {alert.severity} alerts by {_list(chosen)}")
    if match.channels is not None and channel not in match.channels:
        return _reason("subscription-channels", f"subscribed by {_list(tuple(sorted(match.channels)))}")
    return None


def _list(channels: tuple[Channel, ...]) -> str:
    return ", ".join(channels) or "no channel"


def _reason(code: Code, text: str) -> Reason:
    return Reason(code=code, text=text)

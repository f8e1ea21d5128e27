"""A request of a person that is being decided on, and what decides."""

from typing import NamedTuple

from headrace.agents.notifying.caps import Cap
from headrace.agents.notifying.channels import CHANNELS, Choice, choose
from headrace.agents.notifying.decisions import about
from headrace.agents.notifying.escalation import step_of, steps_of
from headrace.agents.notifying.requests import Head
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.subscriptions import Match
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Kind, Subject, notification_id
from headrace.schemas.rule import Channel
from headrace.schemas.user import User
from headrace.tables.replicated import Replicated

#: Choices that are remembered.
_MOST_CHOICES = 5_000


class Asked(NamedTuple):
    """A request, its subject, that as JSON, and the append time of the decision, ms."""

    head: Head
    subject: Subject
    encoded: bytes
    at_ms: int

    @property
    def alert(self) -> Alert:
        """What it is about."""
        return self.subject.alert

    @property
    def about(self) -> dict[str, object]:
        """See `headrace.agents.notifying.decisions.about`."""
        return about(self.head.recipient, self.head.kind, self.head.step, self.subject)

    def notification_id(self, channel: str | None) -> str:
        """Of what is decided for a channel; another one each time that telling began anew."""
        head, alert_id = self.head, self.subject.alert.alertId
        cause = f"{alert_id}\0{head.again}" if head.again else alert_id
        return notification_id(cause, head.recipient, channel, head.kind, head.step)


class Policy:
    """What of the settings decides, and choices that were made.

    Args:
        users: people, as of append times.
    """

    def __init__(self, settings: NotifySettings, users: Replicated[User]) -> None:
        self.settings = settings
        self.users = users
        self.caps: dict[str, tuple[Cap, ...]] = {each: settings.limits(each) for each in CHANNELS}
        self._choices: dict[object, tuple[User, tuple[Choice, ...]]] = {}

    def user(self, recipient: str, at_ms: int) -> User | None:
        """Who `user:ID` was at an append time."""
        return self.users.get(recipient.removeprefix("user:"), at_ms)

    def choices(self, user: User, subject: Subject, kind: Kind, match: Match, step: int) -> tuple[Choice, ...]:
        """See `headrace.agents.notifying.channels.choose`; remembered, as many alerts are alike in this."""
        alert = subject.alert
        wanted = alert.actions.notifications
        like = (
            id(user), alert.severity, kind, match.channels, wanted, alert.ruleName if wanted else "", step,
            alert.organizationId if step else "",
        )  # fmt: skip
        known = self._choices.get(like)
        if known is None:
            if len(self._choices) >= _MOST_CHOICES:
                self._choices.clear()
            found = choose(user, subject, kind, match, self.settings, self._step_channels(alert, step))
            # With the user, whose place in memory nobody else has for so long.
            known = self._choices[like] = (user, found)
        return known[1]

    def choice(self, channel: str, user: User, subject: Subject, kind: Kind, match: Match, step: int) -> Choice:
        """Likewise, of one channel."""
        (found,) = (each for each in self.choices(user, subject, kind, match, step) if each.channel == channel)
        return found

    def _step_channels(self, alert: Alert, step: int) -> tuple[Channel, ...] | None:
        """Those that an escalation's step names."""
        policy = steps_of(alert, self.settings) if step else None
        return None if policy is None else step_of(policy, step).channels

"""Everybody who may be told of alerts: people, integrations, and the webhooks of rules."""

from collections.abc import Collection, Iterator, Sequence

from headrace.agents.notifying.integrations import TELL, Integration
from headrace.agents.notifying.subscriptions import Match, subscribed
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Kind, Reason, Subject
from headrace.schemas.user import User
from headrace.tables.replicated import Replicated

#: Moments of the users' table of which the list is remembered.
_MOST_MOMENTS = 8


class Audience:
    """Who there is.

    Args:
        users: people, as of append times.
        integrations: with different names.
    """

    def __init__(self, users: Replicated[User], integrations: Sequence[Integration]) -> None:
        self._users = users
        self._integrations = tuple(integrations)
        self._tell = {f"integration:{each.name}": each.tell for each in integrations}
        self._known: dict[int, tuple[User, ...]] = {}
        self._revision = -1

    @property
    def anybody(self) -> bool:
        """Whether there is, or was lately, anybody but webhooks of rules."""
        return bool(self._integrations) or self._users.entries > 0 or self._users.replaced > 0

    def users(self, at_ms: int) -> tuple[User, ...]:
        """People at an append time, by their ids."""
        if self._revision != self._users.revision or len(self._known) >= _MOST_MOMENTS:
            self._known.clear()
            self._revision = self._users.revision
        (span,) = self._users.spans([at_ms])
        found = self._known.get(span.at_ms)
        if found is None:
            found = tuple(user for _, user in sorted(self._users.items(at_ms)))
            self._known[span.at_ms] = found
        return found

    def subscribers(self, subject: Subject, at_ms: int) -> Iterator[tuple[User, Match]]:
        """People who want to hear of an alert, and why, by their ids."""
        for user in self.users(at_ms):
            match = subscribed(user, subject)
            if match.fits:
                yield user, match

    def systems(self, alert: Alert) -> Iterator[tuple[str, Collection[Kind], Reason]]:
        """Integrations and webhooks that an alert is for: recipient, of what they are told, and why."""
        for each in self._integrations:
            if each.takes(alert):
                text = f"integration {each.name} takes {alert.severity} alerts"
                yield f"integration:{each.name}", each.tell, Reason(code="integration", text=text)
        for url in dict.fromkeys(alert.actions.webhooks):
            text = f"the rule {alert.ruleName} names this webhook"
            yield f"webhook:{url}", TELL, Reason(code="rule-webhook", text=text)

    def tells(self, recipient: str) -> Collection[Kind]:
        """Of what a system is told."""
        return self._tell.get(recipient, () if recipient.startswith("integration:") else TELL)

"""Systems beside people that are told of alerts, as deciding needs to know them."""

from typing import Literal, NamedTuple

from headrace.schemas.alert import Alert
from headrace.schemas.notification import Kind
from headrace.schemas.rule import Severity

#: Of what they are told, if nothing else is said.
TELL: tuple[Kind, ...] = ("alert", "acknowledged", "resolved")


class Integration(NamedTuple):
    """One of them. It has no quiet hours and no caps.

    Args:
        name: unique.
        channel: how it is told.
        severities: of alerts that it is told of; empty for all.
        organization_ids: whose alerts; empty for everybody's.
        tell: of what.
    """

    name: str
    channel: Literal["webhook", "pagerduty", "alertmanager", "apprise"] = "webhook"
    severities: tuple[Severity, ...] = ()
    organization_ids: tuple[str, ...] = ()
    tell: tuple[Kind, ...] = TELL

    def takes(self, alert: Alert) -> bool:
        """Whether it is told of such alerts."""
        return (not self.severities or alert.severity in self.severities) and (
            not self.organization_ids or alert.organizationId in self.organization_ids
        )

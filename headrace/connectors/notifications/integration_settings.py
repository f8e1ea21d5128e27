"""Systems beside people that are told of alerts: one `[channels.integrations.NAME]` each."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from headrace.connectors.notifications.webhook_key import check_webhook_keys
from headrace.connectors.secret_fields import Address, Secret, follow_secret
from headrace.schemas.notification import Kind
from headrace.schemas.rule import Severity

#: Of what an integration is told, if nothing else is said: all that opens, changes and ends an incident there.
TELL: tuple[Kind, ...] = ("alert", "acknowledged", "resolved")


class _Integration(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    severities: tuple[Severity, ...] = Field(
        ("info", "warning", "critical"), min_length=1, description="of alerts that it is told of"
    )
    organization_ids: tuple[str, ...] = Field((), description="whose alerts; everybody's if left out")
    tell: tuple[Kind, ...] = Field(TELL, min_length=1, description="of what it is told")
    timeout: float = Field(15.0, gt=0, le=60, description="seconds for one request")


class WebhookIntegration(_Integration):
    """Somebody's HTTP endpoint, as Standard Webhooks describes it."""

    kind: Literal["webhook"]
    url: Address = Field(description="where events are posted")
    secret: SecretStr | None = Field(
        None, description="`whsec_…`; that of `[channels.webhook]` if left out", repr=False
    )
    old_secret: SecretStr | None = Field(None, description="the one before, which signs too", repr=False)

    _follow = follow_secret("secret", "old_secret")

    @model_validator(mode="after")
    def _keys(self) -> Self:
        check_webhook_keys(self.secret, self.old_secret)
        return self


class PagerDutyIntegration(_Integration):
    """A service of PagerDuty, by Events API v2."""

    kind: Literal["pagerduty"]
    routing_key: SecretStr = Field(description="integration key of the service, 32 characters", repr=False)
    url: Address = Field(
        "https://events.pagerduty.com", description="`https://events.eu.pagerduty.com` in the EU region"
    )

    _follow = follow_secret("routing_key")

    @model_validator(mode="after")
    def _key(self) -> Self:
        key = self.routing_key.get_secret_value()
        if len(key) != 32 or not key.isascii() or not key.isalnum():
            raise ValueError("routing_key must be the 32 letters and digits of an Events API v2 integration")
        return self


class AlertmanagerIntegration(_Integration):
    """An Alertmanager, or what speaks its API v2 (Mimir, Cortex, Karma's sources)."""

    kind: Literal["alertmanager"]
    url: Address = Field(description="of the server, with its path prefix, without /api/v2")
    user: str | None = Field(
        None, min_length=1, pattern=r"^[^:\x00-\x1f\x7f]+$", description="of HTTP basic authentication"
    )
    password: SecretStr | None = Field(None, description="likewise", repr=False)
    token: SecretStr | None = Field(None, description="of HTTP bearer authentication", repr=False)
    keep: float = Field(
        7 * 86_400.0,
        ge=300,
        description="seconds after which Alertmanager lets go of an alert whose end it never heard",
    )
    labels: dict[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], str] = Field(
        {}, description="on every alert, for routing"
    )

    _follow = follow_secret("password", "token")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password come together")
        if self.user is not None and self.token is not None:
            raise ValueError("either user and password, or token")
        return self


class AppriseIntegration(_Integration):
    """Slack, Teams, Telegram and about 120 other services, by Apprise."""

    kind: Literal["apprise"]
    url: Secret = Field(description="of Apprise, as in `slack://…`; `env:NAME` or `file:PATH`", repr=False)


Integration = Annotated[
    WebhookIntegration | PagerDutyIntegration | AlertmanagerIntegration | AppriseIntegration,
    Field(discriminator="kind"),
]

"""How notifications reach people and systems: texts, and one section per channel."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from headrace.connectors.notifications.email_settings import EmailSettings
from headrace.connectors.notifications.integration_settings import Integration
from headrace.connectors.notifications.push_settings import PushSettings
from headrace.connectors.notifications.sms_settings import SmsSettings
from headrace.connectors.notifications.webhook_key import check_webhook_keys
from headrace.connectors.secret_fields import Address, follow_secret

#: Names of integrations, as escalation steps, decisions and logs have them.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_PLACES = {"alert", "device"}


def _pattern(value: str) -> str:
    for name in re.findall(r"\{([^{}]*)\}", value):
        if name not in _PLACES:
            raise ValueError(f"has {{{name}}}: {{alert}} and {{device}} stand for ids, and nothing else")
    if "{" in re.sub(r"\{(alert|device)\}", "", value) or "{" in urlsplit(value).netloc:
        raise ValueError("has a brace that is none of {alert} and {device}, or one in its host")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        try:
            ip_network(each)
        except ValueError as error:
            raise ValueError(f"{error}: write networks, as in 10.1.0.0/16") from error
    return value


Link = Annotated[Address, AfterValidator(_pattern)]


class WebhookSettings(BaseModel):
    """Webhooks: those of rules, and what all of them keep to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    secret: SecretStr | None = Field(
        None,
        description="`whsec_…`, by which receivers of rules' webhooks know that they come from here; `env:NAME` or "
        "`file:PATH` names where it is; unsigned if left out",
        repr=False,
    )
    old_secret: SecretStr | None = Field(
        None, description="likewise, the one before: signs too, until every receiver has the new one", repr=False
    )
    private_networks: Annotated[tuple[str, ...], AfterValidator(_networks)] = Field(
        (), description='not public, and taken all the same, as in `["10.1.0.0/16"]`'
    )
    timeout: float = Field(15.0, gt=0, le=60, description="seconds for one request")
    requests: int = Field(32, ge=1, le=256, description="under way at once, half of them to one server, count")

    _follow = follow_secret("secret", "old_secret")

    @model_validator(mode="after")
    def _keys(self) -> Self:
        check_webhook_keys(self.secret, self.old_secret)
        return self

    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`private_networks`, parsed."""
        return tuple(ip_network(each) for each in self.private_networks)


class ChannelsSettings(BaseModel):
    """Texts and channels; a channel without its first key is off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    templates: Path | None = Field(None, description="folder with templates of your own; they go before the shipped")
    dashboard_url: Link | None = Field(
        None,
        description="page of an alert, as in `https://iot.example.com/alerts/{alert}`; `{alert}` and `{device}` stand "
        "for ids; no links if left out",
    )
    acknowledge_url: Link | None = Field(
        None, description="likewise, where somebody signed in acknowledges it; no such link if left out"
    )
    email: EmailSettings = EmailSettings()
    push: PushSettings = PushSettings()
    sms: SmsSettings = SmsSettings()
    webhook: WebhookSettings = WebhookSettings()
    integrations: dict[Name, Integration] = Field(
        {}, description="other systems, each `[channels.integrations.NAME]` with its `kind`"
    )

    @property
    def configured(self) -> bool:
        """Whether any channel is: then a worker of one process delivers by itself."""
        return self != type(self)()

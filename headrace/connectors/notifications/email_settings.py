"""How mail is sent."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from headrace.connectors.secret_fields import follow_secret
from headrace.schemas.user import Email

#: Ports of submission, by how the connection is secured.
PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SENDER = re.compile(r'(?:(?P<name>[^<>"@\x00-\x1f\x7f]{0,100}?) *<(?P<spec>[^<> ]+)>|(?P<bare>[^<> ]+))')


def parse_sender(value: str) -> tuple[str, str]:
    """Name and address of `Name <address>`, or of an address alone.

    Raises:
        ValueError: it is neither.
    """
    found = _SENDER.fullmatch(value.strip())
    spec = (found["spec"] or found["bare"]) if found else ""
    try:
        TypeAdapter(Email).validate_python(spec)
    except ValidationError:
        raise ValueError('must be an address, or as in "Alerts <alerts@example.com>"') from None
    return (found["name"] or "" if found else ""), spec


def _sender(value: str) -> str:
    parse_sender(value)
    return value


class EmailSettings(BaseModel):
    """One SMTP server that takes mail for everybody: a relay, or a provider's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str | None = Field(
        None, pattern=r"^[^\s/@:]+$|^[0-9a-fA-F:.]+$", description="SMTP server; no mail if left out"
    )
    port: int | None = Field(None, ge=1, le=65535, description="587 with starttls, 465 with tls, else 25 if left out")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="`starttls`, `tls` or `none`")
    sender: Annotated[str, AfterValidator(_sender)] | None = Field(
        None, description='as in `"Alerts <alerts@example.com>"`; its domain is where DKIM and SPF must be right'
    )
    reply_to: Email | None = Field(None, description="where answers go")
    user: str | None = Field(None, min_length=1, description="to sign in with")
    password: SecretStr | None = Field(
        None, description="likewise; `env:NAME` or `file:PATH` names where it is", repr=False
    )
    unsubscribe_url: str | None = Field(
        None, pattern=r"^(https|mailto):[^\s<>,]+$", description="where preferences are changed, for List-Unsubscribe"
    )
    timeout: float = Field(20.0, gt=0, le=300, description="seconds for each step of the conversation")
    connections: int = Field(4, ge=1, le=20, description="to the server at once, count; kept open between mails")

    _follow = follow_secret("password")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.host is not None and self.sender is None:
            raise ValueError("sender is missing: name the address that mail comes from")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password come together")
        if self.user is not None and self.security == "none":
            raise ValueError("a password goes over no plain connection: security must be starttls or tls")
        return self

"""How pushes are sent: Firebase for apps and browsers, ntfy for phones without an app of yours."""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from headrace.connectors.secret_fields import Address, follow_secret

#: What of a service account's file is needed.
NEEDED = ("project_id", "client_email", "private_key")


class PushSettings(BaseModel):
    """Firebase Cloud Messaging (HTTP v1), and a server of ntfy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fcm_credentials: SecretStr | None = Field(
        None, description="`file:PATH` of the service account's JSON file; no Firebase if left out", repr=False
    )
    fcm_url: Address = Field("https://fcm.googleapis.com", description="of another server that speaks for Firebase")
    ntfy_url: Address | None = Field(
        None, description="as in `https://ntfy.sh`, for tokens that are a topic; none if left out"
    )
    ntfy_token: SecretStr | None = Field(
        None, description="access token for it; `env:NAME` or `file:PATH` names where it is", repr=False
    )
    timeout: float = Field(15.0, gt=0, le=60, description="seconds for one request")
    requests: int = Field(16, ge=1, le=256, description="under way at once, count")

    _follow = follow_secret("fcm_credentials", "ntfy_token")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.fcm_credentials is not None:
            try:
                account = json.loads(self.fcm_credentials.get_secret_value())
                missing = [name for name in NEEDED if not isinstance(account[name], str)]
            except (ValueError, LookupError, TypeError):
                missing = [*NEEDED]
            if missing:
                raise ValueError(
                    "fcm_credentials must be a service account's JSON file, with project_id, client_email and "
                    "private_key: Firebase console, project settings, service accounts, generate new private key"
                )
        if self.ntfy_token is not None and self.ntfy_url is None:
            raise ValueError("ntfy_token goes with ntfy_url")
        return self

"""How AWS, or a server that speaks for it, is reached: settings of several sections."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace.connectors.secret_fields import follow_secret


class AwsAccess(BaseModel):
    """Address and keys. What is left out, AWS's own variables, files and roles say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    region: str | None = Field(
        None, min_length=1, description="as in `eu-central-1`; from AWS's own settings if left out"
    )
    endpoint_url: str | None = Field(None, description="`https://…` of a server that speaks for AWS; AWS if left out")
    access_key_id: SecretStr | None = Field(
        None, description="`env:NAME` or `file:PATH` names where it is; the usual AWS chain if left out", repr=False
    )
    secret_access_key: SecretStr | None = Field(None, description="likewise, with `access_key_id`", repr=False)
    session_token: SecretStr | None = Field(None, description="likewise, of temporary credentials", repr=False)

    _follow = follow_secret("access_key_id", "secret_access_key", "session_token")

    @field_validator("endpoint_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/@\s]+/?", value):
            raise ValueError("must be https://host:port, without user, password or path")
        return value

    @model_validator(mode="after")
    def _whole_keys(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        return self

"""How to reach a Kinesis stream."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace.engine.config import resolve_secret

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_ARN = re.compile(r"arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}")


class StreamSettings(BaseModel):
    """One stream. What is left out, AWS's own variables, files and roles say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stream: str | None = Field(None, description="name or ARN")
    region: str | None = Field(
        None, min_length=1, description="as in `eu-central-1`; from the ARN or AWS's own settings"
    )
    endpoint_url: str | None = Field(None, description="`https://…` of a server that speaks for AWS; AWS if left out")
    access_key_id: SecretStr | None = Field(
        None, description="`env:NAME` or `file:PATH` names where it is; the usual AWS chain if left out", repr=False
    )
    secret_access_key: SecretStr | None = Field(None, description="likewise, with `access_key_id`", repr=False)
    session_token: SecretStr | None = Field(None, description="likewise, of temporary credentials", repr=False)
    request_timeout: float = Field(
        10.0, gt=0, le=300, description="seconds until a request counts as failed and is repeated"
    )

    @field_validator("stream")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not _NAME.fullmatch(value) and not _ARN.fullmatch(value):
            raise ValueError("must be the name of a stream (letters, digits, _ . -) or its ARN")
        return value

    @field_validator("endpoint_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/@\s]+/?", value):
            raise ValueError("must be https://host:port, without user, password or path")
        return value

    @field_validator("access_key_id", "secret_access_key", "session_token")
    @classmethod
    def _follow_reference(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(resolve_secret(value.get_secret_value()))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        return self


class KinesisSettings(StreamSettings):
    """The stream that a bridge feeds."""

    requests: int = Field(4, ge=1, le=64, description="requests under way at once, count; each of other devices")

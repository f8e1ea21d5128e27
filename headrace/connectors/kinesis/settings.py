"""How to reach a Kinesis stream."""

import re

from pydantic import Field, field_validator

from headrace.connectors.aws_access import AwsAccess

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_ARN = re.compile(r"arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}")


class StreamSettings(AwsAccess):
    """One stream; its ARN says the region too."""

    stream: str | None = Field(None, description="name or ARN")
    request_timeout: float = Field(
        10.0, gt=0, le=300, description="seconds until a request counts as failed and is repeated"
    )

    @field_validator("stream")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not _NAME.fullmatch(value) and not _ARN.fullmatch(value):
            raise ValueError("must be the name of a stream (letters, digits, _ . -) or its ARN")
        return value


class KinesisSettings(StreamSettings):
    """The stream that a bridge feeds."""

    requests: int = Field(4, ge=1, le=64, description="requests under way at once, count; each of other devices")

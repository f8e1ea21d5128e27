"""How SMS are sent: Amazon SNS."""

from pydantic import Field

from headrace.connectors.aws_access import AwsAccess


class SmsSettings(AwsAccess):
    """Amazon SNS."""

    enabled: bool = Field(False, description="send SMS; each costs money")
    sender_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{0,10}[A-Za-z][A-Za-z0-9-]{0,10}$",
        max_length=11,
        description="name that phones show, 1 to 11 letters and digits, where the country allows one",
    )
    timeout: float = Field(10.0, gt=0, le=60, description="seconds for one request")
    requests: int = Field(8, ge=1, le=64, description="under way at once, count")

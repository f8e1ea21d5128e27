"""How long, and how often, something is tried to be sent."""

from pydantic import BaseModel, ConfigDict, Field


class DeliverySettings(BaseModel):
    """Of `headrace notify`; whom to tell, and by what, is said elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    give_up_after: float = Field(
        86_400.0, ge=1, description="seconds after its decision that a notification is not tried any more"
    )
    stale_after: float = Field(
        3600.0, ge=1, description="likewise, of pushes and SMS that are not critical: later they would only disturb"
    )
    first_backoff: float = Field(1.0, gt=0, le=3600, description="seconds before the second attempt; then doubling")
    max_backoff: float = Field(300.0, gt=0, le=86_400, description="seconds between two attempts at most")
    attempt_timeout: float = Field(60.0, gt=0, le=600, description="seconds that an attempt may take")
    most_waiting: int = Field(
        50_000, ge=100, description="messages that may wait in memory, about 2 KiB each; with more the outbox waits"
    )
    keep: float = Field(30 * 86_400.0, ge=3600, description="seconds that the delivery log keeps what is over")

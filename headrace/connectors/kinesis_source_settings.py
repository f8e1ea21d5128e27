"""Which Kinesis stream to take messages from, and how."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from headrace.connectors.kinesis_settings import StreamSettings
from headrace.connectors.topic_profile import Alarm


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class KinesisSourceSettings(StreamSettings):
    """The stream that messages are taken from. Durations are seconds."""

    device_type: str = Field(
        "environmental", min_length=1, description="name of the device type that the records are read with"
    )
    profile: str = Field("kinesis", min_length=1, max_length=64, description="goes into a header of every message")
    device_field: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="field of the payload with the device id, the first of several; the partition key if empty"
    )
    alarm: Alarm | None = Field(
        None, description="which records are alarms, by a field of the payload; none if left out"
    )
    start: Literal["trim_horizon", "latest", "timestamp"] = Field(
        "trim_horizon", description="where the first start begins: with all there is, what comes from now on, or since"
    )
    start_timestamp: AwareDatetime | None = Field(None, description="with `start` of `timestamp`: arrived since then")
    read_interval: float = Field(
        0.5,
        ge=0.2,
        le=60,
        description="between two reads of a shard that has nothing more; Kinesis allows five a second",
    )
    max_records: int = Field(10_000, ge=1, le=10_000, description="records of one read, count")
    max_batch: int = Field(5_000, ge=1, le=50_000, description="messages appended at once, count")
    requests: int = Field(
        8, ge=1, le=64, description="reads of up to 10 MiB that are under way or being appended, of all shards, count"
    )

    @model_validator(mode="after")
    def _start_whole(self) -> Self:
        if (self.start == "timestamp") != (self.start_timestamp is not None):
            raise ValueError('start = "timestamp" and start_timestamp = "2026-01-18T10:30:00Z" come together')
        return self

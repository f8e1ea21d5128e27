"""Which Kinesis stream to take messages from, and how."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from headrace.connectors.kinesis.settings import StreamSettings
from headrace.connectors.topic_profile import Alarm

#: Stands in `topic` for the partition key.
KEY = "{key}"
#: What the topic's profile says where there is one.
INSTEAD = ("device_type", "profile", "device_field", "alarm")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class KinesisSourceSettings(StreamSettings):
    """The stream that messages are taken from. Durations are seconds."""

    topic: str | None = Field(
        None,
        pattern=r"^[^+#\x00]+$",
        description="that records count as published on, with `{key}` for the partition key: its topic profile says "
        "device, type, format and alarms",
    )
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
        fields = type(self).model_fields
        # Not by model_fields_set: the defaults of a section come with whatever is set in it.
        named = [name for name in INSTEAD if getattr(self, name) != fields[name].get_default()]
        if self.topic is not None and named:
            raise ValueError(f"with topic, its topic profile says {', '.join(named)}: leave that out here")
        return self

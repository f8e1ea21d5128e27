"""What `telemetry.conflicts` carries: a message that contradicts one accepted before it, and both sides' values."""

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.schemas import topics


class Origin(msgspec.Struct, frozen=True):
    """Where the message is in the log, as it was sent.

    Args:
        partition, offset: of its record.
        topic: `telemetry.raw` unless it says otherwise.
    """

    partition: int
    offset: int
    topic: str = topics.RAW


class Conflict(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message of which at least one metric differs from what was accepted for the same device and time.

    Args:
        message_id, device_id, device_type: of the message.
        time: event time, ms since 1970 UTC.
        measures: what it says, by name, in the units of the device type.
        accepted: what was accepted before.
        origin: the message in the log.
        extra: what else it says, by name: texts, and what the device type does not know.
        accepted_extra: what else was accepted before.
    """

    message_id: str
    device_id: str
    device_type: str
    time: int
    measures: Mapping[str, float]
    accepted: Mapping[str, float]
    origin: Origin
    extra: dict[str, Any] | None = None
    accepted_extra: dict[str, Any] | None = None


encode_conflict = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Conflict)


def decode_conflict(value: bytes) -> Conflict:
    """The conflict in the value of a record.

    Raises:
        msgspec.DecodeError: it is not one.
    """
    return _decoder.decode(value)

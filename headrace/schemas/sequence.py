"""What `devices.sequences` carries, compacted: what became of the numbers of a device's messages. Key: its id."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class SequenceCounts(BaseModel):
    """One numbered stream of messages of a device. All but `last`, `modulo` and `time` are counts since the first.

    Args:
        last: the newest number.
        modulo: how many numbers there are; behind the last comes 0.
        received: messages, each number once.
        lost: numbers that were left out and have not come since.
        late: messages that came after one with a greater number; what they had been counted as lost is taken back.
        repeats: messages whose number was there before.
        resets: how often the device began anew.
        time: event time of the newest number, ms since 1970 UTC, where the source knows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: int
    modulo: int
    received: int
    lost: int
    late: int
    repeats: int
    resets: int
    time: int | None = None


class DeviceSequences(BaseModel):
    """The numbered streams of a device.

    Args:
        device_id: whose.
        streams: by name of the topic profile that the messages came through.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    streams: Mapping[str, SequenceCounts]

"""Where a replay's rows go: into the log, or out to a broker as if the devices had sent them."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake, Mark

#: Profile of rows that enter the log directly.
REPLAY_PROFILE = "replay"
_NOT_IN_A_TOPIC_LEVEL = re.compile(r"[/+#\x00]")


@dataclass(slots=True)
class Rows:
    """Messages of a replay, in order, as columns of equal length.

    Args:
        device_ids: UTF-8, not empty.
        payloads: JSON, or the bytes of a row that could not be mapped.
        timestamps: append time, ms since 1970 UTC; never falling.
        sources: file name and line, as in `b"day.csv:17"`.
        device_type: name of the device type that reads them.
        mark: the source's position behind the last row.
    """

    device_ids: list[bytes]
    payloads: list[bytes]
    timestamps: list[int]
    sources: list[bytes]
    device_type: str
    mark: Mark

    def __len__(self) -> int:
        return len(self.payloads)


class Deliver(Protocol):
    """Takes the rows of a replay."""

    async def deliver(self, rows: Rows) -> None:
        """Hand `rows` on and commit `rows.mark`; not before the rows are handed on. Called for one batch at a time."""
        ...


class IntakeDelivery:
    """Appends rows to the log; rows and position are committed in one step, so none is lost or doubled."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def deliver(self, rows: Rows) -> None:
        await self._intake.append(
            rows.device_ids,
            rows.payloads,
            device_type=rows.device_type,
            profile=REPLAY_PROFILE,
            sources=rows.sources,
            timestamps=rows.timestamps,
            mark=rows.mark,
        )


class PublishDelivery:
    """Publishes rows to `dt/devices/{device}/telemetry`; the position is committed when `drain` has returned.

    At least once: after a crash the rows of the last batch are published again.

    Args:
        publish: sends one payload to one topic; may wait for room.
        drain: returns when the broker has taken everything published before.
        intake: keeps the position.
        topic: with `{device}` where the device id stands.
    """

    def __init__(
        self,
        publish: Callable[[str, bytes], Awaitable[None]],
        drain: Callable[[], Awaitable[None]],
        intake: Intake,
        topic: str = "dt/devices/{device}/telemetry",
    ) -> None:
        self._publish = publish
        self._drain = drain
        self._intake = intake
        self._topic = topic

    async def deliver(self, rows: Rows) -> None:
        """As `Deliver.deliver`.

        Raises:
            ConfigError: a device id cannot stand in a topic; nothing of `rows` was published.
        """
        devices = [device_id.decode() for device_id in rows.device_ids]
        for device, source in zip(devices, rows.sources, strict=True):
            if _NOT_IN_A_TOPIC_LEVEL.search(device):
                raise ConfigError(
                    f"{source.decode()}: device id {device!r} cannot stand in an MQTT topic: replay without --via mqtt"
                )
        for device, payload in zip(devices, rows.payloads, strict=True):
            await self._publish(self._topic.format(device=device), payload)
        await self._drain()
        await self._intake.append([], [], device_type=rows.device_type, profile=REPLAY_PROFILE, mark=rows.mark)

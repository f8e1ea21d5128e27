"""The device registry: reads and changes the topic `registry.devices`."""

from collections.abc import Mapping

from headrace.engine.clock import Clock, ManualClock
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Log, TopicPartition
from headrace.schemas import topics
from headrace.schemas.device import Device, encode_device
from headrace.tables.registry import Registry

#: A change applies to what is appended so much later, ms; see `headrace.tables.registry.Registry`.
DELAY_MS = 1000


class DeviceRegistry:
    """The devices of an installation.

    A change applies to records appended a second later. Where append times are not those of this machine's clock (a
    demo runs on virtual time, a replay on that of its data) it applies about two minutes of theirs after the newest
    record. Before the first record it applies to all.

    Args:
        log: where the topic is, or will be.
        clock: real time.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._applies = ManualClock()
        self._registry = Registry(log, topics.DEVICES, encode_device, self._applies, delay=0)

    async def stored(self) -> dict[str, bytes]:
        """Every device as it is in the topic, by id."""
        if topics.DEVICES not in {spec.name for spec in await self._log.topics()}:
            return {}
        targets = [TopicPartition(topics.DEVICES, number) for number in range(self._log.partitions(topics.DEVICES))]
        found = {}
        for target in targets:
            async for entries in self._log.restore(target):
                found.update({key.decode(errors="replace"): value for key, value in entries})
        return found

    async def change(self, devices: Mapping[str, Device | None]) -> int:
        """Set devices by id, None removes; all in one step. Returns the append time (ms) from which it applies.

        Raises:
            LogError: nothing of it happened.
        """
        self._applies.follow(await self._applies_at())
        return await self._registry.change(devices)

    async def _applies_at(self) -> int:
        now = self._clock.now_ms() + DELAY_MS
        if topics.RAW not in {spec.name for spec in await self._log.topics()}:
            return 0
        minutes = [tally.minute_ms for tally in await self._log.tallies(topics.RAW)]
        if minutes:
            return min(now, max(minutes) + 2 * MINUTE_MS)
        return now if any((await self._log.end_offsets(topics.RAW)).values()) else 0

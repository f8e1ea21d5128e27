"""Load for the chaos tests on Kafka: a simulated fleet, duplicates and bad messages included, through `Intake`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.connectors.fleet import Fleet
from headrace.connectors.fleet_config import SimulatedFleetConfig
from headrace.connectors.fleet_faults import FleetTruth
from headrace.engine.clock import SystemClock, VirtualClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.tables.device_types import load_device_types

RATE = 2_000.0
DEVICES = 200
DAY_MS = 86_400_000
#: Append time of the first message: yesterday. Where nothing comes for 10 s a worker goes by its own clock, and forgets
#: alerts that have been over for 30 days by then.
START_MS = (SystemClock().now_ms() // DAY_MS - 1) * DAY_MS + 1_750_000_000_000 % DAY_MS
#: Virtual seconds per second: windows of a minute close every second, the first alert comes after five.
SPEED = 60.0
#: Messages that wait for Kafka; while more wait, the fleet leaves messages out, as devices with a full buffer do.
MOST_WAITING = 20_000
#: Seconds between two appends.
PAUSE = 0.01
#: Virtual time and messages without which there may be no window, anomaly or alert to compare.
LEAST_MS, LEAST_MESSAGES = 600_000, 16_000
#: Seconds for them; catches hangs.
PATIENCE = 300.0


class Load:
    """What a fleet sends, appended until `stop`; an append that waits for Kafka holds up the next one.

    Args:
        log: where to.
        seed: of the fleet; the same gives the same messages, but for their day.
    """

    def __init__(self, log: KafkaLog, seed: int) -> None:
        self._clock = VirtualClock(START_MS, SPEED)
        self._intake = Intake(log, self._clock)
        config = SimulatedFleetConfig(
            seed=seed,
            devices=DEVICES,
            rate=RATE,
            duplicates=0.02,
            late=0.01,
            malformed=0.01,
            conflicting=0.01,
            spoofed=0.01,
            late_by_ms=(30_000, 150_000),
        )
        self._fleet = Fleet(config, load_device_types()["environmental"], self._clock, self._publish)
        self._waiting: list[tuple[str, bytes]] = []
        self._room = asyncio.Event()
        self._room.set()
        self._stop = asyncio.Event()
        #: Messages whose append returned.
        self.appended = 0
        #: Longest that one append took, seconds.
        self.longest_append = 0.0

    @property
    def truth(self) -> FleetTruth:
        """How many messages of each kind were sent."""
        return self._fleet.truth

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send for as long as the `async with` lasts, and until there is enough; then append what is left."""
        self._clock.start(START_MS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fleet.run(self._stop))
            group.create_task(self._append())
            try:
                yield
                async with asyncio.timeout(PATIENCE):
                    while self._clock.now_ms() < START_MS + LEAST_MS or self.appended < LEAST_MESSAGES:
                        await asyncio.sleep(PAUSE)
            finally:
                self._stop.set()

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._room.wait()
        self._waiting.append((topic.split("/")[2], payload))
        if len(self._waiting) >= MOST_WAITING:
            self._room.clear()

    async def _append(self) -> None:
        while self._waiting or not self._stop.is_set():
            messages, self._waiting = self._waiting, []
            self._room.set()
            if messages:
                began = self._clock.monotonic()
                await self._intake.append(
                    [device.encode() for device, _ in messages],
                    [payload for _, payload in messages],
                    device_type="environmental",
                    profile="chaos",
                    sources=b"chaos",
                )
                self.appended += len(messages)
                self.longest_append = max(self.longest_append, self._clock.monotonic() - began)
            await self._clock.sleep(PAUSE)

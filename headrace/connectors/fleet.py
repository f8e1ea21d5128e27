"""A simulated fleet: devices that send at a rate, on the clock's time, with faults."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headrace.connectors.fleet_config import SimulatedFleetConfig
from headrace.connectors.fleet_episodes import Episode, Episodes
from headrace.connectors.fleet_faults import Fault, FleetTruth
from headrace.connectors.fleet_messages import FleetMessages, Message
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType

#: Shortest and longest wait between two looks at what is due, seconds.
SHORTEST_WAIT, LONGEST_WAIT = 0.005, 0.1
#: Shortest time between two messages of a device, ms of the clock's time: then whole ms still strictly increase.
LEAST_INTERVAL_MS = 1.5
#: How far the fleet may fall behind before it leaves messages out, seconds of real time.
MAX_BEHIND = 0.5


@dataclass(frozen=True, slots=True)
class FleetStatistics:
    """How a fleet is doing.

    Args:
        published: messages handed over, faults included, count.
        skipped: messages left out because the broker did not take them in time, count.
        asked_rate: messages per second of real time that it should send.
        achieved_rate: what it sent per second of real time on average, without extra messages of faults, and with those
            that silent devices did not send.
        held: late messages held back now, count.
    """

    published: int
    skipped: int
    asked_rate: float
    achieved_rate: float
    held: int


class Fleet:
    """Sends the messages of simulated devices, one after the other, device by device.

    A device's event times, unless its clock is wrong, strictly increase, in whole ms, and keep up with the clock: a
    fleet whose broker is too slow leaves messages out instead of falling behind. Event times start at the clock's time
    at `run`, so after a restart the clock has to start later than it stopped. Late messages still held at the end are
    never sent.

    Args:
        config: the fleet.
        device_type: of all devices.
        clock: gives event times and the pace.
        publish: sends one message, (topic, payload); may wait.
        start_sequence: `next_sequence` of the run before, from 0.
        on_episode: called with each episode of the fault script when it is over, or the run is.
        on_published: called with (device id, event time in ms) just before every `mark_every`-th sound message is sent.
    Raises:
        ConfigError: the devices would have to send more often than every 1.5 ms of the clock's time; or they have
            nothing to measure.
    """

    def __init__(
        self,
        config: SimulatedFleetConfig,
        device_type: DeviceType,
        clock: Clock,
        publish: Callable[[str, bytes], Awaitable[None]],
        *,
        start_sequence: int = 0,
        on_episode: Callable[[Episode], None] | None = None,
        on_published: Callable[[str, int], None] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._publish = publish
        self._on_published = on_published
        self._spacing_ms = 1 / (config.rate * clock.real_seconds(1))
        interval_ms = self._spacing_ms * config.devices
        if interval_ms < LEAST_INTERVAL_MS:
            raise ConfigError(
                f"{config.devices} devices at {config.rate:g} messages per second would each send every "
                f"{interval_ms:.2g} ms of the clock's time; the least is {LEAST_INTERVAL_MS} ms: "
                "use more devices or a lower rate"
            )
        self._messages = FleetMessages(config, device_type, interval_ms)
        self._episodes = Episodes(on_episode)
        # Messages are numbered through the fleet: number // devices is the sequence, number % devices the device.
        self._first = self._next = start_sequence * config.devices
        self._start_ms = 0
        self._began = self._ended = clock.monotonic()
        self._running = False
        self._held: list[tuple[int, int, Message]] = []
        self._sent: Counter[str] = Counter()
        self._skipped = 0
        self._sound = 0

    @property
    def next_sequence(self) -> int:
        """First sequence number that no device has used; for `start_sequence` of the next run."""
        return -(-self._next // self._config.devices)

    @property
    def truth(self) -> FleetTruth:
        """How many of each kind were sent so far."""
        return FleetTruth(**self._sent)

    def statistics(self) -> FleetStatistics:
        """A snapshot."""
        elapsed = (self._clock.monotonic() if self._running else self._ended) - self._began
        taken = self._next - self._first - self._skipped
        return FleetStatistics(
            published=self._sent.total(),
            skipped=self._skipped,
            asked_rate=self._config.rate,
            achieved_rate=taken / elapsed if elapsed > 0 else 0.0,
            held=len(self._held),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; once per object. Whatever `publish` raises ends the run."""
        self._start_ms, self._began, self._running = self._clock.now_ms(), self._clock.monotonic(), True
        try:
            while not stop.is_set():
                await self._send_due(stop)
                await self._clock.sleep(self._wait())
        finally:
            self._running, self._ended = False, self._clock.monotonic()
            self._episodes.finish()

    async def _send_due(self, stop: asyncio.Event) -> None:
        """Send until nothing is due any more; looks at the clock before every message, as each may wait."""
        while not stop.is_set():
            if self._held and self._held[0][0] <= self._clock.now_ms():
                _, _, late = heapq.heappop(self._held)
                await self._send_one(late.device_id, late.payload, "late")
                continue
            due = self._due()
            if self._next >= due:
                return
            behind = due - self._next - max(1, int(MAX_BEHIND * self._config.rate))
            if behind > 0:
                self._next += behind
                self._skipped += behind
            event_time = self._start_ms + int((self._next - self._first) * self._spacing_ms)
            sequence, device = divmod(self._next, self._config.devices)
            self._next += 1
            message = self._messages.message(device, sequence, event_time)
            if message.fault not in (Fault.MALFORMED, Fault.SPOOFED):
                self._episodes.note(message.device_id, message.time_ms, message.wrong, message.touched)
            await self._send(message, event_time)

    async def _send(self, message: Message, event_time: int) -> None:
        device_id = message.device_id
        match message.fault:
            case Fault.SILENT:
                return
            case Fault.LATE:
                heapq.heappush(self._held, (event_time + message.held_ms, self._next, message))
            case Fault.MALFORMED:
                await self._send_one(device_id, message.payload, "malformed")
            case Fault.SPOOFED:
                await self._send_one(device_id, message.payload, "spoofed")
            case _:
                if message.fault is Fault.NONE:
                    self._mark(device_id, message.time_ms)
                await self._send_one(device_id, message.payload, "normal")
                if message.second is not None:
                    kind = "duplicate" if message.fault is Fault.DUPLICATE else "conflicting"
                    await self._send_one(device_id, message.second, kind)

    def _mark(self, device_id: str, event_time: int) -> None:
        self._sound += 1
        if self._on_published is not None and self._sound % self._config.mark_every == 0:
            self._on_published(device_id, event_time)

    async def _send_one(self, device_id: str, payload: bytes, kind: str) -> None:
        await self._publish(f"dt/devices/{device_id}/telemetry", payload)
        self._sent[kind] += 1

    def _due(self) -> int:
        """The number after the last message whose time has come."""
        return self._first + int((self._clock.monotonic() - self._began) * self._config.rate)

    def _wait(self) -> float:
        """Seconds until the next message is due, within bounds."""
        next_due = self._began + (self._next + 1 - self._first) / self._config.rate
        return min(max(next_due - self._clock.monotonic(), SHORTEST_WAIT), LONGEST_WAIT)

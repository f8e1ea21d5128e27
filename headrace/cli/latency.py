"""Measures publish → committed row in real time, on a sample of messages."""

from collections.abc import Sequence

from headrace.cli.report import Latency
from headrace.engine.clock import Clock
from headrace.schemas.readings import Readings

#: Marks waiting for their row; a message that never gets one (dead-lettered) must not be kept for ever.
MAX_PENDING = 10_000
#: Newest latencies kept.
MAX_SAMPLES = 100_000


class LatencyProbe:
    """`published` when a message leaves the device, `committed` when the database has its row."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[tuple[str, int], float] = {}
        self._samples: list[float] = []

    def published(self, device_id: str, time_ms: int) -> None:
        """A message of this device and event time is being sent now."""
        if len(self._pending) >= MAX_PENDING:
            self._pending.pop(next(iter(self._pending)))
        self._pending[device_id, time_ms] = self._clock.monotonic()

    def committed(self, batches: Sequence[Readings]) -> None:
        """These readings are in the database now."""
        if not self._pending:
            return
        now = self._clock.monotonic()
        for readings in batches:
            for key in zip(readings.device_ids, readings.times.tolist(), strict=True):
                began = self._pending.pop(key, None)
                if began is not None and len(self._samples) < MAX_SAMPLES:
                    self._samples.append((now - began) * 1000)

    def latency(self) -> Latency:
        """Median and 99th percentile so far, ms."""
        ordered = sorted(self._samples)
        if not ordered:
            return Latency(None, None)
        return Latency(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))])

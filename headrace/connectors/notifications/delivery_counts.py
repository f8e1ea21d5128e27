"""What delivery has done, for people and for metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.engine.clock import Clock
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics


@dataclass(slots=True)
class DeliveryStatistics:
    """Since the process began, count.

    Args:
        taken: messages taken from the outbox: one per contact.
        sent: messages that a receiver has taken.
        failed: attempts that failed.
        repeated: attempts after one whose end a crash has hidden.
        found: such attempts that a provider knew of.
        dropped: messages that were too old, or for a dead contact.
        dead: messages that are not tried any more.
        refused: records of the outbox that cannot be read.
        waiting: messages that are not finished, now.
        down: servers that do not take any, now: `channel` or `channel server`, with the last error.
    """

    taken: int = 0
    sent: int = 0
    failed: int = 0
    repeated: int = 0
    found: int = 0
    dropped: int = 0
    dead: int = 0
    refused: int = 0
    waiting: int = 0
    down: Mapping[str, str] | None = None


class DeliveryCounts:
    """Keeps the statistics, metrics and readiness of a delivery.

    Args:
        channels: their names.
        metrics, health: told.
        clock: of statistics.
    """

    def __init__(self, channels: list[str], metrics: Metrics, health: Health | None, clock: Clock) -> None:
        self.statistics = DeliveryStatistics()
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._unready: set[str] = set()
        for channel in channels:
            metrics.set("headrace_notification_servers_down", 0, channel=channel)

    def came_to(self, channel: str, status: str) -> None:
        """A message has come to this status."""
        self._metrics.count("headrace_notifications_total", channel=channel, status=status)

    def attempted(self, channel: str, began: float) -> None:
        """An attempt has ended that began at this monotonic second."""
        self._metrics.observe(
            "headrace_notification_attempt_seconds", self._clock.monotonic() - began, channel=channel
        )  # fmt: skip

    def sent(self, channel: str, decided_at_ms: int) -> None:
        """A message was taken by its receiver."""
        self.statistics.sent += 1
        seconds = max(0, self._clock.now_ms() - decided_at_ms) / 1000
        self._metrics.observe("headrace_notification_delivery_seconds", seconds, channel=channel)

    def shown(self, channel: str, waiting: int, down: Mapping[str, str]) -> None:
        """How a channel stands. Only a channel with one server makes the process unready when that is down."""
        self._metrics.set("headrace_notifications_waiting", waiting, channel=channel)
        self._metrics.set("headrace_notification_servers_down", len(down), channel=channel)
        if self._health is None:
            return
        component = f"channel {channel}"
        if "" in down:
            self._unready.add(channel)
            self._health.not_ready(component, down[""])
        elif channel in self._unready:
            self._unready.discard(channel)
            self._health.ready(component)

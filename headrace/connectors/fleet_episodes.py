"""The truth about what was wrong with simulated devices: what detectors are scored on."""

from collections.abc import Callable
from dataclasses import dataclass

from headrace.connectors.fleet_config import Kind
from headrace.connectors.fleet_script import Disturbance


@dataclass(frozen=True, slots=True)
class Episode:
    """What was wrong with one device for a while.

    Args:
        device: its id.
        metric: of which values were wrong; None if the device was silent, or its clock wrong.
        kind: what.
        first_ms: event time of the first message that it changed, or kept from being sent; ms since 1970 UTC.
        last_ms: of the last one.
        size: how far off values were at most, about, in the unit of the metric, 0 if stuck; how far its clock was off,
            or how long it was to be silent, seconds.
    """

    device: str
    metric: str | None
    kind: Kind
    first_ms: int
    last_ms: int
    size: float


class Episodes:
    """Follows the messages of a fleet, and tells of every episode when it is over.

    Args:
        tell: called with each.
    """

    def __init__(self, tell: Callable[[Episode], None] | None = None) -> None:
        self._tell = tell
        self._open: dict[str, tuple[Disturbance, int, int]] = {}

    def note(self, device: str, time_ms: int, wrong: Disturbance | None, touched: bool) -> None:
        """A message of `device`, each device's in the order sent.

        Args:
            device: its id.
            time_ms: event time of the message.
            wrong: what is wrong with the device.
            touched: whether the message shows it.
        """
        found = self._open.get(device)
        if found is not None and found[0] != wrong:
            self._close(device)
            found = None
        if wrong is not None and touched:
            self._open[device] = wrong, found[1] if found else time_ms, time_ms

    def finish(self) -> None:
        """Tell of those that are still running."""
        for device in list(self._open):
            self._close(device)

    def _close(self, device: str) -> None:
        wrong, first_ms, last_ms = self._open.pop(device)
        if self._tell is not None:
            self._tell(Episode(device, wrong.metric, wrong.kind, first_ms, last_ms, round(wrong.size, 6)))

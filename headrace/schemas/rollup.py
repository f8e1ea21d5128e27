"""What `telemetry.rollups` and `telemetry.late` carry: aggregates per device and window, and what missed them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Aggregate(BaseModel):
    """Aggregates of one measure in one window, in the measure's unit.

    Args:
        count: readings that have the measure; the others of the window do not show here.
        first, last: value of the earliest and latest reading by event time; of equal ones the first and last in the
            log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    sum: float
    avg: float
    min: float
    max: float
    first: float
    last: float


class Rollup(BaseModel):
    """One window of one device, `start` <= event time < `end`; record key: the device id.

    Args:
        device_id, device_type: whose readings.
        window_seconds: length of the window, s.
        start, end: ms since 1970 UTC.
        kind: "closed" once per window, then a "correction" for every late reading that changed it.
        revision: 0 when closed, one more for every correction.
        measures: by name; a measure that no reading of the window had is left out.
        previous: in corrections, what `measures` was before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    device_type: str
    window_seconds: float
    start: int
    end: int
    kind: Literal["closed", "correction"]
    revision: int
    measures: dict[str, Aggregate]
    previous: dict[str, Aggregate] | None = None


class LateReading(BaseModel):
    """A reading that missed a window; it is stored all the same. Record key: the device id.

    Args:
        time: event time, ms since 1970 UTC.
        missed_window_seconds: lengths of the windows that no longer took it, s.
        behind_ms: by how much it missed the shortest of them, ms.
        reason: which limit it missed, for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    message_id: str
    device_id: str
    device_type: str
    time: int
    measures: dict[str, float]
    missed_window_seconds: list[float]
    behind_ms: int
    reason: str

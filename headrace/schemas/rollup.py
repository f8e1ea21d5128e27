"""What `telemetry.rollups` and `telemetry.late` carry: aggregates per device and window, and what missed them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Aggregate(BaseModel):
    """Aggregates of one measure in one window, in the measure's unit.

    Args:
        count: readings that have the measure; the others of the window do not show here.
        sum, avg, min, max: of their values.
        first, last: value of the earliest and latest reading by event time; of equal ones the first and last in the
            log.
        variance, stddev: of the sample (n − 1), where configured; left out for one reading.
        percentiles: where configured, by name as in "p50": of n values in ascending order the one at place
            floor(p ÷ 100 × (n − 1)), give or take `percentile_error`.
        percentile_error: the largest error of a percentile, as a part of its value; see `headrace.tables.sketches`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    sum: float
    avg: float
    min: float
    max: float
    first: float
    last: float
    variance: float | None = None
    stddev: float | None = None
    percentiles: dict[str, float] | None = None
    percentile_error: float | None = None


class Rollup(BaseModel):
    """One window of one device, `start` <= event time < `end`; record key: the device id.

    A count window starts at the event time of the first reading that came; others in it may be earlier.

    Args:
        device_id, device_type: whose readings.
        window: its kind, as settings write it: "1h", "1d Europe/Berlin", "1h every 15m", "sliding 10m", "session 30m",
            "count 100". It names the window, with the device and `start`.
        window_seconds: length of windows that have one, s; of a day 86400, though some have 23 or 25 hours.
        start, end: ms since 1970 UTC.
        kind: "closed" once per window, then a "correction" for every late reading that changed it. "update": the
            window is open, and this is what it holds so far. "retraction": the window is not there any more, as its
            session became part of another one; what was in it is `previous` (a session's end may move). A session that
            was retracted and goes on is "closed" anew.
        revision: 0 when closed, one more for every correction, retraction and closing anew; in updates -1, or the last
            one that was sent. Of two records about a window the greater revision counts, or else the later one.
        measures: by name; a measure that no reading of the window had is left out.
        previous: in corrections and retractions, what `measures` was before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    device_type: str
    window: str
    window_seconds: float | None = None
    start: int
    end: int
    kind: Literal["closed", "correction", "update", "retraction"]
    revision: int
    measures: dict[str, Aggregate]
    previous: dict[str, Aggregate] | None = None


class LateReading(BaseModel):
    """A reading that missed a window; it is stored all the same. Record key: the device id.

    Args:
        message_id, device_id, device_type: of the reading.
        time: event time, ms since 1970 UTC.
        measures: by name, in the units of the device type.
        missed_windows: kinds of the windows that no longer took it.
        behind_ms: by how much it missed the first of them, ms.
        reason: which limit it missed, for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    message_id: str
    device_id: str
    device_type: str
    time: int
    measures: dict[str, float]
    missed_windows: list[str]
    behind_ms: int
    reason: str

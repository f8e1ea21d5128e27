"""What queries answer: frozen, with where it comes from and how complete it is.

Times are ms since 1970 UTC. In arrays of values NaN says that there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.schemas.readings import Floats, Ints

#: Where values come from: a table of the stream, a continuous aggregate of TimescaleDB, or the object store.
Source = Literal[
    "readings", "rollups", "continuous aggregate", "archive",
    "device_state", "conflicts", "ledger", "alerts", "anomalies",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of the range that came from one source, start_ms <= time < end_ms; None: no limit on that side."""

    source: Source
    start_ms: int | None = None
    end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Completeness:
    """What an answer can lack.

    Args:
        as_of_ms: what the answer knows: everything appended until then. Now, or the end of the minute in which the
            newest message that is stored was appended, or what was asked for; None if nothing is stored.
        final_until_ms: bins that end by then change only by readings that come later than the grace allows: the newest
            event time of the device less the grace. For many devices the newest append less the grace, and devices
            that were silent may still fill what they missed. None where nothing is final.
        empty_bins: bins without a value of any metric.
        oldest_ms: the oldest reading of the device that is kept; None if none is, or for many devices.
        reaches_before_kept: the range begins before `oldest_ms`: what was there, if anything, is gone or archived
            elsewhere.
        more: there is more than the limit allowed.
    """

    as_of_ms: int | None
    final_until_ms: int | None = None
    empty_bins: int = 0
    oldest_ms: int | None = None
    reaches_before_kept: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What every answer says of itself: "raw" or the width of its bins, its sources, and what it can lack."""

    resolution: str
    sources: Sequence[Stretch]
    completeness: Completeness


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest value of a metric, with its own time."""

    device_id: str
    metric: str
    time_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest values, by device and metric; a metric without one within the bound is left out."""

    device_type: str
    since_ms: int
    values: Sequence[LatestValue]
    about: About


@dataclass(frozen=True, slots=True)
class RawHistory:
    """Readings of a device by event time.

    Args:
        times: (n,) int64.
        metrics: (n,) float64 each.
        cursor: gives the next page; None at the end.
    """

    device_id: str
    device_type: str
    start_ms: int
    end_ms: int
    times: Ints
    metrics: Mapping[str, Floats]
    cursor: str | None
    about: About


@dataclass(frozen=True, slots=True)
class Bins:
    """Aggregates of one metric per bin: (n,) each; NaN, and count 0, where no reading has it."""

    avg: Floats
    min: Floats
    max: Floats
    count: Ints


@dataclass(frozen=True, slots=True)
class BinnedHistory:
    """Every bin of the range for one device.

    Args:
        start_ms, end_ms: the range, widened to whole bins.
        zone: in which days begin, IANA name.
        times: (n,) int64, where bins start.
    """

    device_id: str
    device_type: str
    start_ms: int
    end_ms: int
    zone: str
    times: Ints
    metrics: Mapping[str, Bins]
    about: About


@dataclass(frozen=True, slots=True)
class FleetBins:
    """Bins of many devices, those with a value only: the newest bins first, within a bin by device.

    Args:
        device_ids, times: (n,) of each row.
    """

    device_type: str
    metric: str
    start_ms: int
    end_ms: int
    device_ids: Sequence[str]
    times: Ints
    bins: Bins
    about: About


@dataclass(frozen=True, slots=True)
class Outlier:
    """A value further from the device's mean than allowed."""

    device_id: str
    time_ms: int
    value: float
    mean: float
    stddev: float

    @property
    def sigmas(self) -> float:
        """How many standard deviations away it is."""
        return abs(self.value - self.mean) / self.stddev if self.stddev else float("inf")


@dataclass(frozen=True, slots=True)
class Outliers:
    """Outliers of one metric, the newest first."""

    device_type: str
    metric: str
    start_ms: int
    end_ms: int
    values: Sequence[Outlier]
    about: About


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The newest reading of a device, by event time, and how its connection is, where that is known.

    Args:
        metrics: measures and everything else that the reading says.
        seen_ms_ago: from the reading to the newest append that is stored; 0 for a clock that is ahead.
        presence: `connected`, `disconnected` or `will`; None if the device does not connect to the listener.
    """

    device_id: str
    device_type: str
    time_ms: int
    appended_ms: int
    message_id: str
    metrics: Mapping[str, Any]
    seen_ms_ago: int
    presence: str | None
    presence_since_ms: int | None


@dataclass(frozen=True, slots=True)
class States:
    """States by device id."""

    devices: Sequence[DeviceState]
    about: About


@dataclass(frozen=True, slots=True)
class Record:
    """A stored document of a stream: conflict, alert or anomaly.

    Args:
        document: as it was sent, see `headrace.schemas`.
    """

    time_ms: int | None
    device_id: str | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """Records, the newest first.

    Args:
        cursor: gives the next page; None at the end.
    """

    records: Sequence[Record]
    cursor: str | None
    about: About


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What the sink decided of messages appended from `start_ms` on for the ledger's resolution. Counts."""

    start_ms: int
    device_type: str
    stored: int
    duplicate: int
    conflict: int


@dataclass(frozen=True, slots=True)
class LedgerAnswer:
    """The sink's ledger: rows by time and device type, and totals over them."""

    rows: Sequence[LedgerRow]
    totals: Mapping[str, int]
    about: About

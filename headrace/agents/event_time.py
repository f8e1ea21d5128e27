"""Third stage of ingest: when the device says it was."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from headrace.agents.decode import Document, Reasons, kind
from headrace.schemas.device_type import TimeSpec
from headrace.schemas.readings import Ints
from headrace.tables.seen_block import TIME_MASK, Bools

#: 2000-01-01T00:00Z: a clock that shows less was never set (DESIGN 5).
EARLIEST_MS = 946_684_800_000
#: May 2109: tables keep event times in 42 bits (see `headrace.tables.seen_block.TIME_BITS`).
LATEST_MS = TIME_MASK
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: In ms, beyond any date that can be written: larger numbers are only compared, never kept.
_FAR = 1 << 62


def event_times(
    documents: Sequence[Document],
    spec: TimeSpec,
    names: Collection[str],
    append_times: Ints,
    max_ahead_ms: int,
    reasons: Reasons,
) -> tuple[Ints, Bools | None]:
    """Event time per document, (n,) int64, ms since 1970 UTC; 0 where refused, with the reason in `reasons`.

    Beside it which documents, (n,) bool, have none and were given the append time; None for "none of them".

    Args:
        documents: the payloads.
        spec: which field it is in, and how it is written.
        names: all names in any of the documents.
        append_times: (n,) int64, when each was appended, ms.
        max_ahead_ms: how far the event time may be later than the append time.
        reasons: gets an entry for each message that is refused.
    """
    present = [name for name in spec.fields if name in names]
    values: list[Any] = [document.get(present[0]) for document in documents] if present else [None] * len(documents)
    for name in present[1:]:
        values = [
            document.get(name) if value is None else value for value, document in zip(values, documents, strict=True)
        ]
    times, untimed = _all_at_once(values, spec), None
    if times is None:
        times = np.array([_one(place, value, spec, reasons) for place, value in enumerate(values)], dtype=np.int64)
        if spec.missing == "append":
            absent = np.array([value is None for value in values], dtype=bool)
            times[absent] = append_times[absent]
            untimed = absent if absent.any() else None
    refused = (times < EARLIEST_MS) | (times > append_times + max_ahead_ms) | (times > LATEST_MS)
    if refused.any():
        for place in refused.nonzero()[0].tolist():
            if times[place] < EARLIEST_MS:
                reasons.setdefault(place, f"event time {_shown(times[place])} is before 2000-01-01")
            elif times[place] > append_times[place] + max_ahead_ms:
                reasons.setdefault(
                    place,
                    f"event time {_shown(times[place])} is more than {max_ahead_ms / 1000:g} s later than "
                    f"the append time {_shown(append_times[place])}",
                )
            else:
                reasons.setdefault(place, f"event time {_shown(times[place])} is after {_shown(LATEST_MS)}")
        times[refused] = 0
    return times, untimed


def _all_at_once(values: list[Any], spec: TimeSpec) -> Ints | None:
    """The times, if all are whole milliseconds, which is what nearly all devices send."""
    if "epoch_ms" in spec.formats and set(map(type, values)) == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            return None
    return None


def _one(place: int, value: Any, spec: TimeSpec, reasons: Reasons) -> int:
    if value is None and spec.missing == "append":
        return 0
    try:
        return milliseconds(value, spec)
    except ValueError as error:
        reasons.setdefault(place, str(error))
        return 0


def milliseconds(value: Any, spec: TimeSpec) -> int:
    """The time that a payload gives, ms since 1970 UTC.

    Raises:
        ValueError: it is no time as `spec` has it; says why.
    """
    field = spec.fields[0]
    if value is None:
        raise ValueError(f"no event time: {' or '.join(spec.fields)} is missing")
    if type(value) in (int, float):
        if "epoch_ms" in spec.formats:
            number: float = value
        elif "epoch_s" in spec.formats:
            number = value * 1000
        else:
            raise ValueError(f"{field} is a number, but this device type writes times as {_formats(spec)}")
        # Bounds first: 1e308 seconds are infinitely many milliseconds.
        return round(max(-_FAR, min(_FAR, number)))
    if type(value) is not str or "iso8601" not in spec.formats:
        raise ValueError(f"{field} is {kind(value)}, but this device type writes times as {_formats(spec)}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{field} {value[:64]!r} is not an ISO 8601 time") from None
    if moment.utcoffset() is None and spec.zone is not None:
        moment = moment.replace(tzinfo=ZoneInfo(spec.zone))
    if moment.utcoffset() is None:
        raise ValueError(f"{field} {value[:64]!r} has no offset from UTC")
    return (moment - _EPOCH) // _MILLISECOND


def _formats(spec: TimeSpec) -> str:
    return " or ".join(spec.formats)


def _shown(milliseconds: int) -> str:
    try:
        return (_EPOCH + timedelta(milliseconds=int(milliseconds))).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{int(milliseconds)} ms"

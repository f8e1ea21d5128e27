"""What is usual for a series: its level and spread, its cadence, and what it is expected to be at this hour.

The expectation is the mean of the hour of the day, corrected by that of the hour of the week once that hour has been
seen in two weeks. What the last residual explains (an autoregression of order 1, learned per series) is taken out of
the innovation. All means are running ones: over all readings at first, then over a horizon.
"""

import numpy as np

from headrace.agents.detector import Moment
from headrace.schemas.readings import Floats, Ints
from headrace.tables.grouping import Flags

HOUR_MS = 3_600_000
HOURS_OF_DAY, HOURS_OF_WEEK = 24, 168

#: Numbers per series.
FIELDS = (
    "time", "raw", "count", "value", "interval", "level", "spread", "known",
    "residual", "product", "square", "innovation", "distance",
)  # fmt: skip
(
    TIME, RAW, COUNT, VALUE, INTERVAL, LEVEL, SPREAD, KNOWN,
    RESIDUAL, PRODUCT, SQUARE, INNOVATION, DISTANCE,
) = range(len(FIELDS))  # fmt: skip
#: Numbers per series and hour of the day, and per series and hour of the week.
DAY_FIELDS = ("count", "mean", "residual", "innovation")
DAY_COUNT, DAY_MEAN, DAY_RESIDUAL, DAY_INNOVATION = range(len(DAY_FIELDS))
WEEK_FIELDS = ("count", "correction")
WEEK_COUNT, CORRECTION = range(len(WEEK_FIELDS))

#: The horizon of level and spread: a week, but at least so many readings and at most so many.
HORIZON_MS, LEAST_HORIZON, MOST_HORIZON = 7 * 24 * HOUR_MS, 1_000.0, 1e6
#: An hour of the day remembers two weeks of its readings, at least so many; an hour of the week eight weeks.
DAYS, LEAST_PER_HOUR, WEEKS = 14, 50.0, 8
#: Readings of an hour of the day before anything is expected at it.
LEARNED = 3
#: So many readings of an hour of the day are believed to be as far off as those of all hours.
BORROWED = 10.0
#: Readings that the cadence and the autoregression are learned over; the most of a residual that is carried on.
CADENCE, AUTOREGRESSION, MOST_CARRIED = 100.0, 500.0, 0.98
#: A gap counts as so many usual intervals at most when the interval is learned.
LONG_GAP = 4.0
#: Shortest interval that horizons are made of, ms.
SHORTEST_MS = 1_000.0
#: Part of the spread that an innovation is measured by, at least: what is far smaller than what the series does in a
#: week is never unusual.
SPREAD_IN_INNOVATION = 0.02
#: Rounding: relative to the value, and absolute.
NOISE_RELATIVE, NOISE_ABSOLUTE = 1e-6, 1e-9


def hours(times: Ints) -> tuple[Ints, Ints]:
    """Hour of the day and of the week (from Thursday, as 1970 began) of event times in ms, UTC."""
    hour = times // HOUR_MS
    return hour % HOURS_OF_DAY, hour % HOURS_OF_WEEK


def expect(state: Floats, day: Floats, week: Floats, times: Ints, raw: Floats, counters: Flags) -> Moment:
    """Put readings beside what is usual for their series, and let the series learn from them.

    Args:
        state: (fields, k, m), `FIELDS`; changed in place.
        day, week: (fields, k, m), `DAY_FIELDS` and `WEEK_FIELDS` of the hours the readings are in; changed in place.
        times: (k,) event time, ms.
        raw: (k, m) values as sent, NaN where a measure is absent.
        counters: (m,) which measures only rise: their rise per second is looked at. A fall is a restart, which says
            nothing about the rate.
    """
    stamps = times.astype(np.float64)[:, np.newaxis]
    elapsed = np.where(state[TIME] > 0, stamps - state[TIME], 0.0)
    sent = ~np.isnan(raw)
    values, present = raw, sent
    if counters.any():
        rate = (raw - state[RAW]) / np.maximum(elapsed, 1.0) * 1000.0
        values = np.where(counters, rate, raw)
        present = sent & ~(counters & ((elapsed <= 0) | (rate < 0)))
    complete = bool(present.all())
    if not complete:
        values = np.where(present, values, state[VALUE])
    kept = () if complete else (state.copy(), day.copy(), week.copy())
    moment = _look(state, day, week, values, elapsed, present, times)
    _learn(state, day, week, moment)
    for changed, before in zip((state, day, week), kept, strict=False):
        np.copyto(changed, before, where=~present)
    np.copyto(state[TIME], np.broadcast_to(stamps, raw.shape), where=sent)
    np.copyto(state[RAW], raw, where=sent)
    return moment


def _look(
    state: Floats, day: Floats, week: Floats, values: Floats, elapsed: Floats, present: Flags, times: Ints
) -> Moment:
    interval = np.maximum(state[INTERVAL], SHORTEST_MS)
    known = day[DAY_COUNT] > LEARNED
    seen_weeks = week[WEEK_COUNT] * interval / HOUR_MS
    expected = day[DAY_MEAN] + np.maximum(seen_weeks - 1, 0) / (seen_weeks + 1e-9) * week[CORRECTION]
    residual = np.where(known, values - expected, 0.0)
    carried = np.clip(state[PRODUCT] / (state[SQUARE] + 1e-300), 0.0, MOST_CARRIED)
    noise = NOISE_RELATIVE * np.abs(values) + NOISE_ABSOLUTE
    spread = state[SPREAD]
    seen = np.maximum(day[DAY_COUNT] - LEARNED, 0.0)

    def borrowed(of_hour: Floats, of_all: Floats) -> Floats:
        """What is usual at an hour that was hardly seen is what is usual at all."""
        size: Floats = (seen * of_hour + BORROWED * of_all) / (seen + BORROWED)
        return size

    return Moment(
        times=times,
        values=values,
        present=present,
        count=state[COUNT].copy(),
        previous=state[VALUE].copy(),
        elapsed=elapsed,
        interval=state[INTERVAL].copy(),
        horizon=np.clip(HORIZON_MS / interval, LEAST_HORIZON, MOST_HORIZON),
        level=state[LEVEL].copy(),
        spread=spread + noise,
        known=known,
        expected=expected,
        usual=borrowed(day[DAY_RESIDUAL], state[DISTANCE]) + noise,
        residual=residual,
        innovation=np.where(known, residual - carried * state[RESIDUAL], 0.0),
        usual_innovation=borrowed(day[DAY_INNOVATION], state[INNOVATION])
        + state[INNOVATION]
        + SPREAD_IN_INNOVATION * spread
        + noise,
    )


def _learn(state: Floats, day: Floats, week: Floats, now: Moment) -> None:
    first = now.count == 0
    counted, values, horizon = now.count + 1, now.values, now.horizon
    state[COUNT], state[VALUE] = counted, values
    gap = np.minimum(now.elapsed, LONG_GAP * np.where(now.count > 1, now.interval, now.elapsed))
    state[INTERVAL] += np.where(first, 0.0, (gap - state[INTERVAL]) / np.clip(now.count, 1.0, CADENCE))
    share = 1 / np.minimum(counted, horizon)
    state[SPREAD] += np.where(first, 0.0, (np.abs(values - state[LEVEL]) - state[SPREAD]) * share)
    state[LEVEL] += (values - state[LEVEL]) * share

    interval = np.maximum(state[INTERVAL], SHORTEST_MS)
    per_hour = HOUR_MS / interval
    learning = np.where(now.known, 1.0, 0.0)
    known = state[KNOWN] = state[KNOWN] + learning
    size = np.abs(now.innovation)
    share = learning / np.clip(known, 1.0, horizon)
    state[INNOVATION] += (size - state[INNOVATION]) * share
    state[DISTANCE] += (np.abs(now.residual) - state[DISTANCE]) * share
    lately = learning / np.clip(known, 1.0, AUTOREGRESSION)
    state[PRODUCT] += lately * (now.residual * state[RESIDUAL] - state[PRODUCT])
    state[SQUARE] += lately * (state[RESIDUAL] * state[RESIDUAL] - state[SQUARE])
    state[RESIDUAL] = now.residual

    of_day = np.maximum(LEAST_PER_HOUR, DAYS * per_hour)
    share = learning / np.clip(day[DAY_COUNT] - LEARNED, 1.0, of_day)
    day[DAY_INNOVATION] += (size - day[DAY_INNOVATION]) * share
    day[DAY_RESIDUAL] += (np.abs(now.residual) - day[DAY_RESIDUAL]) * share
    # The correction is what the hour of the day leaves, whatever the correction was.
    week[WEEK_COUNT] += learning
    left = values - day[DAY_MEAN]
    share = learning / np.clip(week[WEEK_COUNT], 1.0, np.maximum(WEEKS * per_hour, WEEKS))
    week[CORRECTION] += (left - week[CORRECTION]) * share
    day[DAY_COUNT] = np.minimum(day[DAY_COUNT] + 1, of_day)
    day[DAY_MEAN] += (values - day[DAY_MEAN]) / day[DAY_COUNT]

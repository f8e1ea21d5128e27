"""History of a device: that bins are what the readings say, wherever they come from."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.timescale.answers import BinnedHistory
from headrace.connectors.timescale.query_pool import QueryError
from headrace.connectors.timescale.store import Store
from headrace.schemas import topics
from headrace.schemas.readings import Readings, decode_readings
from headrace.schemas.window import parse_window
from tests.connectors.timescale.queries.conftest import T0, Row, World, air

HOUR = 3600
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

#: Steps of the device's clock, s: mostly forward, with silences, backlogs, and readings that are late.
STEPS = [10] * 12 + [1, 7, 60, 61, -30, -200]
RARE = [900, 4000, -301, -400, -4000, -20_000]


def walk(random: Random, device: str) -> tuple[list[Row], int]:
    """What `agents.ingest` lets through: one reading per time, and readings that complete an earlier one.

    Also how many of them the rollup agent has seen: of the newest, none of which is beyond the grace, some not.
    """
    taken: dict[int, dict[str, float]] = {}
    rows: list[Row] = []
    clock, rare = 20_000, random.choice([0.0, 0.02, 0.1])
    length, tail = random.randint(1, 400), random.randint(0, 12)
    for place in range(length + tail):
        step = random.choice(RARE if place < length and random.random() < rare else STEPS)
        time = clock if random.random() < 0.1 else clock + step
        clock = max(clock, time)
        names = random.choice([["co2"], ["temperature"], ["co2", "temperature"]])
        known = taken.get(time, {})
        news = {name: random.uniform(1, 1000) for name in names if name not in known}
        if news:
            taken[time] = {**known, **news}
            rows.append((device, time, taken[time], list(known)))
    return rows, max(0, len(rows) - random.randint(0, tail))


def oracle(rows: Sequence[Row], edges: Sequence[int], metric: str) -> list[tuple[int, float, float, float]]:
    """Count, average, minimum and maximum per bin, from the readings alone."""
    merged: dict[int, float] = {}
    for row in rows:
        if metric in row[2]:
            merged.setdefault(T0 + round(row[1] * 1000), row[2][metric])
    found = []
    for low, high in pairwise(edges):
        inside = [value for time, value in merged.items() if low <= time < high]
        mean = sum(inside) / len(inside) if inside else np.nan
        found.append((len(inside), mean, min(inside, default=np.nan), max(inside, default=np.nan)))
    return found


def check(found: BinnedHistory, rows: Sequence[Row]) -> None:
    """Every bin of the answer is as the readings say."""
    edges = [*found.times.tolist(), found.end_ms]
    for name, bins in found.metrics.items():
        expected = np.array(oracle(rows, edges, name)).T
        np.testing.assert_array_equal(bins.count, expected[0])
        np.testing.assert_allclose(bins.avg, expected[1], rtol=1e-12)
        np.testing.assert_array_equal(bins.min, expected[2])
        np.testing.assert_array_equal(bins.max, expected[3])


def sources(found: BinnedHistory) -> set[str]:
    return {stretch.source for stretch in found.about.sources}


WINDOWS = [("1m", "1h"), ("5m",), ("15m", "1d"), ("2m",), ("1m",)]


async def test_bins_equal_the_readings(world: World, store: Store) -> None:
    """With any late readings, corrections, completions and gaps, and however far behind the rollup agent is."""
    seeds: list[int] = []

    @given(seed=st.integers(0, 1 << 32))
    @settings(max_examples=30, deadline=None, database=None)
    def examples(seed: int) -> None:
        seeds.append(seed)

    examples()
    used = Counter[str]()
    for number, seed in enumerate(seeds):
        random = Random(seed)
        rows, seen = walk(random, f"d{number}")
        await world.fill(rows, random.choice(WINDOWS), seen)
        times = [T0 + round(row[1] * 1000) for row in rows]
        for width in ("1m", "5m", "1h", "1d"):
            found = await store.history(rows[0][0], min(times), max(times) + 1, width)
            check(found, rows)
            used.update(sources(found))
    assert used.keys() == {"rollups", "readings"}


def steady(seconds: int = 6 * HOUR, step: int = 10, start: int = 0, device: str = "a") -> list[Row]:
    """A reading every ten seconds."""
    return [(device, start + at, {"co2": 400.0 + at % 70, "temperature": 20.0}) for at in range(0, seconds, step)]


async def test_closed_windows_come_from_rollups(world: World, store: Store) -> None:
    """Except for the first, which nobody knows to be whole, and the newest, which may still be corrected."""
    await world.fill(steady())

    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h", ["co2"])

    check(found, steady())
    assert [(each.source, (each.start_ms or 0) - T0, (each.end_ms or 0) - T0) for each in found.about.sources] == [
        ("readings", 0, HOUR_MS),
        ("rollups", HOUR_MS, 5 * HOUR_MS),
        ("readings", 5 * HOUR_MS, 6 * HOUR_MS),
    ]
    assert found.about.resolution == "1h"


async def test_finer_windows_are_put_together(world: World, store: Store) -> None:
    """Where the stream does not make the bins themselves; days of a time zone too."""
    await world.fill(steady(), ["1m"])

    five = await store.history("a", T0, T0 + 6 * HOUR_MS, "5m")
    days = await store.history("a", T0, T0 + 6 * HOUR_MS, "1d", zone="Asia/Kathmandu")

    check(five, steady())
    check(days, steady())
    assert "rollups" in sources(five)
    assert days.start_ms == T0 - (5 * 60 + 45) * MINUTE_MS
    assert days.about.resolution == "1d"


async def test_days_of_a_time_zone(world: World, store: Store) -> None:
    """Begin at midnight there, and may have 23 or 25 hours; equal to the stream's own."""
    for number, (day, hours) in enumerate([("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)]):
        begin = round(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
        rows = steady(5 * 86_400, 1800, begin - T0 // 1000 - 86_400, f"d{number}")
        await world.fill(rows, [parse_window("1d", "Europe/Berlin")])

        found = await store.history(f"d{number}", begin * 1000, begin * 1000 + 1, "1d", zone="Europe/Berlin")

        check(found, rows)
        assert (found.start_ms, found.end_ms) == (begin * 1000, (begin + hours * 3600) * 1000)
        assert sources(found) == {"rollups"}


async def test_a_late_reading_is_counted(world: World, store: Store) -> None:
    """Windows closed for good lack it; its bins come from the readings, the others still from rollups."""
    rows = [*steady(), ("a", 2 * HOUR + 5.5, {"co2": 9999.0})]
    await world.fill(rows)

    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h")

    check(found, rows)
    assert found.metrics["co2"].max[2] == 9999.0
    assert [each.source for each in found.about.sources] == ["readings", "rollups", "readings", "rollups", "readings"]


async def test_windows_that_were_configured_later(world: World, store: Store) -> None:
    """Before, and in the one that they began in, there are only readings."""
    rows = steady()
    await world.fill(rows[:700], ["5m"])
    await world.fill(rows[700:], ["15m"])

    for start in (0, 105 * MINUTE_MS, 2 * HOUR_MS):
        check(await store.history("a", T0 + start, T0 + 6 * HOUR_MS, "15m"), rows)


async def test_windows_from_before_late_readings_were_noted(world: World, store: Store) -> None:
    """Are not believed."""
    rows = steady()
    await world.fill(rows)
    await world.execute("INSERT INTO rollups_unmarked SELECT max(start) FROM rollups")

    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h")

    check(found, rows)
    assert sources(found) == {"readings"}


async def test_retracted_and_refused(world: World, store: Store) -> None:
    """A mark of a retracted window counts as no window; a dead letter of the rollup agent makes all doubtful."""
    await world.fill(steady())
    await world.execute("UPDATE rollups SET retracted = true WHERE start = to_timestamp($1)", T0 / 1000 + 2 * HOUR)
    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h")
    check(found, steady())

    await world.execute(
        "INSERT INTO dead_letters (partition, log_offset, appended_at, device_id, agent, headers) "
        "VALUES (0, 0, now(), 'a', 'rollup', '{}')"
    )
    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h")
    check(found, steady())
    assert sources(found) == {"readings"}


async def test_every_bin_is_there(world: World, store: Store) -> None:
    """Gaps are null; the answer says how many, what is final, and that the range reaches before what is kept."""
    await world.fill([("a", 0, {"co2": 1.0}), ("a", 1800, {"temperature": 2.0})])

    found = await store.history("a", T0 - HOUR_MS, T0 + HOUR_MS, "15m")

    assert found.times.tolist() == [T0 - HOUR_MS + 900_000 * bin for bin in range(8)]
    assert found.metrics["co2"].count.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert np.isnan(found.metrics["temperature"].avg).tolist() == [True] * 6 + [False, True]
    about = found.about.completeness
    assert about.empty_bins == 6
    assert about.oldest_ms == T0
    assert about.reaches_before_kept
    assert about.final_until_ms == T0 + 900_000
    assert about.as_of_ms == T0 + 1_860_000


async def test_readings_that_are_gone(world: World, store: Store) -> None:
    """Leave the rollups, which answer alone; a bin with a part of its readings too."""
    rows = steady()
    await world.fill(rows)
    await world.execute("DELETE FROM readings_air WHERE time < to_timestamp($1)", T0 / 1000 + 2.5 * HOUR)

    found = await store.history("a", T0, T0 + 6 * HOUR_MS, "1h")

    check(found, rows)
    assert found.about.completeness.reaches_before_kept


class MemoryArchive:
    """A `HistoryArchive` of some rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.asked: list[tuple[int, int]] = []

    async def read(self, device_type: str, device_id: str, start_ms: int, end_ms: int) -> Readings:
        self.asked.append((start_ms, end_ms))
        chosen = sorted(
            (row for row in self.rows if row[0] == device_id and start_ms <= T0 + round(row[1] * 1000) < end_ms),
            key=lambda row: row[1],
        )
        found = decode_readings(air(chosen).values)
        empty = Readings(device_type, np.zeros(0, dtype=np.int64), [], np.zeros(0, dtype=np.int64), [], {})
        return found[0] if found else empty

    async def device_types(self) -> list[str]:
        return ["air"]


async def test_history_spans_the_archive(world: World) -> None:
    """Merged by time, the database wins; in bins and raw, page by page."""
    rows = steady(30 * 86_400, 3600)
    await world.write(topics.READINGS, air(rows[400:]))
    archive = MemoryArchive([*rows[:500], ("a", 600 * 3600, {"co2": -1.0})])
    archive.rows = [*rows[:500], ("a", 450 * 3600, {"co2": -1.0})]
    start, end = T0, T0 + 30 * DAY_MS

    async with world.store(archive=archive) as store:
        found = await store.history("a", start, end, "1d")
        pages = [page async for page in store.stream("a", start, end, limit=113)]

    check(found, rows)
    assert sources(found) == {"archive", "readings"}
    assert all(high - low <= 7 * DAY_MS for low, high in archive.asked)
    assert np.concatenate([page.times for page in pages]).tolist() == [T0 + row[1] * 1000 for row in rows]
    assert np.concatenate([page.metrics["co2"] for page in pages]).tolist() == [row[2]["co2"] for row in rows]
    assert pages[0].about.sources[0].source == "archive"
    assert [stretch.source for stretch in pages[-1].about.sources] == ["readings"]


async def test_raw_pages(world: World, store: Store) -> None:
    """A cursor goes on where a page ended; together they are all readings with one of the metrics, by time."""
    await world.fill([*steady(100), ("a", 55.5, {"temperature": 1.0}), ("b", 3, {"co2": 1.0})])

    first = await store.raw("a", T0, T0 + 100_000, ["co2"], limit=6)
    second = await store.raw("a", T0, T0 + 100_000, ["co2"], limit=6, cursor=first.cursor)

    assert first.about.completeness.more
    assert not second.about.completeness.more
    assert second.cursor is None
    assert [*first.times.tolist(), *second.times.tolist()] == [T0 + 10_000 * at for at in range(10)]
    both = await store.raw("a", T0, T0 + 100_000)
    assert len(both.times) == 11
    assert np.isnan(both.metrics["co2"]).sum() == 1


async def test_a_stream_is_of_one_moment(world: World, store: Store) -> None:
    """What is stored while it is read does not appear."""
    await world.fill(steady(100))
    seen = []

    async for page in store.stream("a", T0, T0 + HOUR_MS, limit=4):
        seen += page.times.tolist()
        await world.write(topics.READINGS, air([("a", 200 + len(seen), {"co2": 1.0})]))

    assert len(seen) == 10


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"aggregation": "2m"}, "raw, 1m, 5m"),
    ({"aggregation": "1d", "zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
    ({"end_ms": T0}, "before end"),
    ({"end_ms": T0 + 10**12}, "wider bins"),
    ({"metrics": ["temprature"]}, "did you mean 'temperature'"),
    ({"metrics": ['co2"; DROP TABLE ledger; --']}, "has no metric"),
    ({"metrics": ["co2", "co2"]}, "named twice"),
    ({"device_id": "aa"}, "nothing is stored of a device 'aa'"),
    ({"device_id": "a\0"}, "cannot store"),
    ({"device_id": "a\ud800"}, "cannot store"),
    ({"device_type": "aire"}, "did you mean 'air'"),
    ({"start_ms": -(10**17), "end_ms": 5 - 10**17, "aggregation": "1m"}, "outside"),
]


async def test_what_cannot_be_answered(world: World, store: Store) -> None:
    """Is said, with what can."""
    await world.fill(steady(100))

    for change, says in WRONG:
        with pytest.raises(QueryError, match=says):
            await store.history(**{"device_id": "a", "start_ms": T0, "end_ms": T0 + 1, "aggregation": "1m", **change})


async def test_raw_limits(world: World, store: Store) -> None:
    """Ninety days and no more, and only cursors of our own."""
    await world.fill(steady(100))

    await store.raw("a", T0, T0 + 90 * DAY_MS)
    with pytest.raises(QueryError, match="limited to 90 days per request, and this is 91"):
        await store.raw("a", T0, T0 + 90 * DAY_MS + 1)
    with pytest.raises(QueryError, match="cursor"):
        await store.raw("a", T0, T0 + 1000, cursor="x")

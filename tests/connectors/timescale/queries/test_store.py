"""Newest values, bins of fleets, outliers, states, lists and the ledger."""

import statistics
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from headrace.connectors.timescale.query_pool import QueryError, QueryTimeout
from headrace.connectors.timescale.store import Store
from headrace.engine.errors import Disconnected
from headrace.engine.records import Records
from headrace.schemas import topics
from tests.connectors.timescale.queries.conftest import T0, Row, World, air

HOUR_MS = 3_600_000


def documents(*values: dict[str, Any]) -> Records:
    """Records of JSON documents."""
    return Records([b"k"] * len(values), [orjson.dumps(value) for value in values], [T0] * len(values))


# -- newest values


async def test_each_metric_has_its_own_time(world: World, store: Store) -> None:
    """If it is not in the newest message, an older one says; beyond the bound none does."""
    await world.write(
        topics.READINGS,
        air(
            [
                ("a", 0, {"temperature": 20.0}),
                ("a", 3000, {"co2": 400.0, "temperature": 21.0}),
                ("a", 3050, {"co2": 1.0}),
            ]
        ),
    )

    found = await store.latest(["a"])
    assert [(each.metric, each.time_ms - T0, each.value) for each in found.values] == [
        ("co2", 3_050_000, 1.0),
        ("temperature", 3_000_000, 21.0),
    ]
    assert found.about.completeness.as_of_ms == T0 + 3_060_000
    assert found.since_ms == T0 + 3_060_000 - HOUR_MS

    assert [each.metric for each in (await store.latest(["a"], within=30)).values] == ["co2"]
    earlier = await store.latest(["a"], ["temperature"], as_of_ms=T0 + 2_999_999)
    assert [each.value for each in earlier.values] == [20.0]


async def test_latest_of_many(world: World, store: Store) -> None:
    """Chosen devices or all of a type, and only those beyond a limit."""
    await world.write(
        topics.READINGS, air([("a", 1, {"co2": 1.0}), ("b", 2, {"co2": 2.0}), ("c", 3, {"temperature": 3.0})])
    )

    async def devices(*arguments: Any, **more: Any) -> list[str]:
        return [each.device_id for each in (await store.latest(*arguments, **more)).values]

    assert await devices(["b", "a", "nobody"], ["co2"]) == ["b", "a"]
    assert sorted(await devices(device_type="air")) == ["a", "b", "c"]
    assert await devices(device_type="air", below=2.0) == ["a"]
    assert await devices(device_type="air", above=1.0, below=3.0, metrics=["co2"]) == ["b"]
    with pytest.raises(QueryError, match="name devices"):
        await store.latest()


async def test_nothing_is_stored(world: World, store: Store) -> None:
    """Answers are empty, and devices unknown."""
    assert not (await store.latest(["a"], device_type="air")).values
    assert not (await store.state()).devices
    assert not (await store.alerts()).records
    assert (await store.ledger()).totals == {"stored": 0, "duplicate": 0, "conflict": 0}
    assert not len((await store.bins("air", "co2", T0, T0 + HOUR_MS)).times)
    assert not (await store.sigma("air", "co2")).values
    empty = await store.history("a", T0, T0 + HOUR_MS, "15m", device_type="air")
    assert empty.about.completeness.empty_bins == 4
    assert empty.about.completeness.final_until_ms is None
    with pytest.raises(QueryError, match="nothing is stored of a device 'a'"):
        await store.history("a", T0, T0 + HOUR_MS, "15m")


# -- many devices


def fleet(seed: int = 1) -> list[Row]:
    """Six hours of four devices; now and then one is far off."""
    random = Random(seed)
    return [
        (f"d{device}", at, {"co2": 1500.0 if random.random() < 0.01 else random.gauss(400 + device, 10)})
        for at in range(0, 6 * 3600, 60)
        for device in range(4)
    ]


async def test_bins_of_a_fleet(world: World, store: Store) -> None:
    """As the seeds' query says: average, maximum and minimum per device and 15 minutes, the newest first."""
    rows = fleet()
    await world.write(topics.READINGS, air(rows))

    found = await store.bins("air", "co2", T0, T0 + 6 * HOUR_MS)

    assert len(found.times) == 4 * 24
    assert (np.diff(found.times) <= 0).all()
    for at in (0, 50, 95):
        device, start = found.device_ids[at], int(found.times[at])
        inside = [row[2]["co2"] for row in rows if row[0] == device and start <= T0 + row[1] * 1000 < start + 900_000]
        assert found.bins.avg[at] == pytest.approx(statistics.fmean(inside), rel=1e-12)
        assert (found.bins.min[at], found.bins.max[at], found.bins.count[at]) == (min(inside), max(inside), 15)
    few = await store.bins("air", "co2", T0, T0 + HOUR_MS, "1h", device_ids=["d1", "d2"], below=10_000, above=0)
    assert few.device_ids == ("d1", "d2")


async def test_three_sigma(world: World, store: Store) -> None:
    """As the seeds' query says, by the standard deviation of the sample; constant and single values are no trouble."""
    rows = [*fleet(), ("once", 6 * 3600 - 1, {"co2": 1.0}), ("still", 100, {"co2": 1.0}), ("still", 101, {"co2": 1.0})]
    await world.write(topics.READINGS, air(rows))
    end = T0 + 6 * HOUR_MS

    found = await store.sigma("air", "co2", end_ms=end)

    expected = set()
    for device in {row[0] for row in rows}:
        mine = [(T0 + round(row[1] * 1000), row[2]["co2"]) for row in rows if row[0] == device]
        if len(mine) > 1:
            mean, spread = statistics.fmean(v for _, v in mine), statistics.stdev(v for _, v in mine)
            expected |= {
                (device, time, value)
                for time, value in mine
                if end - HOUR_MS < time <= end and abs(value - mean) > 3 * spread
            }
    assert {(each.device_id, each.time_ms, each.value) for each in found.values} == expected
    assert expected
    assert all(each.sigmas > 3 for each in found.values)
    with pytest.raises(QueryError, match="recent <= window"):
        await store.sigma("air", "co2", window=10)


# -- records


async def test_states(world: World, store: Store) -> None:
    """Of one device, of a type, of all; with the connection, and how long ago as of the data."""
    await world.write(topics.READINGS, air([("a", 0, {"co2": 1.0}), ("b", 130, {"co2": 2.0})]))
    await world.execute("INSERT INTO device_presence VALUES ('b', 'connected', to_timestamp(0), 0, '{}')")

    one, every = await store.state(["a"]), await store.state(device_type="air")

    assert one.devices[0].metrics == {"co2": 1.0}
    assert one.devices[0].seen_ms_ago == 180_000
    assert [(each.device_id, each.presence) for each in every.devices] == [("a", None), ("b", "connected")]
    assert (await store.state(limit=1)).about.completeness.more
    assert not (await store.state(device_type="water")).devices


async def test_conflicts(world: World, store: Store) -> None:
    """What the sink decided itself and what ingest did, by device, type and time."""
    await world.write(topics.READINGS, air([("a", 0, {"co2": 1.0}), ("a", 0, {"co2": 2.0}), ("b", 60, {"co2": 1.0})]))

    found = await store.conflicts(device_id="a", device_type="air", start_ms=T0, end_ms=T0 + 1)

    assert [(each.document["measures"], each.document["accepted"]) for each in found.records] == [
        ({"co2": 2.0}, {"co2": 1.0})
    ]
    assert not (await store.conflicts(end_ms=T0)).records


async def test_pages_of_records(world: World, store: Store) -> None:
    """Page by page everything comes once, also of the same time."""
    found = [
        {
            "device_id": f"d{number}",
            "device_type": "air",
            "time": T0 + number // 5,
            "metric": "co2",
            "detector": "sigma",
        }
        for number in range(23)
    ]
    await world.write(topics.ANOMALIES, documents(*found))

    seen, cursor = [], None
    while True:
        page = await store.anomalies(limit=4, cursor=cursor, metric="co2", detector="sigma")
        seen += [(each.time_ms, each.device_id) for each in page.records]
        if (cursor := page.cursor) is None:
            break

    assert sorted(seen) == sorted((each["time"], each["device_id"]) for each in found)
    assert [time for time, _ in seen] == sorted((time or 0 for time, _ in seen), reverse=True)
    for wrong in ("x", "[1]", '["a", 1]', '[1, "\\u0000"]'):
        with pytest.raises(QueryError):
            await store.anomalies(cursor=wrong)


async def test_alerts(world: World, store: Store) -> None:
    """By status, severity, rule and device."""
    data = {"deviceId": "a", "ruleId": "hot", "severity": "critical", "triggeredAt": T0}
    alerts = [{"data": {**data, "alertId": f"x{number}", "status": status}} for number, status in enumerate("ab")]
    await world.write(topics.ALERTS, documents(*alerts))

    found = await store.alerts(status="b", severity="critical", rule_id="hot", device_id="a")

    assert [each.document["data"]["alertId"] for each in found.records] == ["x1"]
    assert found.records[0].time_ms == T0


async def test_ledger(world: World, store: Store) -> None:
    """Per minute, hour or in all, by device type."""
    same = {"co2": 1.0}
    await world.write(topics.READINGS, air([("a", 0, same), ("a", 0, same), ("a", 0, {"co2": 2.0}), ("b", 61, same)]))

    minutes, whole = await store.ledger("1m"), await store.ledger(None, device_type="air")

    assert [(row.start_ms - T0, row.stored, row.duplicate, row.conflict) for row in minutes.rows] == [
        (0, 1, 1, 1),
        (60_000, 1, 0, 0),
    ]
    assert whole.totals == {"stored": 2, "duplicate": 1, "conflict": 1}
    assert (await store.ledger("1d", device_type="water")).rows == []
    with pytest.raises(QueryError, match="per 1m, 1h, 1d"):
        await store.ledger("1s")


# -- the database


async def test_a_store_cannot_write(world: World, store: Store) -> None:
    """Whatever is executed on its connections."""
    async with store._pool.snapshot() as connection:
        assert await connection.fetchval("SHOW transaction_read_only") == "on"
        assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"


async def test_a_query_that_takes_too_long(world: World) -> None:
    """Is ended by the database, says what to do, and leaves the store usable."""
    async with world.store(timeout=0.5) as store:
        with pytest.raises(QueryTimeout, match=r"0\.5 s"):
            await store._pool.fetch("SELECT pg_sleep(10)")

        assert await store.device_types() == []


async def test_a_connection_that_is_gone(world: World, store: Store) -> None:
    """Is an error of its own; the next query has a new one."""
    await store.device_types()
    await world.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace query'"
    )

    for _ in range(3):
        try:
            assert await store.device_types() == []
            break
        except Disconnected:
            continue
    else:
        pytest.fail("no new connection")


async def test_late_readings_are_noted(world: World) -> None:
    """Once per device and time, with all windows that they missed; again changes nothing."""
    late = {"device_id": "a", "device_type": "air", "time": T0, "missed_windows": ["1m"]}
    await world.write(topics.LATE, documents(late, {**late, "missed_windows": ["1h", "1m"]}))
    await world.write(topics.LATE, documents(late))

    rows = await world.execute("SELECT device_id, windows FROM late_readings")

    assert [tuple(row) for row in rows] == [("a", ["1h", "1m"])]

"""The archive job on a real PostgreSQL and a real disk."""

from datetime import date
from typing import Any

import asyncpg
import duckdb
import pytest

from headrace.connectors.archive.job import LOCK
from headrace.connectors.archive.restore import restore
from headrace.connectors.archive.run_report import ArchiveBusy, NeedsConfirmation
from headrace.connectors.archive.settings import RetentionSettings
from tests.connectors.archive.world import DAY, HOUR, NOW, T0, Row, World, air, at, message_id


async def test_old_rows_move(world: World) -> None:
    """What is older than its retention is in the archive and no more in the database; the rest stays."""
    old: list[Row] = air(days=2)
    young: list[Row] = [("d0", NOW - 3 * HOUR, 1.0, None, None)]
    await world.insert(old + young)

    report = await world.job().run()

    assert (report.rows, report.parts, report.failures) == (len(old), 2, [])
    assert await world.stored() == young
    assert await world.archived() == old
    assert await world.parts() == [(None, 1, 1, 12, "deleted"), (None, 2, 1, 12, "deleted")]


async def test_nothing_is_due(world: World) -> None:
    """A run over an empty database, and over young rows alone, does nothing."""
    young = [("d0", NOW - 3 * HOUR, 1.0, None, None)]

    assert (await world.job().run()).rows == 0
    await world.insert(young)
    assert (await world.job().run()).rows == 0

    assert await world.stored() == young
    assert await world.objects() == []


async def test_whole_days_only(world: World) -> None:
    """A day leaves when it has been over for the days of its policy, not hour by hour."""
    edge = NOW // DAY * DAY - 90 * DAY
    rows = [("d0", edge - 1, 1.0, None, None), ("d0", edge, 2.0, None, None)]
    await world.insert(rows)

    await world.job().run()

    assert await world.stored() == rows[1:]
    assert await world.archived() == rows[:1]


async def test_several_parts(world: World) -> None:
    """A day with more rows than a part takes becomes several parts, each deleted by itself."""
    rows = air(devices=5, days=1, per_day=3)
    await world.insert(rows)

    report = await world.job(part_rows=4).run()

    assert report.parts == 4
    assert await world.archived() == rows
    assert [part[2:4] for part in await world.parts()] == [(1, 4), (2, 4), (3, 4), (4, 3)]


async def test_organisations_have_files_of_their_own(world: World) -> None:
    """Rows of different organisations, one with letters no path can have, go to folders of their own."""
    names = ["Acme & Söhne", "a/../b=%41", None, ".."]
    rows = sorted(row for name in names for row in air(1, 1, 2, name))
    await world.insert(rows)

    await world.job().run()

    assert sorted(await world.archived(), key=lambda row: row[:2]) == rows
    folders = [name.split("/")[2] for name in await world.objects()]
    assert sorted(folders) == [
        "organisation=%2E%2E",
        "organisation=Acme%20%26%20S%C3%B6hne",
        "organisation=__HIVE_DEFAULT_PARTITION__",
        "organisation=a%2F..%2Fb%3D%2541",
    ]


async def test_duckdb_reads_it(world: World) -> None:
    """DuckDB reads the tree with its partitions, and finds the same values."""
    rows = air(2, 2, 3, "Acme & Söhne") + air(1, 1, 2)
    await world.insert(rows)
    await world.job().run()

    found = duckdb.execute(
        """
        SELECT device_id, epoch_ms(time), co2, temperature, json_extract_string(extra, '$.organisation'), organisation,
            device_type, day
        FROM read_parquet(?, hive_partitioning = true) ORDER BY device_id COLLATE "C", time
        """.replace('COLLATE "C"', ""),
        [str(world.folder / "archive/readings/**/*.parquet")],
    ).fetchall()

    assert [row[:4] for row in found] == [row[:4] for row in sorted(rows, key=lambda row: row[:2])]
    assert {row[4:6] for row in found} == {("Acme & Söhne", "Acme & Söhne"), (None, None)}
    assert {row[6:] for row in found} == {("air", date(2024, 3, 1)), ("air", date(2024, 3, 2))}


async def test_policies(world: World) -> None:
    """An organisation that keeps for ever keeps, one that keeps a week loses more than the rest."""
    policies = [{"organisation": "acme", "days": "never"}, {"organisation": "lab", "days": 7}]
    retention = RetentionSettings.model_validate({"policies": policies})
    recent: list[Row] = [
        (f"{name}-x", NOW - 30 * DAY, 1.0, 2.0, {"organisation": name} if name != "other" else None)
        for name in ("acme", "lab", "other")
    ]
    await world.insert(air(1, 1, 1, "acme") + recent)

    await world.job(retention=retention).run()

    assert [row[0] for row in await world.stored()] == ["acme-x", "acme0", "other-x"]
    assert [row[0] for row in await world.archived()] == ["lab-x"]


async def test_policies_by_what_the_registry_said(world: World) -> None:
    """The organisation that a reading was stored with decides, and comes back with it."""
    retention = RetentionSettings.model_validate({"policies": [{"organisation": "lab", "days": 7}]})
    await world.insert([("a", NOW - 30 * DAY, 1.0, 2.0, None), ("b", NOW - 30 * DAY, 1.0, 2.0, None)])
    await world.connection.execute("UPDATE readings_air SET organisation = 'lab' WHERE device_id = 'b'")

    await world.job(retention=retention).run()

    assert [row[0] for row in await world.stored()] == ["a"]
    assert [row[0] for row in await world.archived()] == ["b"]
    day = at(NOW - 30 * DAY).date()
    assert await restore(world.connect, world.store, day) == {"air": 1}
    rows = await world.connection.fetch("SELECT device_id, organisation FROM readings_air ORDER BY device_id")
    assert [tuple(row) for row in rows] == [("a", None), ("b", "lab")]


async def test_before(world: World) -> None:
    """`before` holds days back, and never lets younger ones go."""
    rows = air(1, 3, 1)
    await world.insert([*rows, ("d0", NOW - HOUR, 1.0, None, None)])

    await world.job().run(before=date(2024, 3, 3))
    assert await world.archived() == rows[:2]
    await world.job().run(before=date(2025, 1, 1))

    assert await world.archived() == rows
    assert len(await world.stored()) == 1


async def test_late_rows(world: World) -> None:
    """Of rows that come after their day was archived repeats go, news are one more part, contradictions conflicts."""
    first = [("a", T0, 1.0, 2.0, None), ("b", T0, 1.5, None, {"door": "open"}), ("c", T0, 3.0, None, None)]
    late = [
        ("a", T0, 1.0, 2.0, None),
        ("b", T0, None, 4.0, {"door": "open"}),
        ("c", T0, 3.5, 1.0, None),
        ("d", T0, 5.0, None, None),
    ]
    await world.insert(first)
    await world.job().run()
    await world.insert(late, salt="late")

    report = await world.job().run()

    assert (report.rows, report.duplicates, report.conflicts) == (2, 1, 1)
    assert await world.stored() == []
    assert await world.archived() == [
        ("a", T0, 1.0, 2.0, None),
        ("b", T0, 1.5, 4.0, {"door": "open"}),
        ("c", T0, 3.0, None, None),
        ("d", T0, 5.0, None, None),
    ]
    conflicts = await world.connection.fetch("SELECT message_id, device_id, document FROM conflicts")
    assert [(row["message_id"], row["device_id"]) for row in conflicts] == [(message_id("c", T0, "late"), "c")]
    assert '"accepted": {"co2": 3.0}' in conflicts[0]["document"]


async def test_late_rows_that_are_all_there(world: World) -> None:
    """Where every late row is archived already no object is made, whatever organisation the device has by now."""
    rows = air(2, 1, 2)
    await world.insert(rows)
    await world.job().run()
    objects = await world.objects()
    await world.insert(rows, salt="late")

    report = await world.job().run()

    assert (report.rows, report.parts, report.duplicates) == (0, 0, 4)
    assert await world.objects() == objects
    assert await world.stored() == []
    assert await world.archived() == rows


async def test_two_runs_at_once(world: World) -> None:
    """A run that finds another at work declines."""
    await world.insert(air())
    other = await asyncpg.connect(**world.connect)
    await other.execute("SELECT pg_advisory_lock($1)", LOCK)

    with pytest.raises(ArchiveBusy):
        await world.job().run()

    await other.close()
    assert len(await world.stored()) == len(air())
    assert (await world.job().run()).rows == len(air())


async def test_far_more_than_usual(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that would delete far more than the last ones wants to be told that this is meant."""
    monkeypatch.setattr("headrace.connectors.archive.run_report.FEW_ROWS", 10)
    await world.insert(air(1, 1, 1))
    await world.job().run()
    await world.insert(air(3, 2, 4), salt="more")

    with pytest.raises(NeedsConfirmation, match="24 rows"):
        await world.job().run()
    assert len(await world.stored()) == 24
    report = await world.job().run(confirmed=True)

    assert report.rows + report.duplicates + report.conflicts == 24


async def test_hostile_values(world: World) -> None:
    """Ids, texts and numbers at the edges of what can be stored come back bit for bit."""
    odd = ["", "ü\u2028\ud7ff😀", "x" * 2000, "a'b\"c\\", "-- ;", "\x01\x7f"]
    numbers = [0.0, -0.0, 5e-324, 1.7976931348623157e308, -1e308, 0.1 + 0.2]
    rows: list[Any] = [
        (name, T0 + place, numbers[place], -numbers[place], {name: [name, None, {"a": 1e100}]})
        for place, name in enumerate(odd)
    ]
    await world.insert(rows)

    report = await world.job().run()

    assert report.failures == []
    found = await world.archived(*odd)
    assert repr(found) == repr(rows)


async def test_documents(world: World) -> None:
    """Resolved alerts leave after their retention as JSON, open ones and young ones stay."""
    await world.connection.execute(
        """
        INSERT INTO alerts (alert_id, status, triggered_at, resolved_at, document) VALUES
            ('old', 'resolved', '2024-01-01', '2024-01-02', '{"a": 1}'),
            ('open', 'triggered', '2024-01-01', NULL, '{}'),
            ('young', 'resolved', '2024-01-01', '2024-06-01', '{}')
        """
    )
    await world.connection.execute(
        "INSERT INTO dead_letters (partition, log_offset, appended_at, headers, value) "
        "VALUES (0, 1, '2024-01-01', '{}', '\\x00ff')"
    )

    report = await world.job().run()

    assert (report.rows, report.failures) == (2, [])
    left = await world.connection.fetch("SELECT alert_id FROM alerts ORDER BY 1")
    assert [row["alert_id"] for row in left] == ["open", "young"]
    path = str(world.folder / "archive/alerts/*/*.parquet")
    found = duckdb.execute("SELECT row->>'$.alert_id', row->'$.document'->>'a' FROM read_parquet(?)", [path]).fetchall()
    assert found == [("old", "1")]
    path = str(world.folder / "archive/dead_letters/*/*.parquet")
    assert duckdb.execute("SELECT row->>'$.value' FROM read_parquet(?)", [path]).fetchall() == [("\\x00ff",)]

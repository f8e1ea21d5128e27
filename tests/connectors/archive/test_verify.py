"""Looking after an archive: verify, restore, and what the settings refuse."""

from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from headrace.connectors.archive.restore import restore
from headrace.connectors.archive.settings import ArchiveSettings, RetentionSettings
from headrace.connectors.archive.verify import Looked, verify
from headrace.engine.errors import RetryLater
from tests.connectors.archive.world import DAY, T0, World, air


async def looked(world: World, day: date | None = None) -> list[Looked]:
    return [each async for each in verify(world.connect, world.store, day)]


async def test_verify(world: World) -> None:
    """Good files are good; one with a flipped bit, one that is missing and one that is a stranger are named."""
    await world.insert(air(1, 3, 2))
    await world.job().run()
    first, second, third = await world.objects()
    assert [each.finding for each in await looked(world)] == ["good"] * 3
    data = await world.store.get(first)
    await world.store.put(first, data[:50] + bytes([data[50] ^ 8]) + data[51:])
    await world.store.delete(second)
    await world.store.put("readings/other.parquet", b"x")

    found = {each.object: each.finding for each in await looked(world)}

    assert found == {first: "damaged", second: "damaged", third: "good", "readings/other.parquet": "unknown"}
    assert [each.object for each in await looked(world, date(2024, 3, 3))] == [third]


async def test_a_file_in_the_place_of_another_is_not_read(world: World) -> None:
    """A history does not take the rows of another day for those of the day asked for, nor their absence for a gap."""
    await world.insert(air(1, 2, 2))
    await world.job().run()
    first, second = await world.objects()
    await world.store.put(first, await world.store.get(second))
    reader = world.reader()

    with pytest.raises(RetryLater, match="another file is in its place"):
        await reader.read("air", "d0", 0, T0 + 2 * DAY)
    await reader.close()


async def test_unfinished_parts_are_not_archived(world: World) -> None:
    """A part whose rows are still in the database is neither read nor counted as archived."""
    rows = air(1, 1, 2)
    await world.insert(rows)
    await world.job().run()
    await world.connection.execute("UPDATE archive_parts SET state = 'verified'")

    assert await world.archived("d0") == []
    assert [each.finding for each in await looked(world)] == ["unfinished"]


async def test_restore(world: World) -> None:
    """A day comes back into the database, completed rows as one, and rows that are there stay as they are."""
    first = [("a", T0, 1.0, None, {"x": 1}), ("b", T0, 2.0, None, None), ("c", T0 + DAY, 3.0, None, None)]
    await world.insert(first)
    await world.job().run()
    await world.insert([("a", T0, None, 4.0, {"y": 2})], salt="late")
    await world.job().run()
    await world.insert([("b", T0, 9.0, None, None)], salt="newer")

    restored = await restore(world.connect, world.store, date(2024, 3, 1))

    assert restored == {"air": 1}
    assert await world.stored() == [("a", T0, 1.0, 4.0, {"x": 1, "y": 2}), ("b", T0, 9.0, None, None)]
    assert await world.archived("a") == [("a", T0, 1.0, 4.0, {"x": 1, "y": 2})]


async def test_restored_rows_leave_again(world: World) -> None:
    """What was restored is found to be archived already, and is in the archive once."""
    rows = air(2, 1, 3)
    await world.insert(rows)
    await world.job().run()
    await restore(world.connect, world.store, date(2024, 3, 1))
    assert await world.stored() == rows

    report = await world.job().run()

    assert (report.rows, report.duplicates) == (0, len(rows))
    assert await world.archived() == rows


async def test_restore_into_a_table_without_the_column(world: World) -> None:
    """A measure that the table has no column for comes back in extra."""
    await world.insert([("a", T0, 1.0, 2.0, None)])
    await world.job().run()
    await world.connection.execute("ALTER TABLE readings_air DROP COLUMN temperature")

    await restore(world.connect, world.store, date(2024, 3, 1))

    rows = await world.connection.fetch("SELECT device_id, co2, extra FROM readings_air")
    assert [tuple(row) for row in rows] == [("a", 1.0, '{"temperature": 2.0}')]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"url": "ftp://x"}, "file:///path or s3://"),
        ({"url": "file://relative"}, "file:///path"),
        ({"at": "24:00"}, "02:00"),
        ({"access_key_id": "a"}, "come together"),
        ({"endpoint_url": "http://user@x"}, "without user"),
    ],
)
def test_wrong_archive_settings(section: dict[str, str], message: str) -> None:
    """What cannot work is refused with a reason."""
    with pytest.raises(ValidationError, match=message):
        ArchiveSettings.model_validate(section)


@pytest.mark.parametrize(
    "section",
    [
        {"days": 1},
        {"days": 0},
        {"days": "forever"},
        {"policies": [{"days": 5}]},
        {"policies": [{"device_type": "a", "days": 5}, {"device_type": "a", "days": 6}]},
    ],
)
def test_wrong_retention_settings(section: dict[str, object]) -> None:
    """Days that would cut live data, policies about nothing and policies that contradict each other are refused."""
    with pytest.raises(ValidationError):
        RetentionSettings.model_validate(section)


async def test_local_files_are_whole(world: World, tmp_path: Path) -> None:
    """A put leaves one file with its bytes, and nothing beside it."""
    await world.store.put("x/y/z", b"abc")

    assert files(tmp_path) == ["archive/x/y/z"]


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]

"""`headrace archive` and `headrace retention`, on a database and a folder named by a configuration."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from headrace.connectors.postgres_server import PostgresAddress, PostgresServer
from tests.cli.conftest import Headrace
from tests.connectors.archive.world import Row, World, air


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server, as arguments for `asyncpg.connect`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    address = asyncio.run(server.start())
    yield address.connect_arguments()
    asyncio.run(server.stop())


class Place:
    """A database of its own, and a configuration that names it and an archive beside it."""

    def __init__(self, connect: dict[str, Any], folder: Path) -> None:
        self._connect = {**connect, "database": f"test_{uuid4().hex}"}
        asyncio.run(self._make(connect))
        self.folder = folder
        self.config = folder / "headrace.toml"
        where = PostgresAddress(**self._connect)
        self.config.write_text(
            f'[database]\ndsn = "{where.dsn}"\n[archive]\nurl = "file://{folder}/cold"\n'
            '[[retention.policies]]\norganisation = "acme"\ndays = "never"\n'
        )

    async def _make(self, connect: dict[str, Any]) -> None:
        admin = await asyncpg.connect(**connect)
        await admin.execute(f"CREATE DATABASE {self._connect['database']}")
        await admin.close()

    def insert(self, rows: Sequence[Row]) -> None:
        async def work(world: World) -> None:
            await world.insert(rows)

        self._in_world(work)

    def analyze(self) -> None:
        """Let the planner know how many rows there are."""

        async def work(world: World) -> None:
            await world.connection.execute("ANALYZE readings_air")

        self._in_world(work)

    def stored(self) -> list[Row]:
        async def work(world: World) -> list[Row]:
            return await world.stored()

        found: list[Row] = self._in_world(work)
        return found

    def _in_world(self, work: Any) -> Any:
        async def run() -> Any:
            world = World(self._connect, self.folder)
            await world.open()
            try:
                return await work(world)
            finally:
                await world.close()

        return asyncio.run(run())


@pytest.fixture
def place(connect: dict[str, Any], tmp_path: Path) -> Place:
    return Place(connect, tmp_path)


def test_retention_says_what_would_go(place: Place, headrace: Headrace) -> None:
    """Rows by policy, organisation and day; what a policy keeps is not there; nothing changes."""
    rows = air(2, 2, 3) + air(1, 1, 2, "acme")
    place.insert(rows)

    found = orjson.loads(headrace("retention", "--config", place.config, "--json").stdout)

    assert [(each["day"], each["rows"], each["policy"]) for each in found["due"]] == [
        ("2024-03-01", 6, "default"),
        ("2024-03-02", 6, "default"),
    ]
    assert found["total"]["rows"] == 12
    assert not found["total"]["estimated"]
    assert len(place.stored()) == len(rows)
    early = headrace("retention", "--config", place.config, "--at", "2024-03-05").stdout.decode()
    assert early == "nothing would be deleted\n"


def test_retention_of_many_rows_is_estimated(place: Place, headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large table a sample is read, and the numbers say so; --exact counts."""
    monkeypatch.setattr("headrace.connectors.archive.due.EXACT_ROWS", 1000)
    monkeypatch.setattr("headrace.connectors.archive.due.SAMPLED_ROWS", 2000)
    place.insert(air(10, 1, 1000))
    place.analyze()

    about = orjson.loads(headrace("retention", "--config", place.config, "--json").stdout)["total"]
    exact = orjson.loads(headrace("retention", "--config", place.config, "--json", "--exact").stdout)["total"]

    assert about["estimated"]
    assert 2_000 < about["rows"] < 50_000
    assert (exact["rows"], exact["estimated"]) == (10_000, False)


def test_run_list_verify_restore(place: Place, headrace: Headrace) -> None:
    """A day goes to the archive, is listed and found good, and comes back."""
    rows = air(2, 2, 3)
    place.insert(rows)
    options = ("--config", place.config)

    dry = headrace("archive", "run", "--dry-run", *options).stdout.decode()
    assert "12 rows" in dry
    assert place.stored() == rows
    report = orjson.loads(headrace("archive", "run", "--before", "2024-03-02", "--json", *options).stdout)
    assert (report["rows"], report["parts"], report["failures"]) == (6, 1, [])
    (part,) = [orjson.loads(line) for line in headrace("archive", "list", "--json", *options).stdout.splitlines()]
    assert (part["rows"], part["state"], part["day"]) == (6, "archived", "2024-03-01")
    assert "readings air" in headrace("archive", "list", *options).stdout.decode()
    assert orjson.loads(headrace("archive", "verify", "--json", *options).stdout)["good"] == 1
    headrace("archive", "restore", "--day", "2024-03-01", *options)

    assert place.stored() == rows


def test_damaged_archive(place: Place, headrace: Headrace) -> None:
    """A file that is not what was written is exit code 1, and named."""
    place.insert(air(1, 1, 2))
    headrace("archive", "run", "--config", place.config)
    (file,) = (place.folder / "cold").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])

    done = headrace("archive", "verify", "--config", place.config, code=1)

    assert file.name in done.stdout.decode()


def test_store_that_cannot_be_written(place: Place, headrace: Headrace) -> None:
    """What could not be archived is exit code 1 with the reason, and is still stored."""
    place.insert(air(1, 1, 2))
    (place.folder / "cold").mkdir()
    (place.folder / "cold" / "readings").touch()

    done = headrace("archive", "run", "--config", place.config, code=1)

    assert "not archived, and not deleted" in done.stderr
    assert len(place.stored()) == 2


def test_mistakes(place: Place, headrace: Headrace, tmp_path: Path) -> None:
    """Wrong dates, no database and wrong sections are exit code 2, each with a reason."""
    options = ("--config", place.config)
    assert "--before" in headrace("archive", "run", "--before", "yesterday", *options, code=2).stderr
    assert "--day" in headrace("archive", "restore", "--day", "2024-02-30", *options, code=2).stderr
    assert "--at" in headrace("retention", "--at", "soon", *options, code=2).stderr
    assert "--data" in headrace("archive", "list", code=2).stderr
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[retention]\ndays = 1\n[archive]\nurl = "ftp://x"\n')
    said = headrace("retention", "--config", wrong, code=2).stderr
    assert "retention.days" in said
    assert "archive.url" in said


def test_empty_database(place: Place, headrace: Headrace) -> None:
    """On a database that nothing has stored in yet every command has a plain answer."""
    options = ("--config", place.config)

    assert headrace("retention", *options).stdout.decode() == "nothing would be deleted\n"
    assert b"archived 0 rows" in headrace("archive", "run", *options).stdout
    assert headrace("archive", "verify", *options).stdout.startswith(b"0 files")
    assert b"no readings of 2024-03-01" in headrace("archive", "restore", "--day", "2024-03-01", *options).stdout

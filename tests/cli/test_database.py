"""`headrace database` as a user meets it, on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from headrace.connectors.postgres_server import PostgresAddress, PostgresServer
from headrace.connectors.timescale.migrations import MIGRATIONS, packaged
from tests.cli.conftest import Headrace

#: Steps without an extension: those that every server gets.
PLAIN = [step.version for step in packaged(MIGRATIONS) if not step.extension]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresAddress]:
    """A server for all tests."""
    server = PostgresServer(tmp_path_factory.mktemp("database"))
    yield asyncio.run(server.start())
    asyncio.run(server.stop())


class Database:
    """A database of its own, with an owner and a role that may nothing."""

    def __init__(self, server: PostgresAddress, folder: Path) -> None:
        self.name, self.owner, self.data = (f"{kind}_{uuid4().hex[:8]}" for kind in ("db", "owner", "data"))
        self._server = server
        self.config = folder / "headrace.toml"
        self.run(f"CREATE ROLE {self.owner} LOGIN", database="headrace")
        self.run(f"CREATE ROLE {self.data} LOGIN", database="headrace")
        self.run(f"CREATE DATABASE {self.name} OWNER {self.owner}", database="headrace")
        self.configure(self.data, self.owner)

    def configure(self, data: str, owner: str | None, more: str = "") -> None:
        """Write the settings: who fills tables, and who makes them."""
        text = f'[database]\ndsn = "{self._dsn(data)}"\n'
        text += f'migration_dsn = "{self._dsn(owner)}"\n' if owner else ""
        self.config.write_text(text + more)

    def run(self, sql: str, database: str = "") -> list[Any]:
        """Run a statement as a superuser."""

        async def once() -> list[Any]:
            connect = {**self._server.connect_arguments(), "database": database or self.name}
            connection = await asyncpg.connect(**connect)
            rows = [tuple(row) for row in await connection.fetch(sql)]
            await connection.close()
            return rows

        return asyncio.run(once())

    def _dsn(self, role: str) -> str:
        address = self._server._replace(user=role, database=self.name)
        return address.dsn


@pytest.fixture
def database(server: PostgresAddress, tmp_path: Path) -> Database:
    """Empty, with settings that name both roles."""
    return Database(server, tmp_path)


def test_up_then_status(headrace: Headrace, database: Database) -> None:
    """A dry run changes nothing; up applies, grants and is done; status says so."""
    planned = json.loads(headrace("database", "up", "--dry-run", "--config", database.config, "--json").stdout)
    assert planned["migrations"][: len(PLAIN)] == PLAIN
    before = json.loads(headrace("database", "--config", database.config, "--json").stdout)
    assert (before["applied"], before["missing"]) == ([], planned["migrations"])

    done = headrace("database", "up", "--device-type", "mine", "--config", database.config).stdout.decode()
    assert "applied 0001_sink" in done
    assert "applied readings_mine." in done
    assert "SELECT on table headrace_migrations" in done

    after = json.loads(headrace("database", "status", "--config", database.config, "--json").stdout)
    assert (after["missing"], after["problems"], after["timescaledb"]) == ([], [], None)
    assert {"readings_mine", "ledger", "device_state"} <= {table["table"] for table in after["tables"]}
    assert "no TimescaleDB" in after["notes"][0]
    assert b"nothing to do" in headrace("database", "up", "--config", database.config).stdout


def test_status_for_a_person(headrace: Headrace, database: Database) -> None:
    """Versions, what is missing, and a line per table with its rows."""
    headrace("database", "up", "--config", database.config)
    database.run("INSERT INTO sink_positions SELECT 'x', 'y', n, 0 FROM generate_series(1, 1234) AS n")
    database.run("ANALYZE sink_positions")

    shown = headrace("database", "--config", database.config).stdout.decode()

    assert "PostgreSQL 18" in shown.splitlines()[0]
    assert any(line.split()[:2] == ["sink_positions", "1,234"] for line in shown.splitlines())


def test_down_names_what_is_lost(headrace: Headrace, database: Database) -> None:
    """Without --yes it refuses and changes nothing; with it the tables are gone, and up makes them again."""
    headrace("database", "up", "--config", database.config)
    database.run("INSERT INTO alerts (alert_id, document) VALUES ('x', '{}')")

    refused = headrace("database", "down", "--to", "0", "--config", database.config, code=2)
    assert "would be lost: table alerts: 1 rows" in refused.stderr
    assert database.run("SELECT count(*) FROM alerts") == [(1,)]
    tried = headrace("database", "down", "--to", "0", "--dry-run", "--config", database.config, "--json")
    assert json.loads(tried.stdout)["lost"] == [{"table": "alerts", "column": None, "rows": 1}]

    done = headrace("database", "down", "--to", "0", "--yes", "--config", database.config)
    assert b"undone 0001_sink" in done.stdout
    assert database.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert b"applied 0001_sink" in headrace("database", "up", "--config", database.config).stdout


def test_role_that_may_not(headrace: Headrace, database: Database) -> None:
    """A role without rights is told so in one line."""
    database.configure(database.data, None)

    done = headrace("database", "up", "--config", database.config, code=2)

    assert f"role {database.data} may not: permission denied for schema public" in done.stderr


def test_newer_database_is_a_problem(headrace: Headrace, database: Database) -> None:
    """Status names it and still shows the rest; up refuses."""
    headrace("database", "up", "--config", database.config)
    database.run("INSERT INTO headrace_migrations VALUES ('9999_later', '')")

    found = json.loads(headrace("database", "--config", database.config, "--json").stdout)
    assert "9999_later" in found["problems"][0]
    assert found["tables"]
    assert "9999_later" in headrace("database", "up", "--config", database.config, code=2).stderr


def test_grant_for_looking(headrace: Headrace, database: Database) -> None:
    """A role for queries sees the tables; one that is not there is a mistake, and so is saying nothing."""
    headrace("database", "up", "--config", database.config)
    database.run("CREATE ROLE dashboards_role LOGIN")

    assert (
        b"SELECT on table alerts"
        in headrace("database", "grant", "dashboards_role", "--read", "--config", database.config).stdout
    )
    allowed = "SELECT has_table_privilege('dashboards_role', 'alerts', p) FROM unnest(ARRAY['SELECT', 'INSERT']) AS p"
    assert database.run(allowed) == [(True,), (False,)]
    assert (
        "no role nobody"
        in headrace("database", "grant", "nobody", "--read", "--config", database.config, code=2).stderr
    )
    assert "--read or --write" in headrace("database", "grant", "nobody", "--config", database.config, code=2).stderr


def test_policies_without_timescaledb(headrace: Headrace, database: Database) -> None:
    """It says that there is nothing to tell anybody."""
    done = headrace("database", "policies", "--config", database.config, "--json")

    found = json.loads(done.stdout)
    assert (found["actions"], len(found["notes"])) == ([], 1)


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ("[timescale]\ncolumnstore_after = 3600", "must be more than lateness"),
        (
            "[rollup]\ngrace = 700000",
            "timescale.columnstore_after (604800 s) must be more than rollup.grace (700000 s)",
        ),
        ("[timescale]\naggregate_retention = 86400", "must be more than refresh_window"),
    ],
)
def test_policies_that_contradict_each_other(headrace: Headrace, database: Database, more: str, mistake: str) -> None:
    """Chunks must not become columns, nor aggregates leave, while data for them still comes."""
    database.configure(database.data, database.owner, more)

    assert mistake in headrace("database", "--config", database.config, code=2).stderr


def test_migration_dsn_alone(headrace: Headrace, tmp_path: Path) -> None:
    """Whoever makes tables needs somebody who fills them."""
    config = tmp_path / "headrace.toml"
    config.write_text('[database]\nmigration_dsn = "postgresql://a@b/c"\n')

    assert "migration_dsn goes with dsn" in headrace("database", "--config", config, code=2).stderr


def test_server_that_is_not_there(headrace: Headrace, tmp_path: Path) -> None:
    """A failure in one line, not a trace."""
    config = tmp_path / "headrace.toml"
    config.write_text('[database]\ndsn = "postgresql://a@127.0.0.1:1/c"\n')

    assert "ConnectionRefusedError" in headrace("database", "--config", config, code=1).stderr

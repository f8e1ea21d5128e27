"""The database that a command looks into: the one that the settings name, or the embedded one of a data folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.cli.settings import Settings
from headrace.connectors.postgres_server import PostgresServer
from headrace.engine.errors import ConfigError


def database_folder(settings: Settings, data: Path | None) -> Path | None:
    """The data folder with the embedded database; None where the settings name a server.

    Raises:
        ConfigError: there is none in it, or no folder was named.
    """
    if settings.database.dsn is not None:
        return None
    if data is None:
        raise ConfigError("--data is missing: name the data folder, or a server as [database] dsn in --config")
    if not (data / "postgres").is_dir():
        raise ConfigError(
            f"--data: {data} holds no database (postgres); name the data folder of a worker, demo or replay"
        )
    return data


@asynccontextmanager
async def opened_database(settings: Settings, data: Path | None) -> AsyncIterator[dict[str, Any]]:
    """Arguments of `asyncpg.connect`, for as long as the `async with` lasts; others may use the same server.

    Raises:
        ConfigError: there is no database; see `database_folder`.
        Disconnected: the embedded server does not start.
    """
    folder = database_folder(settings, data)
    if folder is None:
        assert settings.database.dsn is not None
        yield {"dsn": settings.database.dsn.get_secret_value()}
        return
    async with PostgresServer(folder) as address:
        yield address.connect_arguments()

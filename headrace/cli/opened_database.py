"""The database that a command looks into: the one that the settings name, or the embedded one of a data folder."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.cli.settings import Settings
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.schema import SchemaKeeper
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType


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


def table_specs(device_types: Mapping[str, DeviceType]) -> list[TableSpec]:
    """The readings tables of device types."""
    return [TableSpec(name, tuple(each.units)) for name, each in device_types.items()]


def schema_keeper(settings: Settings) -> SchemaKeeper:
    """Who makes tables for a sink: the role of `migration_dsn` if there is one."""
    dsn = settings.database.migration_dsn
    return SchemaKeeper(None if dsn is None else {"dsn": dsn.get_secret_value()}, settings.timescale)


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

"""The archive that a command looks into: the one that the settings name, or the folder `archive` of a data folder."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.opened_database import opened_database
from headrace.cli.settings import Settings
from headrace.connectors.archive.object_store import ArchiveStore, open_store

if TYPE_CHECKING:
    from headrace.connectors.archive.reader import ArchiveReader


@asynccontextmanager
async def opened_archive(
    settings: Settings, data: Path | None
) -> AsyncIterator[tuple[Mapping[str, Any], ArchiveStore]]:
    """The database, as arguments of `asyncpg.connect`, and the archive beside it.

    Raises:
        ConfigError: there is neither a store in the settings nor a data folder, or no database.
    """
    store = open_store(settings.archive, data)
    async with opened_database(settings, data) as connect:
        yield connect, store


@asynccontextmanager
async def opened_reader(
    settings: Settings, data: Path | None, connect: Mapping[str, Any]
) -> AsyncIterator["ArchiveReader | None"]:
    """What reads the archive for history; None where there is no archive."""
    if settings.archive.url is None and (data is None or not (data / "archive").is_dir()):
        yield None
        return
    from headrace.connectors.archive.reader import ArchiveReader  # noqa: PLC0415 - Polars, for those who have an archive

    reader = ArchiveReader(connect, open_store(settings.archive, data))
    try:
        yield reader
    finally:
        await reader.close()

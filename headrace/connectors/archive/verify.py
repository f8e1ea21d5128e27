"""Looks whether the archive still holds what was written."""

from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import Any, Literal, NamedTuple

import asyncpg

from headrace.connectors.archive import parts
from headrace.connectors.archive.object_store import ObjectStore
from headrace.connectors.archive.parquet import ArchiveDamaged
from headrace.connectors.archive.parts import Part
from headrace.connectors.archive.writing import read_back
from headrace.connectors.timescale.errors import translated
from headrace.connectors.timescale.migrations import MIGRATIONS, packaged
from headrace.connectors.timescale.schema import SchemaKeeper

#: `unfinished`: of a run that is at work or was interrupted, whose rows are in the database.
Finding = Literal["good", "damaged", "unfinished", "unknown"]


class Looked(NamedTuple):
    """What was found of an object; `why` is for a person. `unknown` objects are nobody's: readers pass them over."""

    object: str
    finding: Finding
    rows: int = 0
    why: str = ""


async def all_parts(connect: Mapping[str, Any], day: date | None = None) -> list[Part]:
    """What `archive_parts` says, by place and number.

    Raises:
        Disconnected, RetryLater: the database does not answer now.
    """
    with translated():
        connection = await asyncpg.connect(**connect)
        try:
            await SchemaKeeper().bring_up(connection, packaged(MIGRATIONS), [])
            return await parts.everything(connection, day)
        finally:
            connection.terminate()


async def verify(connect: Mapping[str, Any], store: ObjectStore, day: date | None = None) -> AsyncIterator[Looked]:
    """Read every part again and compare it with what was noted when it was written, then name what nobody knows.

    Args:
        day: only parts of this day.
    Raises:
        Disconnected, RetryLater: database or store do not answer now.
    """
    known = set()
    for part in await all_parts(connect, day):
        if part.object is None:
            continue
        known.add(part.object)
        if part.state != "deleted":
            yield Looked(part.object, "unfinished", part.rows, "its rows are in the database; the next run clears up")
            continue
        try:
            await read_back(store, part)
            yield Looked(part.object, "good", part.rows)
        except ArchiveDamaged as error:
            yield Looked(part.object, "damaged", part.rows, str(error))
    mark = None if day is None else f"/day={day.isoformat()}/"
    for name, _ in await store.list():
        if name not in known and (mark is None or mark in name):
            yield Looked(name, "unknown", 0, "no part of this database: of another one, or of a lost one")

"""From a changelog to a table: damaged entries, entries of another version, and those that are gone."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogDamaged, TableUnreadable
from headrace.engine.log import Known, Log, TopicPartition
from headrace.engine.operator import FIRST_VERSION, State, Stored, Versioned
from headrace.engine.shared_log import SharedLog

#: Key of a changelog's entry that says which version the others are of; without it they are of the first.
VERSION_KEY = b"\0version"
#: Key of an entry that says before which offset deleted records are not missed: the table was started over since.
BEGIN_KEY = b"\0begin"

#: What says something about a changelog, and is no entry of the table.
NOTES = frozenset({VERSION_KEY, BEGIN_KEY})

Entries = Sequence[tuple[bytes, bytes]]

_clock = SystemClock()


async def restore_table(log: Log, changelog: TopicPartition, state: State, way_out: str) -> dict[bytes, bytes | None]:
    """Give a table what its changelog holds; returns what has to be written there, as it was migrated.

    Others run in between: partitions that are ready go on meanwhile.

    Args:
        way_out: what to do about a changelog that cannot be read.
    Raises:
        TableUnreadable: the changelog is damaged, or of a newer version, or records of it were deleted.
    """
    if isinstance(state, Stored):
        await _restore_stored(log, changelog, state, way_out)
        return {}
    version = state.version if isinstance(state, Versioned) else FIRST_VERSION
    written, begin, kept = FIRST_VERSION, 0, list[Entries]()
    with readable(changelog, way_out):
        async for entries in log.restore(changelog):
            plain, notes = _without_notes(entries)
            written, begin = int(notes.get(VERSION_KEY, written)), int(notes.get(BEGIN_KEY, begin))
            _check_version(changelog, state.name, written, version, way_out)
            if version == FIRST_VERSION:
                state.restore(changelog.partition, plain)
            else:
                kept.append(plain)  # the version may come last
            await _clock.sleep(0)
        await _check_begin(log, changelog, begin, way_out)
        changes: dict[bytes, bytes | None] = {}
        if isinstance(state, Versioned) and written < version:
            changes = _migrated(state, written, dict(chain.from_iterable(kept)))
            current = [(key, value) for key, value in changes.items() if value is not None and key not in NOTES]
            kept = [current]
        for entries in kept:
            state.restore(changelog.partition, entries)
        state.restored(changelog.partition)
    return changes


async def _restore_stored(log: Log, changelog: TopicPartition, state: Stored, way_out: str) -> None:
    """Bring the copy to what the changelog says; one that it does not lead to is made anew."""
    number = changelog.partition
    with readable(changelog, way_out):
        known = state.known(number)
        begin = await _catch_up(log, changelog, state, known)
        if begin is None and not state.proven(number):
            state.clear(number)
            begin = await _catch_up(log, changelog, state, None)
        if begin is not None:
            await _check_begin(log, changelog, begin, way_out)
        _check_version(changelog, state.name, state.written(number), state.version, way_out)
        await _in_thread(partial(state.restored, number))


async def _catch_up(log: Log, changelog: TopicPartition, state: Stored, known: Known | None) -> int | None:
    """Returns where the table began, see `BEGIN_KEY`, if all of it was read; else None."""
    begin = 0 if known is None else None
    async for piece in log.catch_up(changelog, known):
        if piece.anew:
            begin = 0
            state.clear(changelog.partition)
        entries = [entry for entry in piece.entries if entry[0] != BEGIN_KEY]
        if begin is not None and len(entries) < len(piece.entries):
            begin = int(dict(piece.entries)[BEGIN_KEY] or 0)
        state.restore(changelog.partition, entries, piece.position)
        await _clock.sleep(0)
    return begin


async def _check_begin(log: Log, changelog: TopicPartition, begin: int, way_out: str) -> None:
    """Whoever shortened a changelog took the newest value of some keys with it, and nobody knows of which."""
    if isinstance(log, SharedLog) and (first := await log.first_offset(changelog)) > begin:
        raise TableUnreadable(
            f"{changelog.topic}/{changelog.partition} has lost its records before offset {first}: they were deleted, "
            f"or its cleanup.policy is not compact alone; set that, then {way_out}"
        )


async def _in_thread(work: Callable[[], None]) -> None:
    """Do what takes long for a large table while the loop runs; cancelled, it ends first: the table is in use."""
    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def _check_version(changelog: TopicPartition, table: str, written: int, version: int, way_out: str) -> None:
    if written > version:
        raise TableUnreadable(
            f"{changelog.topic}/{changelog.partition} was written by version {written} of table {table}, "
            f"this program knows {version}: start the newer program again, or {way_out}"
        )


def _without_notes(entries: Entries) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    notes = {key: value for key, value in entries if key in NOTES}
    plain = list(entries) if not notes else [entry for entry in entries if entry[0] not in NOTES]
    return plain, notes


def _migrated(state: Versioned, written: int, kept: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """All entries as they are now called and written, and None for those that are not any more."""
    now = state.migrate(written, kept) if kept else {}
    gone: Iterable[bytes] = kept.keys() - now.keys()
    return {**dict.fromkeys(gone), **now, VERSION_KEY: b"%d" % state.version}


@contextmanager
def readable(changelog: TopicPartition, way_out: str) -> Iterator[None]:
    """Turns what goes wrong with entries of `changelog` into a `TableUnreadable`."""
    try:
        yield
    except LogDamaged as error:
        raise TableUnreadable(f"{error}. Delete topic {changelog.topic}, then {way_out}") from error
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise TableUnreadable(
            f"{changelog.topic}/{changelog.partition} holds an entry that cannot be read ({error!r}); {way_out}"
        ) from error

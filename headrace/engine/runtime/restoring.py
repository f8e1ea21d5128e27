"""From a changelog to a table: damaged entries, and entries of another version."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from headrace.engine.errors import TableUnreadable
from headrace.engine.log import Known, Log, TopicPartition
from headrace.engine.operator import FIRST_VERSION, State, Stored, Versioned

#: Key of a changelog's entry that says which version the others are of; without it they are of the first.
VERSION_KEY = b"\0version"

Entries = Sequence[tuple[bytes, bytes]]


async def restore_table(log: Log, changelog: TopicPartition, state: State, way_out: str) -> dict[bytes, bytes | None]:
    """Give a table what its changelog holds; returns what has to be written there, as it was migrated.

    Args:
        way_out: what to do about a changelog that cannot be read.
    Raises:
        TableUnreadable: the changelog is damaged, or of a newer version.
    """
    if isinstance(state, Stored):
        await _restore_stored(log, changelog, state, way_out)
        return {}
    version = state.version if isinstance(state, Versioned) else FIRST_VERSION
    written, kept = FIRST_VERSION, dict[bytes, bytes]()
    with readable(changelog, way_out):
        async for entries in log.restore(changelog):
            plain, written = _without_version(entries, written)
            _check_version(changelog, state.name, written, version, way_out)
            if version == FIRST_VERSION:
                state.restore(changelog.partition, plain)
            else:
                kept.update(plain)  # the version may come last
        changes = _migrated(state, written, kept) if isinstance(state, Versioned) and written < version else {}
        if version != FIRST_VERSION:
            current = kept if not changes else {key: value for key, value in changes.items() if value is not None}
            state.restore(changelog.partition, [entry for entry in current.items() if entry[0] != VERSION_KEY])
        state.restored(changelog.partition)
    return changes


async def _restore_stored(log: Log, changelog: TopicPartition, state: Stored, way_out: str) -> None:
    """Bring the copy to what the changelog says; one that it does not lead to is made anew."""
    number = changelog.partition
    with readable(changelog, way_out):
        known = state.known(number)
        if not await _catch_up(log, changelog, state, known) and not state.proven(number):
            state.clear(number)
            await _catch_up(log, changelog, state, None)
        _check_version(changelog, state.name, state.written(number), state.version, way_out)
        state.restored(number)


async def _catch_up(log: Log, changelog: TopicPartition, state: Stored, known: Known | None) -> bool:
    """Returns whether it was from nothing."""
    anew = known is None
    async for piece in log.catch_up(changelog, known):
        if piece.anew:
            anew = True
            state.clear(changelog.partition)
        state.restore(changelog.partition, piece.entries, piece.position)
    return anew


def _check_version(changelog: TopicPartition, table: str, written: int, version: int, way_out: str) -> None:
    if written > version:
        raise TableUnreadable(
            f"{changelog.topic}/{changelog.partition} was written by version {written} of table {table}, "
            f"this program knows {version}: start the newer program again, or {way_out}"
        )


def _without_version(entries: Entries, written: int) -> tuple[list[tuple[bytes, bytes]], int]:
    plain = []
    for key, value in entries:
        if key == VERSION_KEY:
            written = int(value)
        else:
            plain.append((key, value))
    return plain, written


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
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise TableUnreadable(
            f"{changelog.topic}/{changelog.partition} holds an entry that cannot be read ({error!r}); {way_out}"
        ) from error

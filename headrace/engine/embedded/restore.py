"""Reads a compacted partition whole, in chunks, while it may be changed and merged."""

import sqlite3
from typing import cast

from headrace.engine.embedded.codec import decode_entries
from headrace.engine.embedded.compacted import id_range

#: Entries that a chunk has; some more, as rows and blocks are taken whole.
CHUNK = 10_000


class Restore:
    """Every key once, with its newest value: changes first, the newest first, then the base without their keys.

    A merge in between only moves on ahead what was not read yet: from a row of changes into a block. A block's keys go
    into none before it, unless they are deleted in between. Memory: the keys of the changes, and a chunk.
    """

    def __init__(self, partition_id: int) -> None:
        self._partition_id = partition_id
        self._seen: set[bytes] = set()
        self._before: int | None = id_range(partition_id)[1] + 1
        self._after: bytes | None = None

    def chunk(self, connection: sqlite3.Connection) -> list[tuple[bytes, bytes]] | None:
        """The next entries, maybe none; None at the end.

        Raises:
            LogError: a row cannot be read.
        """
        return self._base(connection) if self._before is None else self._changes(connection)

    def _changes(self, connection: sqlite3.Connection) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        first, seen = id_range(self._partition_id)[0], self._seen
        for row_id, body in connection.execute(
            "SELECT id, body FROM changes WHERE id >= ? AND id < ? ORDER BY id DESC", (first, self._before)
        ):
            row = decode_entries(body)
            entries = zip(row.keys, row.values, strict=True)
            found += [(key, value) for key, value in entries if value is not None and key not in seen]
            seen.update(row.keys)
            if len(found) >= CHUNK:
                self._before = row_id
                return found
        self._before = None
        return found

    def _base(self, connection: sqlite3.Connection) -> list[tuple[bytes, bytes]] | None:
        found: list[tuple[bytes, bytes]] = []
        last, seen = None, self._seen
        for (body,) in connection.execute(
            "SELECT body FROM blocks WHERE partition_id = ? AND (? IS NULL OR first_key > ?) ORDER BY first_key",
            (self._partition_id, self._after, self._after),
        ):
            block = decode_entries(body)
            entries = zip(block.keys, cast("list[bytes]", block.values), strict=True)  # nothing deleted is in a block
            found += [entry for entry in entries if entry[0] not in seen] if seen else entries
            last = block.keys[-1]
            if len(found) >= CHUNK:
                break
        self._after = last
        return None if last is None else found

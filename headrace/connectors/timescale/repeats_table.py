"""Messages without a row of their own, as they repeated or completed another one's: known when they are read again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from headrace.schemas.readings import Readings

_BEFORE = """
    SELECT message_id FROM repeats WHERE message_id = ANY($1::uuid[])
    UNION ALL SELECT message_id FROM conflicts WHERE message_id = ANY($1::uuid[])
"""
_REMEMBER = """
    INSERT INTO repeats (message_id, device_type, device_id, time, verdict)
    SELECT message_id, $1, device_id, time, verdict
    FROM unnest($2::uuid[], $3::text[], $4::timestamptz[], $5::text[]) AS judged(message_id, device_id, time, verdict)
    ORDER BY message_id
    ON CONFLICT (message_id) DO NOTHING
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def judged_before(connection: asyncpg.Connection, message_ids: Sequence[str]) -> set[str]:
    """Those that were found to be a repeat, a completion or a conflict by an earlier write."""
    if not message_ids:
        return set()
    return {str(row["message_id"]) for row in await connection.fetch(_BEFORE, message_ids)}


async def remember(
    connection: asyncpg.Connection, readings: Readings, duplicates: Sequence[int], completed: Sequence[int]
) -> None:
    """Keep what was judged, inside the running transaction. Conflicts have a table of their own.

    Args:
        duplicates, completed: places in `readings`.
    """
    places = [*duplicates, *completed]
    if places:
        await connection.execute(
            _REMEMBER,
            readings.device_type,
            [readings.message_ids[place] for place in places],
            [readings.device_ids[place] for place in places],
            [_EPOCH + timedelta(milliseconds=int(readings.times[place])) for place in places],
            ["duplicate"] * len(duplicates) + ["completion"] * len(completed),
        )

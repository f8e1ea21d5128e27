"""Dead letters as rows. Nothing about one may be refused: its own dead letter would be refused too."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from headrace.engine.dead_letters import AGENT, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TOPIC, REASON
from headrace.engine.log import Fetched
from headrace.engine.records import Record
from headrace.schemas import topics

_INSERT = """
    INSERT INTO dead_letters (
        partition, log_offset, appended_at, device_id, agent, reason, message_id, origin_topic, origin_partition,
        origin_offset, headers, value
    )
    SELECT * FROM unnest(
        $1::integer[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::integer[], $10::bigint[], $11::jsonb[], $12::bytea[]
    )
    ON CONFLICT (partition, log_offset) DO NOTHING
"""
#: Most bytes of digits that can be an offset.
MAX_DIGITS = 18
MAX_INTEGER = 2**31 - 1
#: Characters kept of texts that an index holds; PostgreSQL refuses rows with more than 2,700 bytes in one.
MAX_INDEXED = topics.MAX_DEVICE_ID
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Append times that both Python and PostgreSQL have; somebody else's producer may write what it likes.
LATEST = datetime(9999, 12, 31, tzinfo=UTC)
LATEST_MS = int((LATEST - EPOCH) / timedelta(milliseconds=1))
_UNFIT = re.compile("[\0\ud800-\udfff]")


async def store_dead_letters(connection: asyncpg.Connection, fetched: Sequence[Fetched]) -> None:
    """Store what `fetched` has of `telemetry.dlq`, inside the running transaction.

    Raises:
        asyncpg.PostgresError: not because of what is in the letters.
    """
    rows = [
        (part.target.partition, part.offset(place), *_row(record))
        for part in fetched
        if part.target.topic == topics.DEAD_LETTERS
        for place, record in enumerate(part.records)
    ]
    if rows:
        await connection.execute(_INSERT, *map(list, zip(*rows, strict=True)))


def _row(record: Record) -> tuple[Any, ...]:
    headers = record.headers
    key = None if record.key is None else readable(record.key)[:MAX_INDEXED]
    return (
        EPOCH + timedelta(milliseconds=min(max(record.timestamp, 0), LATEST_MS)),
        key,
        _text(headers, AGENT),
        _text(headers, REASON),
        _text(headers, topics.MESSAGE_ID),
        _text(headers, ORIGIN_TOPIC),
        _number(headers.get(ORIGIN_PARTITION), MAX_INTEGER),
        _number(headers.get(ORIGIN_OFFSET), 10**MAX_DIGITS),
        orjson.dumps({_fit(name): readable(value) for name, value in headers.items()}).decode(),
        record.value,
    )


def readable(value: bytes) -> str:
    r"""Bytes as a text that PostgreSQL takes: what is no UTF-8, and NUL, as `\xNN`.

    >>> readable("ü".encode() + bytes([0, 255]))
    'ü\\x00\\xff'
    """
    return _fit(value.decode(errors="backslashreplace"))


def _fit(text: str) -> str:
    return _UNFIT.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _text(headers: dict[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else readable(value)


def _number(value: bytes | None, most: int) -> int | None:
    if value is None or not value.isdigit() or len(value) > MAX_DIGITS:
        return None
    number = int(value)
    return number if number <= most else None

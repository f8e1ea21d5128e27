"""Alert rules as rows: the topic `rules`, of each key the newest record by its place in the log."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from pydantic import ValidationError

from headrace.connectors.timescale.dead_letter_rows import EPOCH, LATEST_MS
from headrace.engine.log import Fetched
from headrace.engine.records import Record
from headrace.engine.sink import Refused
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule

_UPSERT = """
    INSERT INTO alert_rules AS stored (
        rule_id, organization_id, status, device_type, severity, name, document, created_at, updated_at, applies_from,
        log_offset
    )
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[],
        $9::timestamptz[], $10::timestamptz[], $11::bigint[]
    )
    ON CONFLICT (rule_id) DO UPDATE
        SET organization_id = EXCLUDED.organization_id, status = EXCLUDED.status, device_type = EXCLUDED.device_type,
            severity = EXCLUDED.severity, name = EXCLUDED.name, document = EXCLUDED.document,
            created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, applies_from = EXCLUDED.applies_from,
            log_offset = EXCLUDED.log_offset
        WHERE stored.log_offset < EXCLUDED.log_offset
"""


async def store_rules(connection: asyncpg.Connection, fetched: Sequence[Fetched]) -> None:
    """Store what `fetched` has of `rules`, inside the running transaction.

    Raises:
        Refused: one of the values is no rule.
        UnicodeDecodeError, asyncpg.PostgresError: one of them cannot be stored.
    """
    newest: dict[str, tuple[Any, ...]] = {}
    for part in fetched:
        if part.target.topic == topics.RULES:
            for place, record in enumerate(part.records):
                rule_id = (record.key or b"").decode()
                row = (rule_id, *_row(record), part.offset(place))
                if rule_id not in newest or newest[rule_id][-1] < row[-1]:
                    newest[rule_id] = row
    if newest:
        await connection.execute(_UPSERT, *map(list, zip(*newest.values(), strict=True)))


def _row(record: Record) -> tuple[Any, ...]:
    appended = _time(record.timestamp)
    if record.value is None:
        return None, "deleted", None, None, None, None, None, appended, appended
    try:
        rule = AlertRule.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise Refused(f"not a rule: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    created = None if rule.created_at is None else _time(rule.created_at)
    updated = appended if rule.updated_at is None else _time(rule.updated_at)
    document = record.value.decode()
    return (
        rule.organization_id, rule.status, rule.device_type, rule.severity, rule.name, document, created, updated,
        appended,
    )  # fmt: skip


def _time(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=min(max(time_ms, 0), LATEST_MS))

"""Topics whose records are stored as documents: one statement each, which takes them as $1, an array of JSON texts."""

from collections.abc import Sequence

import asyncpg

from headrace.connectors.timescale.late_documents import UPSERT_LATE
from headrace.schemas import topics

_INPUT = "WITH input AS MATERIALIZED (SELECT d, place FROM unnest($1::jsonb[]) WITH ORDINALITY AS documents(d, place))"

#: By topic. Of several records with the same key the newest is kept: by revision, or by place in the log.
UPSERTS = {
    topics.ROLLUPS: f"""
        {_INPUT}, newest AS MATERIALIZED (
            SELECT DISTINCT ON (device_type, device_id, "window", start)
                d->>'device_type' AS device_type, d->>'device_id' AS device_id,
                COALESCE(d->>'window', headrace_window((d->>'window_seconds')::double precision)) AS "window",
                headrace_time(d->'start') AS start, (d->>'window_seconds')::double precision AS window_seconds,
                COALESCE((d->>'revision')::integer, 0) AS revision, d->'measures' AS measures, d - 'measures' AS details
            FROM input ORDER BY device_type, device_id, "window", start, revision DESC, place DESC
        ), retracted AS (
            DELETE FROM rollups USING newest WHERE newest.details->>'kind' = 'retraction'
                AND (rollups.device_type, rollups.device_id, rollups."window", rollups.start)
                  = (newest.device_type, newest.device_id, newest."window", newest.start)
                AND rollups.revision <= newest.revision
        )
        INSERT INTO rollups (device_type, device_id, "window", start, window_seconds, revision, measures, details)
        SELECT device_type, device_id, "window", start, window_seconds, revision, measures, details
        FROM newest WHERE details->>'kind' IS DISTINCT FROM 'retraction'
        ON CONFLICT (device_type, device_id, "window", start) DO UPDATE
            SET revision = EXCLUDED.revision, measures = EXCLUDED.measures, details = EXCLUDED.details
            WHERE rollups.revision <= EXCLUDED.revision
    """,
    topics.ANOMALIES: f"""
        {_INPUT}
        INSERT INTO anomalies (device_id, metric, time, detector, device_type, document)
        SELECT DISTINCT ON (device_id, metric, time, detector)
            d->>'device_id' AS device_id, d->>'metric' AS metric, headrace_time(d->'time') AS time,
            d->>'detector' AS detector, d->>'device_type', d
        FROM input ORDER BY device_id, metric, time, detector, place DESC
        ON CONFLICT (device_id, metric, time, detector) DO UPDATE
            SET device_type = EXCLUDED.device_type, document = EXCLUDED.document
    """,
    topics.ALERTS: f"""
        {_INPUT}
        INSERT INTO alerts (alert_id, rule_id, device_id, severity, status, triggered_at, resolved_at, document)
        SELECT DISTINCT ON (alert_id)
            d->'data'->>'alertId' AS alert_id, d->'data'->>'ruleId', d->'data'->>'deviceId', d->'data'->>'severity',
            d->'data'->>'status', headrace_time(d->'data'->'triggeredAt'), headrace_time(d->'data'->'resolvedAt'), d
        FROM input ORDER BY alert_id, place DESC
        ON CONFLICT (alert_id) DO UPDATE
            SET rule_id = EXCLUDED.rule_id, device_id = EXCLUDED.device_id, severity = EXCLUDED.severity,
                status = EXCLUDED.status, triggered_at = EXCLUDED.triggered_at, resolved_at = EXCLUDED.resolved_at,
                document = EXCLUDED.document
    """,
    topics.CONFLICTS: f"""
        {_INPUT}
        INSERT INTO conflicts (message_id, device_type, device_id, time, document)
        SELECT (d->>'message_id')::uuid, d->>'device_type', d->>'device_id', headrace_time(d->'time'), d FROM input
        ON CONFLICT (message_id) DO NOTHING
    """,
    topics.LATE: UPSERT_LATE,
}


async def upsert(connection: asyncpg.Connection, topic: str, documents: Sequence[bytes]) -> None:
    """Store documents of `topic`, in log order, inside the running transaction.

    Raises:
        UnicodeDecodeError, asyncpg.PostgresError: one of them cannot be stored.
    """
    if documents:
        await connection.execute(UPSERTS[topic], [document.decode() for document in documents])

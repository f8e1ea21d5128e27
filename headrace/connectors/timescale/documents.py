"""Topics whose records are stored as documents: one statement each, which takes JSON texts and their offsets.

Of records with the same key the newest is kept: by its own version (revision, or time of change), then by its place in
the log. A record that is not newer than its row does not touch it, so that reading the log again changes nothing.
"""

from collections.abc import Sequence

import asyncpg

from headrace.connectors.timescale.alert_documents import UPSERT_ALERTS
from headrace.connectors.timescale.late_documents import UPSERT_LATE
from headrace.engine.log import Fetched
from headrace.schemas import topics

_INPUT = """
    WITH input AS MATERIALIZED (
        SELECT d, log_offset FROM unnest($1::jsonb[], $2::bigint[]) AS documents(d, log_offset)
    )
"""

#: By topic. $1: documents; $2: offset of each, where the statement asks.
UPSERTS = {
    topics.ROLLUPS: f"""
        {_INPUT}
        INSERT INTO rollups AS stored (
            device_type, device_id, "window", start, window_seconds, revision, measures, details, retracted, log_offset
        )
        SELECT DISTINCT ON (device_type, device_id, "window", start)
            d->>'device_type' AS device_type, d->>'device_id' AS device_id,
            COALESCE(d->>'window', headrace_window((d->>'window_seconds')::double precision)) AS "window",
            headrace_time(d->'start') AS start, (d->>'window_seconds')::double precision,
            COALESCE((d->>'revision')::integer, 0) AS revision, COALESCE(d->'measures', '{{}}'), d - 'measures',
            COALESCE(d->>'kind', '') = 'retraction', log_offset
        FROM input ORDER BY device_type, device_id, "window", start, revision DESC, log_offset DESC
        ON CONFLICT (device_type, device_id, "window", start) DO UPDATE
            SET revision = EXCLUDED.revision, measures = EXCLUDED.measures, details = EXCLUDED.details,
                retracted = EXCLUDED.retracted, log_offset = EXCLUDED.log_offset
            WHERE (stored.revision, stored.log_offset) < (EXCLUDED.revision, EXCLUDED.log_offset)
    """,
    topics.ANOMALIES: f"""
        {_INPUT}
        INSERT INTO anomalies AS stored (device_id, metric, time, detector, device_type, document, log_offset)
        SELECT DISTINCT ON (device_id, metric, time, detector)
            d->>'device_id' AS device_id, d->>'metric' AS metric, headrace_time(d->'time') AS time,
            d->>'detector' AS detector, d->>'device_type', d, log_offset
        FROM input ORDER BY device_id, metric, time, detector, log_offset DESC
        ON CONFLICT (device_id, metric, time, detector) DO UPDATE
            SET device_type = EXCLUDED.device_type, document = EXCLUDED.document, log_offset = EXCLUDED.log_offset
            WHERE stored.log_offset < EXCLUDED.log_offset
    """,
    topics.ALERTS: UPSERT_ALERTS,
    topics.NOTIFICATIONS: f"""
        {_INPUT}
        INSERT INTO notifications AS stored
            (notification_id, alert_id, user_id, channel, status, changed_at, log_offset, document)
        SELECT DISTINCT ON (notification_id)
            d->'data'->>'notificationId' AS notification_id, d->'data'->>'alertId', d->'data'->>'userId',
            d->'data'->>'channel', d->'data'->>'status', headrace_time(d->'time') AS changed_at, log_offset, d
        FROM input ORDER BY notification_id, changed_at DESC NULLS LAST, log_offset DESC
        ON CONFLICT (notification_id) DO UPDATE
            SET alert_id = EXCLUDED.alert_id, user_id = EXCLUDED.user_id, channel = EXCLUDED.channel,
                status = EXCLUDED.status, changed_at = EXCLUDED.changed_at, log_offset = EXCLUDED.log_offset,
                document = EXCLUDED.document
            WHERE (COALESCE(stored.changed_at, '-infinity'), stored.log_offset)
                < (COALESCE(EXCLUDED.changed_at, '-infinity'), EXCLUDED.log_offset)
    """,
    # A will is no change of the connection: what counts is the disconnect before it.
    topics.PRESENCE: f"""
        {_INPUT}
        INSERT INTO device_presence AS stored (device_id, state, time, log_offset, document)
        SELECT DISTINCT ON (device_id)
            d->>'device_id' AS device_id, d->>'state', headrace_time(d->'time') AS time, log_offset, d
        FROM input WHERE d->>'state' IS DISTINCT FROM 'will' ORDER BY device_id, time DESC, log_offset DESC
        ON CONFLICT (device_id) DO UPDATE
            SET state = EXCLUDED.state, time = EXCLUDED.time, log_offset = EXCLUDED.log_offset,
                document = EXCLUDED.document
            WHERE (stored.time, stored.log_offset) < (EXCLUDED.time, EXCLUDED.log_offset)
    """,
    topics.CONFLICTS: f"""
        {_INPUT}
        INSERT INTO conflicts (message_id, device_type, device_id, time, document)
        SELECT (d->>'message_id')::uuid, d->>'device_type', d->>'device_id', headrace_time(d->'time'), d
        FROM input ORDER BY 1, log_offset
        ON CONFLICT (message_id) DO NOTHING
    """,
    topics.LATE: UPSERT_LATE,
}


async def store_documents(connection: asyncpg.Connection, fetched: Sequence[Fetched]) -> None:
    """Store what `fetched` has of these topics, inside the running transaction.

    Raises:
        UnicodeDecodeError, asyncpg.PostgresError: one of them cannot be stored.
    """
    for topic in UPSERTS:
        documents, offsets = list[bytes](), list[int]()
        for part in fetched:
            if part.target.topic == topic:
                found = [(value, part.offset(row)) for row, value in enumerate(part.records.values) if value]
                documents += [value for value, _ in found]
                offsets += [offset for _, offset in found]
        await upsert(connection, topic, documents, offsets)


async def upsert(
    connection: asyncpg.Connection, topic: str, documents: Sequence[bytes], offsets: Sequence[int] = ()
) -> None:
    """Store documents of `topic` at these offsets of the log, inside the running transaction.

    Args:
        offsets: one per document; none for documents that have none, and come in order.
    Raises:
        UnicodeDecodeError, asyncpg.PostgresError: one of them cannot be stored.
    """
    if documents:
        statement, texts = UPSERTS[topic], [document.decode() for document in documents]
        places = [offsets or range(len(texts))] if "$2" in statement else []
        await connection.execute(statement, texts, *places)

"""Stores `alerts.v1`: each event by its id, and of each alert the newest state."""

#: One statement, which takes JSON texts as $1 and their offsets as $2, as in `documents.UPSERTS`. What has no id is
#: from before events were kept. A refused command is an event, and no state of an alert.
UPSERT_ALERTS = """
    WITH input AS MATERIALIZED (
        SELECT d, d->'data' AS alert, log_offset FROM unnest($1::jsonb[], $2::bigint[]) AS documents(d, log_offset)
    ),
    events AS (
        INSERT INTO alert_events (event_id, alert_id, revision, type, device_id, time, command_id, document)
        SELECT d->>'id', alert->>'alertId', (alert->>'revision')::integer,
            regexp_replace(d->>'type', '^io\\.headrace\\.alert\\.', ''), d->>'subject', headrace_time(d->'time'),
            d->>'commandid', d
        FROM input WHERE d ? 'id' ORDER BY d->>'id' COLLATE "C", log_offset
        ON CONFLICT (event_id) DO NOTHING
    )
    INSERT INTO alerts AS stored (
        alert_id, rule_id, device_id, severity, status, triggered_at, resolved_at, document, changed_at, log_offset,
        revision, gateway_id, organization_id, acknowledged_at, suppressed_by
    )
    SELECT DISTINCT ON (alert_id)
        alert->>'alertId' AS alert_id, alert->>'ruleId', alert->>'deviceId', alert->>'severity', alert->>'status',
        headrace_time(alert->'triggeredAt'), headrace_time(alert->'resolvedAt'), d,
        headrace_time(d->'time') AS changed_at, log_offset, COALESCE((alert->>'revision')::integer, 0) AS revision,
        alert->>'gatewayId', alert->>'organizationId', headrace_time(alert->'acknowledgedAt'),
        alert->'suppressed'->>'by'
    FROM input WHERE d->>'type' IS DISTINCT FROM 'io.headrace.alert.refused'
    ORDER BY alert_id, revision DESC, changed_at DESC NULLS LAST, log_offset DESC
    ON CONFLICT (alert_id) DO UPDATE
        SET rule_id = EXCLUDED.rule_id, device_id = EXCLUDED.device_id, severity = EXCLUDED.severity,
            status = EXCLUDED.status, triggered_at = EXCLUDED.triggered_at, resolved_at = EXCLUDED.resolved_at,
            document = EXCLUDED.document, changed_at = EXCLUDED.changed_at, log_offset = EXCLUDED.log_offset,
            revision = EXCLUDED.revision, gateway_id = EXCLUDED.gateway_id,
            organization_id = EXCLUDED.organization_id, acknowledged_at = EXCLUDED.acknowledged_at,
            suppressed_by = EXCLUDED.suppressed_by
        WHERE (stored.revision, COALESCE(stored.changed_at, '-infinity'), stored.log_offset)
            < (EXCLUDED.revision, COALESCE(EXCLUDED.changed_at, '-infinity'), EXCLUDED.log_offset)
"""

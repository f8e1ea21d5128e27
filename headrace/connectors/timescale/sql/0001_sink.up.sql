-- A time in a document: a number of milliseconds since 1970 UTC, or ISO 8601 text.
CREATE FUNCTION headrace_time(value jsonb) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE jsonb_typeof(value)
        WHEN 'number' THEN to_timestamp(value::double precision / 1000)
        ELSE (value #>> '{}')::timestamptz
    END
$$;

CREATE TABLE sink_positions (
    sink text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (sink, topic, partition)
);

-- What the sink itself decided, per minute of append time and device type; never computed from anything else.
CREATE TABLE ledger (
    minute timestamptz NOT NULL,
    device_type text NOT NULL,
    term text NOT NULL CHECK (term IN ('stored', 'duplicate', 'conflict')),
    count bigint NOT NULL,
    PRIMARY KEY (minute, device_type, term)
);

CREATE TABLE rollups (
    device_type text NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    window_seconds double precision NOT NULL,
    start timestamptz NOT NULL,
    revision integer NOT NULL,
    measures jsonb NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (device_type, device_id, window_seconds, start)
);
CREATE INDEX rollups_start ON rollups USING brin (start);

CREATE TABLE anomalies (
    device_id text COLLATE "C" NOT NULL,
    metric text NOT NULL,
    time timestamptz NOT NULL,
    detector text NOT NULL,
    device_type text,
    document jsonb NOT NULL,
    PRIMARY KEY (device_id, metric, time, detector)
);
CREATE INDEX anomalies_time ON anomalies (time);

CREATE TABLE alerts (
    alert_id text PRIMARY KEY,
    rule_id text,
    device_id text COLLATE "C",
    severity text,
    status text,
    triggered_at timestamptz,
    resolved_at timestamptz,
    document jsonb NOT NULL
);
CREATE INDEX alerts_device ON alerts (device_id, triggered_at);
CREATE INDEX alerts_triggered_at ON alerts (triggered_at);

CREATE TABLE conflicts (
    message_id uuid PRIMARY KEY,
    device_type text,
    device_id text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    document jsonb NOT NULL
);
CREATE INDEX conflicts_device ON conflicts (device_id, time);

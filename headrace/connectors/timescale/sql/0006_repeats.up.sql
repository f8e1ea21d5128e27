-- Messages that the sink found to repeat a stored reading, or to complete one, so that it counts none of them twice when
-- it reads the log again. `time` is the event time: what is older than the log keeps may go.
CREATE TABLE repeats (
    message_id uuid PRIMARY KEY,
    device_type text NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('duplicate', 'completion'))
);
CREATE INDEX repeats_time ON repeats USING brin (time);

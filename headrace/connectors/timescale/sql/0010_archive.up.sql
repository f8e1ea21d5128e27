-- Parts of the archive, each an object in the store. `writing`, `written` and `verified` parts are of a run that is at
-- work or was interrupted: their rows are still here, and the next run throws the object away. `deleted`: the rows are
-- in the archive alone; set by the transaction that deletes them.
CREATE TABLE archive_parts (
    part_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    device_type text,
    organisation text,
    day date NOT NULL,
    number integer NOT NULL,
    object text UNIQUE,  -- NULL: every row was in the archive already, or in conflict with it
    state text NOT NULL CHECK (state IN ('writing', 'written', 'verified', 'deleted')),
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    groups bigint NOT NULL,
    sha256 bytea NOT NULL,  -- of the object
    content bytea NOT NULL,  -- of the rows; see headrace.connectors.archive.digest
    first_group text COLLATE "C" NOT NULL,
    last_group text COLLATE "C" NOT NULL,
    first_time timestamptz,
    last_time timestamptz,
    duplicates bigint NOT NULL DEFAULT 0,
    conflicts bigint NOT NULL DEFAULT 0,
    written_at timestamptz,
    verified_at timestamptz,
    deleted_at timestamptz
);
CREATE INDEX archive_parts_place ON archive_parts (dataset, device_type, day);

-- What each run did; the newest say how much a night usually deletes.
CREATE TABLE archive_runs (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    parts bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    conflicts bigint NOT NULL DEFAULT 0,
    failures jsonb NOT NULL DEFAULT '[]'
);

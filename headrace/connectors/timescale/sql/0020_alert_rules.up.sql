-- The topic `rules` as it is now; see headrace.schemas.rule. Of a rule that was purged the id is left, without a document,
-- or reading the log again would bring the rule back for a while.
CREATE TABLE alert_rules (
    rule_id text COLLATE "C" PRIMARY KEY,
    organization_id text,
    status text NOT NULL CHECK (status IN ('active', 'inactive', 'deleted')),
    device_type text,  -- "all" for every type
    severity text,
    name text,
    document jsonb,
    created_at timestamptz,
    updated_at timestamptz NOT NULL,
    applies_from timestamptz NOT NULL,  -- append time of the first record that it applies to
    log_offset bigint NOT NULL
);
CREATE INDEX alert_rules_organization ON alert_rules (organization_id, status);

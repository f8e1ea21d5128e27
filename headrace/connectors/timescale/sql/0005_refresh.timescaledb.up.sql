-- Refreshes the continuous aggregates that its job is told, one after the other in that order: the finest first, as each
-- reads the one before. Refreshes of several at the same time can deadlock (timescaledb pull request 8707).
DO $make$
BEGIN
    EXECUTE format($procedure$
        CREATE PROCEDURE headrace_refresh(job_id integer, config jsonb) LANGUAGE plpgsql AS $body$
        DECLARE
            names text[] := ARRAY(SELECT jsonb_array_elements_text(config->'views'));
            place text := %L;
            until timestamptz := now();
            since timestamptz := until - (config->>'window')::interval;
            view regclass;
            name text;
        BEGIN
            -- "headrace" in ASCII, and one; the lock of the session, as every refresh ends a transaction.
            IF NOT pg_try_advisory_lock(7522525836635890534) THEN
                RAISE NOTICE 'another refresh is at work';
                RETURN;
            END IF;
            FOREACH name IN ARRAY names LOOP
                view := to_regclass(format('%%I.%%I', place, name));
                IF view IS NOT NULL THEN
                    CALL %s.refresh_continuous_aggregate(view, since, until);
                END IF;
                -- Without it the next refresh fails (timescaledb issue 6124).
                COMMIT;
            END LOOP;
            PERFORM pg_advisory_unlock(7522525836635890534);
        END
        $body$
    $procedure$, current_schema(), (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb'));
END
$make$;

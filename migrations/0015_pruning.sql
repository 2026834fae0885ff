-- What becomes of a purged organization's trail when the time for which it is kept is over.

-- Purged organizations as the owner of the database saw them. No role of the service may write here, so none can make
-- the time pass faster, or have something pruned that the owner did not see.
CREATE TABLE prunings (
    organization_id text COLLATE "C" PRIMARY KEY,
    -- When the owner first saw that it is purged. Its trail is kept for so and so long from then on.
    seen_at   timestamptz NOT NULL DEFAULT now(),
    pruned_at timestamptz,
    events    bigint
);

-- An event without its content. Its row stays, and with it its places: offsets, versions and audit sequences are dense.
CREATE FUNCTION pruned(event events) RETURNS jsonb STABLE LANGUAGE sql AS $$
    SELECT to_jsonb(event) || '{
        "event_type": "Pruned", "event_version": "1.0", "payload": {}, "metadata": {},
        "actor": "system", "on_behalf_of": null, "ip": null, "user_agent": null, "request_id": null,
        "command_id": "00000000-0000-0000-0000-000000000000", "correlation_id": "00000000-0000-0000-0000-000000000000",
        "causation_id": null
    }'::jsonb
$$;

-- The only change of an event that there is: its content goes, once the log says of its organization that it does, and
-- the owner has seen that it was purged. What says either stays.
CREATE FUNCTION refuse_change_but_pruning() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.event_type NOT IN ('OrgPurged', 'OrgPruned') THEN
        IF to_jsonb(NEW) = pruned(OLD) AND 'OrgPruned' = (
            SELECT event_type FROM events WHERE aggregate_type = 'Organization' AND aggregate_id = OLD.organization_id
            ORDER BY sequence DESC LIMIT 1
        ) AND EXISTS (SELECT FROM prunings WHERE organization_id = OLD.organization_id) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
DROP TRIGGER events_are_never_changed ON events;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_but_pruning();
CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

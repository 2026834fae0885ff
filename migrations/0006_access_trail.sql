-- The access trail: what was refused, what operators read of tenants, and who read an audit trail. Not events of the
-- log, so that reading cannot feed what is read. Rows are only ever inserted: the first row of a minute says that
-- something happened, and one in `access_repeats`, when the minute is over, how often it happened again.
CREATE TABLE access_trail (
    id                      text COLLATE "C" PRIMARY KEY,
    created_at              timestamptz      NOT NULL,
    kind                    text COLLATE "C" NOT NULL,
    actor                   text COLLATE "C" NOT NULL,
    operation               text COLLATE "C" NOT NULL,
    -- In whose trail it stands; none: only operators read it.
    organization_id         text COLLATE "C",
    -- Of a reach across tenants, whom it was for. Never shown to anybody but operators.
    reached_organization_id text COLLATE "C",
    -- The id that the caller gave.
    target_id               text COLLATE "C",
    times                   bigint           NOT NULL CHECK (times >= 1),
    -- Personal: ciphertext under the caller's key.
    ip                      text COLLATE "C",
    CHECK (organization_id IS NULL OR reached_organization_id IS NULL)
);
CREATE INDEX access_trail_by_organization ON access_trail (organization_id, created_at, id)
    WHERE organization_id IS NOT NULL;
CREATE INDEX access_trail_by_time ON access_trail (created_at, id);

CREATE TABLE access_repeats (
    id         text COLLATE "C" PRIMARY KEY,
    created_at timestamptz NOT NULL,
    times      bigint      NOT NULL CHECK (times >= 1)
);
CREATE INDEX access_repeats_by_time ON access_repeats (created_at);

CREATE FUNCTION refuse_trail_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the access trail is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
-- What is younger than the shortest retention that can be configured is deleted by nobody.
CREATE FUNCTION refuse_young_trail_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.created_at > now() - interval '30 days' THEN
        RAISE EXCEPTION 'the access trail is append-only: a row of the last 30 days is not deleted from %', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER access_trail_is_never_changed BEFORE UPDATE OR TRUNCATE ON access_trail
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_trail_change();
CREATE TRIGGER access_repeats_are_never_changed BEFORE UPDATE OR TRUNCATE ON access_repeats
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_trail_change();
CREATE TRIGGER access_trail_is_kept BEFORE DELETE ON access_trail
    FOR EACH ROW EXECUTE FUNCTION refuse_young_trail_deletion();
CREATE TRIGGER access_repeats_are_kept BEFORE DELETE ON access_repeats
    FOR EACH ROW EXECUTE FUNCTION refuse_young_trail_deletion();

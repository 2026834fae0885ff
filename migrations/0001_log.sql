-- The log and what is enforced together with it. Text ids compare bytewise (COLLATE "C"): they are ASCII, and the
-- comparison is what most of an index look-up costs.

CREATE TABLE installation (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Positions name the epoch; restoring the database to an earlier point raises it.
    epoch         bigint      NOT NULL DEFAULT 1,
    -- How many partitions the log has. Fixed: where an organization's events lie follows from it.
    partitions    smallint    NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    -- Recognises the master key, so that a service with another one stops before it writes.
    key_check     text        NOT NULL,
    installed_at  timestamptz NOT NULL DEFAULT now()
);

-- The first seven columns and the order of the primary key are those of postgres-es, whose repository can read
-- this table (personal data as ciphertext).
CREATE TABLE events (
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    sequence        bigint           NOT NULL CHECK (sequence >= 1),
    event_type      text COLLATE "C" NOT NULL,
    event_version   text COLLATE "C" NOT NULL,
    payload         json             NOT NULL,
    metadata        json             NOT NULL DEFAULT '{}',
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL CHECK ("offset" >= 1),
    organization_id text COLLATE "C",
    audit_sequence  bigint CHECK (audit_sequence >= 1),
    event_id        text COLLATE "C" NOT NULL,
    command_id      uuid             NOT NULL,
    actor           text COLLATE "C" NOT NULL,
    on_behalf_of    text COLLATE "C",
    ip              text COLLATE "C",
    user_agent      text COLLATE "C",
    request_id      text COLLATE "C",
    correlation_id  uuid             NOT NULL,
    causation_id    text COLLATE "C",
    recorded_at     timestamptz      NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence, partition),
    CHECK ((organization_id IS NULL) = (audit_sequence IS NULL))
);
CREATE UNIQUE INDEX events_by_offset ON events (partition, "offset");
CREATE UNIQUE INDEX events_by_audit_sequence ON events (organization_id, audit_sequence, partition)
    WHERE organization_id IS NOT NULL;
CREATE UNIQUE INDEX events_by_id ON events (event_id, partition);
CREATE INDEX events_by_time ON events (recorded_at, event_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A key a person. Wrapped by the master key; without it (erased) what was sealed under it is unreadable for ever.
CREATE TABLE subject_keys (
    subject_id text COLLATE "C" PRIMARY KEY,
    wrapped    bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at  timestamptz,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);

-- Unique keys and their holders; can be rebuilt from the log.
CREATE TABLE claims (
    scope           text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    holder          text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C",
    partition       smallint         NOT NULL,
    until           timestamptz,
    PRIMARY KEY (scope, key)
);
CREATE INDEX claims_by_time ON claims (until, organization_id) WHERE until IS NOT NULL;

-- What an organization uses, between floor and maximum; can be rebuilt from the log.
CREATE TABLE tallies (
    organization_id text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,
    used            bigint           NOT NULL DEFAULT 0 CHECK (used >= 0),
    maximum         bigint CHECK (maximum >= 0),
    floor           bigint           NOT NULL DEFAULT 0,
    -- That the maximum was reached is on record since there was last room.
    reached         boolean          NOT NULL DEFAULT false,
    partition       smallint         NOT NULL,
    PRIMARY KEY (organization_id, name)
);

-- Outcomes of accepted commands that came with an idempotency key, kept for seven days.
CREATE TABLE outcomes (
    caller     text COLLATE "C" NOT NULL,
    operation  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    input      text COLLATE "C" NOT NULL,
    outcome    json             NOT NULL,
    created_at timestamptz      NOT NULL,
    PRIMARY KEY (caller, operation, key)
);
CREATE INDEX outcomes_by_time ON outcomes (created_at);

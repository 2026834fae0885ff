-- Webhooks: the read model of endpoints, and beside it what the log does not say: what is on its way to whom.

CREATE SCHEMA webhooks_1;
CREATE TABLE webhooks_1.webhook_endpoints (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL,
    url             text             NOT NULL,
    about           text,
    patterns        text[]           NOT NULL,
    ordering        text COLLATE "C" NOT NULL,
    content         text COLLATE "C" NOT NULL,
    rate_per_second bigint,
    -- [{"number", "until"}], the newest first.
    secrets         json             NOT NULL,
    state           text COLLATE "C" NOT NULL,
    disabled_reason text,
    -- The audit sequence at which it was disabled: from there on nothing is written for it, until it is enabled.
    stopped_at      bigint,
    deleted         boolean          NOT NULL,
    version         bigint           NOT NULL,
    created_at      timestamptz      NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL
);
CREATE INDEX webhook_endpoints_by_creation ON webhooks_1.webhook_endpoints (organization_id, created_at, id)
    WHERE NOT deleted;

-- An event for an endpoint. Written by the projection in the transaction that moves its checkpoint, and so once; then
-- changed by whoever delivers it. What is sent does not lie here: it is made from the event each time.
CREATE TABLE webhook_deliveries (
    id              text COLLATE "C" PRIMARY KEY,
    endpoint_id     text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    event_id        text COLLATE "C" NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    audit_sequence  bigint           NOT NULL,
    -- The event's stream, where the endpoint wants those of one subject in order.
    subject_id      text COLLATE "C",
    state           text COLLATE "C" NOT NULL DEFAULT 'PENDING'
                    CHECK (state IN ('PENDING', 'RETRYING', 'SUCCEEDED', 'FAILED')),
    -- When it is tried next; 'infinity' while one before it of its subject is open; null when there is nothing to do.
    due_at          timestamptz,
    -- Until when it belongs to whoever took it. Not indexed, so that taking it touches no index.
    leased_until    timestamptz,
    -- Attempts since it was written, asked for again, or its endpoint enabled: how long it waits for the next.
    tries           smallint         NOT NULL DEFAULT 0,
    -- [{"at", "durationMs", "status", "error", "responseExcerpt"}], the last of them.
    attempts        json             NOT NULL DEFAULT '[]',
    created_at      timestamptz      NOT NULL,
    finished_at     timestamptz,
    CHECK ((due_at IS NULL) = (finished_at IS NOT NULL)),
    CHECK ((due_at IS NULL) = (state IN ('SUCCEEDED', 'FAILED')))
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, created_at, id);
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (endpoint_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_of_subject ON webhook_deliveries (endpoint_id, subject_id, audit_sequence)
    WHERE due_at IS NOT NULL AND subject_id IS NOT NULL;

-- Parts of an audit trail that passed while an endpoint was disabled ('MISSED'), or that are to be sent to it again
-- ('AGAIN'; 'FAILED': only what could not be delivered). Done in small steps by whoever is free, of each endpoint the
-- oldest. While there is one of what was missed that has not come to its events' end, later events wait that have to be in
-- order behind it.
CREATE TABLE webhook_backfills (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id     text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('MISSED', 'AGAIN', 'FAILED')),
    -- Which events; all that the endpoint wants, where null.
    patterns        text[],
    -- 'FORGET': what failed before is to be tried as if for the first time. 'EVENTS': they are gone through.
    -- 'RELEASE': of each subject the first that waits becomes due.
    stage           text COLLATE "C" NOT NULL CHECK (stage IN ('FORGET', 'EVENTS', 'RELEASE')),
    -- Everything up to this audit sequence is done.
    cursor          bigint           NOT NULL,
    until           bigint           NOT NULL,
    -- Of 'RELEASE': the last subject that is done.
    subject         text COLLATE "C" NOT NULL DEFAULT '',
    -- Not before: it has no room, or something failed.
    look_at         timestamptz      NOT NULL DEFAULT now(),
    created_at      timestamptz      NOT NULL DEFAULT now()
);
CREATE INDEX webhook_backfills_of_endpoint ON webhook_backfills (endpoint_id, id);
CREATE INDEX webhook_backfills_by_time ON webhook_backfills (look_at);

-- How receivers behave, as far as it is worth a row: those that fail, and those that are held to a rate.
CREATE TABLE webhook_receivers (
    endpoint_id   text COLLATE "C" PRIMARY KEY,
    -- Since when every attempt failed; null while the last one did not.
    failing_since timestamptz,
    -- How many deliveries failed one after the other; of a receiver that is down, how many tries of whether it still is.
    failures      integer     NOT NULL DEFAULT 0,
    -- It is down: nothing is sent before, unless it takes something meanwhile.
    down_until    timestamptz,
    -- It asked to be left in peace: nothing is sent before.
    not_before    timestamptz,
    -- When the events that were sent would all have been due, at the rate that it is held to.
    paced_until   timestamptz
);

-- Organizations have a maximum of endpoints from their creation on, where nobody set another one; those that are there
-- get it now. Replicas forget what they keep of tallies in memory.
INSERT INTO tallies (organization_id, name, maximum, partition)
    SELECT organization_id, 'webhooks', 100, partition FROM tallies WHERE name = 'members' ON CONFLICT DO NOTHING;
UPDATE installation SET ledger_revision = ledger_revision + 1;

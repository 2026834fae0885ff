-- Read models that can be rebuilt while they serve, and streams that are set aside when an event cannot be applied.

-- A read model that is being built has checkpoints of its own beside the serving one's.
ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey;
ALTER TABLE checkpoints ADD COLUMN shadow boolean NOT NULL DEFAULT false;
ALTER TABLE checkpoints ADD PRIMARY KEY (projection, version, shadow, partition);
-- An event that cannot be applied parks its stream now, and stops nothing.
ALTER TABLE checkpoints DROP COLUMN failed_at, DROP COLUMN failure;

-- Streams that a projection leaves out, from the first event on that it could not apply.
CREATE TABLE parked (
    projection      text COLLATE "C" NOT NULL,
    version         integer          NOT NULL,
    shadow          boolean          NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    -- Whose rows are made afresh when the stream is tried again: the organization's, or else the stream's own.
    owner           text COLLATE "C" NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL,
    failure         text             NOT NULL,
    parked_at       timestamptz      NOT NULL DEFAULT now(),
    tries           integer          NOT NULL DEFAULT 0,
    retry_at        timestamptz      NOT NULL,
    PRIMARY KEY (projection, version, shadow, aggregate_type, aggregate_id)
);

-- Rebuilds that were asked for and are not done. Whoever is free carries on with one that was left behind.
CREATE TABLE rebuilds (
    projection   text COLLATE "C" NOT NULL,
    version      integer          NOT NULL,
    requested_at timestamptz      NOT NULL DEFAULT now(),
    -- Which program filled what there is of the new tables; another one begins anew.
    program      text             NOT NULL DEFAULT '',
    PRIMARY KEY (projection, version)
);

-- Raised when claims and tallies were repaired: replicas then forget what they keep of them in memory.
ALTER TABLE installation ADD COLUMN ledger_revision bigint NOT NULL DEFAULT 1;

-- People whose key was destroyed. A key that comes back from a backup is destroyed again.
CREATE TABLE tombstones (
    subject_id text COLLATE "C" PRIMARY KEY,
    erased_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tombstones (subject_id, erased_at) SELECT subject_id, erased_at FROM subject_keys WHERE erased_at IS NOT NULL;

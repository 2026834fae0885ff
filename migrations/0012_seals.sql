-- What proves the audit trail: per organization an RFC 6962 Merkle tree over its events, made behind the log.

-- How far each partition is sealed. Whoever locks a row seals on from there.
CREATE TABLE seals (
    partition smallint PRIMARY KEY,
    "offset"  bigint NOT NULL DEFAULT 0
);

-- The tree as it is: what it takes to go on, and its newest signed head.
CREATE TABLE sealed_trees (
    organization_id text COLLATE "C" PRIMARY KEY,
    size            bigint           NOT NULL CHECK (size >= 0),
    -- Roots of the complete subtrees from left to right, 32 bytes each.
    peaks           bytea            NOT NULL,
    root            bytea            NOT NULL,
    note            text             NOT NULL,
    -- By which keys it is signed: only to find those that have to be signed again when the keys change.
    signed_by       text COLLATE "C" NOT NULL,
    sealed_at       timestamptz      NOT NULL,
    -- Why it is not sealed any further: the log is not what it was.
    failure         text,
    partition       smallint         NOT NULL
);

-- The keys by which heads are signed, as verifier keys. A service with none of them does not seal.
CREATE TABLE audit_keys (
    verifier text COLLATE "C" PRIMARY KEY,
    added_at timestamptz NOT NULL DEFAULT now()
);

-- Hashes of complete subtrees of 256^level leaves, 32 bytes each, from number `first` on. Whatever is sealed together
-- lies in one row; no row reaches over a multiple of 256.
CREATE TABLE sealed_hashes (
    organization_id text COLLATE "C" NOT NULL,
    level           smallint         NOT NULL,
    first           bigint           NOT NULL,
    hashes          bytea            NOT NULL,
    partition       smallint         NOT NULL,
    PRIMARY KEY (organization_id, level, first)
);
ALTER TABLE sealed_hashes ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TRIGGER sealed_hashes_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON sealed_hashes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

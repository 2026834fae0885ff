-- Erasure that is carried on after a crash, and master keys that can be changed.

-- By which master key a person's key is wrapped. A row goes when the last key that refers to it was wrapped anew, or
-- was destroyed; until then the service has to be given that master key.
CREATE TABLE master_keys (
    -- Text by which a master key is recognised, and nothing else.
    id       text COLLATE "C" PRIMARY KEY,
    -- The key of claims' hashes, wrapped by this master key: it stays the same for ever, since the hashes stand in
    -- events. Null: it is the one that follows from this master key, and is written at the next start.
    hashing  bytea,
    added_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO master_keys (id) SELECT key_check FROM installation;
ALTER TABLE subject_keys ADD COLUMN wrapped_by text COLLATE "C" REFERENCES master_keys (id);
UPDATE subject_keys SET wrapped_by = (SELECT key_check FROM installation) WHERE wrapped IS NOT NULL;
ALTER TABLE subject_keys ADD CHECK (wrapped IS NULL OR wrapped_by IS NOT NULL);
ALTER TABLE installation DROP COLUMN key_check;

-- Raised whenever keys are destroyed: replicas then forget those that they have in memory.
ALTER TABLE installation ADD COLUMN keys_revision bigint NOT NULL DEFAULT 1;

-- A tombstone is written in the commit of the event that destroys a key, and stays. Until everything that follows was
-- done, somebody looks at it again and again; whoever does moves the time at which others would.
ALTER TABLE tombstones ADD COLUMN finished_at timestamptz, ADD COLUMN next_look_at timestamptz NOT NULL DEFAULT now();
UPDATE tombstones SET finished_at = erased_at;
CREATE INDEX tombstones_unfinished ON tombstones (next_look_at) WHERE finished_at IS NULL;
CREATE INDEX tombstones_by_time ON tombstones (erased_at);

-- What was sent to somebody who accepted it is found when he is erased.
CREATE INDEX invitations_by_acceptance ON invitations_1.invitations (accepted_by) WHERE accepted_by IS NOT NULL;

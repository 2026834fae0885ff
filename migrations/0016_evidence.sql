-- What tells an event that the service wrote from one that somebody else did, who has the database.

-- A code over the event and over the code of the event before it in its partition, under a key that the database does not
-- have. Events of before are without one. It has no default: a replica of an earlier version can read on and not append.
ALTER TABLE events ADD COLUMN mac bytea NOT NULL DEFAULT '';
ALTER TABLE events ALTER COLUMN mac DROP DEFAULT;
ALTER TABLE events ALTER COLUMN mac SET STORAGE PLAIN;

-- Where the chain of a partition stands that has been sealed: its last code, and up to where events are without one.
-- `code` says under the same key that the service wrote the row. `failure`: why nothing of the partition is sealed any more.
ALTER TABLE seals ADD COLUMN mac bytea NOT NULL DEFAULT '';
ALTER TABLE seals ADD COLUMN without_mac bigint NOT NULL DEFAULT 0;
ALTER TABLE seals ADD COLUMN code bytea NOT NULL DEFAULT '';
ALTER TABLE seals ADD COLUMN failure text;
INSERT INTO seals (partition) SELECT generate_series(0, partitions - 1) FROM installation ON CONFLICT DO NOTHING;
UPDATE seals s SET without_mac = COALESCE((
    SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1
), 0);

-- That an epoch after the first was begun by `tenancy recover`, under the same key.
ALTER TABLE installation ADD COLUMN epoch_code bytea NOT NULL DEFAULT '';

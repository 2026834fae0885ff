-- The access trail is sealed as the log is: a tree of its own, whose leaves are the rows of both tables.

-- A code over the row, under the key that the database does not have. Rows of before are without one, and in no tree. It has no
-- default: a replica of an earlier version can write no more of them.
ALTER TABLE access_trail ADD COLUMN mac bytea NOT NULL DEFAULT '';
ALTER TABLE access_trail ALTER COLUMN mac DROP DEFAULT;
ALTER TABLE access_repeats ADD COLUMN mac bytea NOT NULL DEFAULT '';
ALTER TABLE access_repeats ALTER COLUMN mac DROP DEFAULT;

-- Rows that wait to be sealed. `part`: 1 of `access_trail`, 2 of `access_repeats`.
CREATE TABLE access_unsealed (
    id   text COLLATE "C" NOT NULL,
    part smallint         NOT NULL CHECK (part IN (1, 2)),
    PRIMARY KEY (id, part)
);

-- Which row is which leaf. Rows that are dropped with age lose their line here, and leave their hash.
CREATE TABLE access_seals (
    number bigint PRIMARY KEY CHECK (number > 0),
    id     text COLLATE "C" NOT NULL,
    part   smallint         NOT NULL CHECK (part IN (1, 2)),
    UNIQUE (id, part)
);
-- Up to which leaf rows were dropped with age; `code` says under the key that the service dropped them.
CREATE TABLE access_dropped (
    number bigint NOT NULL,
    code   bytea  NOT NULL,
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
CREATE TRIGGER access_seals_are_never_changed BEFORE UPDATE OR TRUNCATE ON access_seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_trail_change();

-- Where people are found by the beginning of what they are called: in an organization, or, as `users`, in the whole
-- installation. Members and users are joined in it; both projections keep it (projections/src/directory.rs).
CREATE SCHEMA directory;
CREATE TABLE directory.people (
    organization_id text COLLATE "C" NOT NULL,
    -- The folded name, the rest of it from each later word on, and the address.
    word            text COLLATE "C" NOT NULL,
    -- The membership, or of `users` the user.
    entry           text COLLATE "C" NOT NULL,
    partition       smallint         NOT NULL,
    person          text COLLATE "C" NOT NULL,
    -- Whether the entry is sorted by this word. Each entry has one such row.
    is_name         boolean          NOT NULL,
    PRIMARY KEY (organization_id, word, entry, partition)
);
CREATE INDEX people_by_name ON directory.people (organization_id, word, entry) WHERE is_name;
CREATE INDEX people_by_person ON directory.people (person, organization_id);
-- Up to which person everything was written anew; null when that is done.
CREATE TABLE directory.fill (
    after  text COLLATE "C",
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
INSERT INTO directory.fill (after) VALUES ('');

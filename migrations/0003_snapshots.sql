-- States of long streams, so that loading one does not read its whole history. Made from the log, and thrown away
-- without loss. Personal data is ciphertext here too.
CREATE TABLE snapshots (
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL,
    version        bigint           NOT NULL CHECK (version >= 1),
    -- The shape of the state; a program that has another one starts from the beginning.
    shape          integer          NOT NULL,
    state          json             NOT NULL,
    organization_id text COLLATE "C",
    PRIMARY KEY (aggregate_type, aggregate_id)
);

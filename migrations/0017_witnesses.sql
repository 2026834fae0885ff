-- What witnesses outside of the installation cosigned.

-- Of each tree the newest signed head that enough witnesses cosigned, with their lines of signatures. Readers
-- verify them by keys of their own.
CREATE TABLE witnessed_trees (
    partition       smallint         NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    epoch           bigint           NOT NULL,
    size            bigint           NOT NULL CHECK (size >= 0),
    note            text             NOT NULL,
    cosignatures    smallint         NOT NULL,
    cosigned_at     timestamptz      NOT NULL,
    PRIMARY KEY (partition, organization_id)
);

-- Streams of the audit trail to systems that watch.

-- How far each has been sent, by the name that the configuration gives it. The receiver has every event of the partition
-- up to `offset`; it may have some after that. `failing_since` and `failure`: why the next ones do not get through.
CREATE TABLE audit_streams (
    partition     smallint         NOT NULL,
    name          text COLLATE "C" NOT NULL,
    "offset"      bigint           NOT NULL CHECK ("offset" >= 0),
    sent          bigint           NOT NULL DEFAULT 0,
    sent_at       timestamptz,
    failing_since timestamptz,
    failed_at     timestamptz,
    failure       text,
    PRIMARY KEY (partition, name)
);

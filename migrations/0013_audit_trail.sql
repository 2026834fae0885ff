-- What answers about the audit trail stand on: times that were answered for, and an index beside the log.

-- Up to when answers were given of each partition: nothing is recorded there with an earlier time any more, whatever
-- the clocks of replicas say. So what an organization was as of a time is the same for ever.
CREATE TABLE answered_times (
    partition  smallint PRIMARY KEY,
    not_before timestamptz NOT NULL
);

-- By what events are found: a row for an event's action and for its actor, each within its organization, and for its
-- correlation. The term is the hash of that; whoever reads looks at the event itself besides.
CREATE SCHEMA audit_1;
CREATE TABLE audit_1.terms (
    term      bigint   NOT NULL,
    "offset"  bigint   NOT NULL,
    partition smallint NOT NULL,
    PRIMARY KEY (term, partition, "offset")
);

-- One batch: events, the net changes to claims, tallies as they are now, outcomes to be kept.
-- Claims are inserted plainly: a key that is there although the ledger says otherwise is an error, never a wrong row.
WITH new_events AS (
    INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
                        organization_id, audit_sequence, event_id, command_id, actor, on_behalf_of, ip, user_agent,
                        request_id, correlation_id, causation_id, recorded_at, mac)
    SELECT e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version, e.payload::json, e.partition,
           e.at, e.organization_id, e.audit_sequence, e.event_id, e.command_id, e.actor, e.on_behalf_of, e.ip,
           e.user_agent, e.request_id, e.correlation_id, e.causation_id, e.recorded_at, e.mac
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::bigint[],
                $9::text[], $10::bigint[], $11::text[], $12::uuid[], $13::text[], $14::text[], $15::text[], $16::text[],
                $17::text[], $18::uuid[], $19::text[], $20::timestamptz[], $41::bytea[])
         AS e(aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, at, organization_id,
              audit_sequence, event_id, command_id, actor, on_behalf_of, ip, user_agent, request_id, correlation_id,
              causation_id, recorded_at, mac)
), claim_changes AS (
    SELECT * FROM unnest($21::text[], $22::text[], $23::text[], $24::text[], $25::text[], $26::smallint[], $27::timestamptz[])
                  AS c(change, scope, key, holder, organization_id, partition, until)
), new_claims AS (
    INSERT INTO claims (scope, key, holder, organization_id, partition, until)
    SELECT scope, key, holder, organization_id, partition, until FROM claim_changes WHERE change = 'insert'
), released_claims AS (
    DELETE FROM claims USING claim_changes c WHERE c.change = 'delete' AND claims.scope = c.scope AND claims.key = c.key
), moved_claims AS (
    UPDATE claims SET holder = c.holder, organization_id = c.organization_id, partition = c.partition, until = c.until
    FROM claim_changes c WHERE c.change = 'update' AND claims.scope = c.scope AND claims.key = c.key
), new_tallies AS (
    INSERT INTO tallies (organization_id, name, used, maximum, floor, reached, partition)
    SELECT * FROM unnest($28::text[], $29::text[], $30::bigint[], $31::bigint[], $32::bigint[], $33::boolean[], $34::smallint[])
    ON CONFLICT (organization_id, name) DO UPDATE
    SET used = EXCLUDED.used, maximum = EXCLUDED.maximum, floor = EXCLUDED.floor, reached = EXCLUDED.reached
)
INSERT INTO outcomes (caller, operation, key, input, outcome, created_at)
SELECT o.caller, o.operation, o.key, o.input, o.outcome::json, $40
FROM unnest($35::text[], $36::text[], $37::text[], $38::text[], $39::text[]) AS o(caller, operation, key, input, outcome)

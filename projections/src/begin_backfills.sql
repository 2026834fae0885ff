-- Backfills to be done. One without an end ends with what its organization has now.
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
        AS w(endpoint_id, organization_id, kind, patterns, after, until)
)
INSERT INTO webhook_backfills (endpoint_id, organization_id, kind, patterns, cursor, until, stage)
SELECT w.endpoint_id, w.organization_id, w.kind, w.patterns::text[], w.after, COALESCE(w.until, (
           SELECT e.audit_sequence FROM events e WHERE e.organization_id = w.organization_id
           ORDER BY e.audit_sequence DESC LIMIT 1
       ), 0), CASE w.kind WHEN 'MISSED' THEN 'FORGET' ELSE 'EVENTS' END
FROM wanted w

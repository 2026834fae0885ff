-- How many events each of these organizations and users has, and at which offset the newest is; and what changes without
-- an event: an earlier database, repaired tables, destroyed keys.
SELECT i.epoch AS "epoch!", i.ledger_revision AS "ledger_revision!", i.keys_revision AS "keys_revision!",
       array_agg(n.number ORDER BY n.kind, n.place) AS "numbers!: Vec<i64>",
       array_agg(n."offset" ORDER BY n.kind, n.place) AS "offsets!: Vec<i64>"
FROM installation i CROSS JOIN (
    SELECT 1 AS kind, w.place, COALESCE(e.audit_sequence, 0) AS number, COALESCE(e."offset", 0) AS "offset"
    FROM unnest($1::text[]) WITH ORDINALITY AS w(id, place)
    LEFT JOIN LATERAL (
        SELECT audit_sequence, "offset" FROM events WHERE organization_id = w.id ORDER BY audit_sequence DESC LIMIT 1
    ) e ON true
    UNION ALL
    SELECT 2, w.place, COALESCE(e.sequence, 0), COALESCE(e."offset", 0)
    FROM unnest($2::text[]) WITH ORDINALITY AS w(id, place)
    LEFT JOIN LATERAL (
        SELECT sequence, "offset" FROM events WHERE aggregate_type = 'User' AND aggregate_id = w.id
        ORDER BY sequence DESC LIMIT 1
    ) e ON true
) n
GROUP BY i.epoch, i.ledger_revision, i.keys_revision

-- All that a batch is decided by, in one round trip. Each part probes an index once for each thing that was asked for.
SELECT 'installation' AS "what!", NULL AS a, NULL AS b, NULL AS c, NULL AS d, NULL AS e, epoch AS n,
       ledger_revision AS used, NULL::bigint AS maximum, NULL::bigint AS floor, NULL::boolean AS reached,
       NULL::timestamptz AS at, NULL::bytea AS mac
FROM installation
UNION ALL
SELECT 'partition', NULL, NULL, NULL, NULL, NULL, p.number, COALESCE(e."offset", 0), NULL, NULL, NULL,
       GREATEST(e.recorded_at, (SELECT not_before FROM answered_times WHERE partition = p.number)), e.mac
FROM unnest($1::smallint[]) AS p(number)
LEFT JOIN LATERAL (
    SELECT "offset", recorded_at, mac FROM events WHERE partition = p.number ORDER BY "offset" DESC LIMIT 1
) e ON true
UNION ALL
SELECT 'stream', s.type, s.id, NULL, NULL, NULL, COALESCE(e.sequence, 0), NULL, NULL, NULL, NULL, NULL, NULL
FROM unnest($2::text[], $3::text[]) AS s(type, id)
LEFT JOIN LATERAL (
    SELECT sequence FROM events WHERE aggregate_type = s.type AND aggregate_id = s.id ORDER BY sequence DESC LIMIT 1
) e ON true
UNION ALL
SELECT 'organization', o.id, t.name, NULL, NULL, NULL, COALESCE(e.audit_sequence, 0), t.used, t.maximum, t.floor,
       t.reached, NULL, NULL
FROM unnest($4::text[]) AS o(id)
LEFT JOIN LATERAL (
    SELECT audit_sequence FROM events WHERE organization_id = o.id ORDER BY audit_sequence DESC LIMIT 1
) e ON true
LEFT JOIN LATERAL (SELECT * FROM tallies WHERE organization_id = o.id) t ON true
UNION ALL
SELECT 'claim', k.scope, k.key, c.holder, c.organization_id, NULL, NULL, NULL, NULL, NULL, NULL, c.until, NULL
FROM unnest($5::text[], $6::text[]) AS k(scope, key)
LEFT JOIN LATERAL (SELECT * FROM claims WHERE scope = k.scope AND key = k.key) c ON true
UNION ALL
SELECT 'outcome', o.caller, o.operation, o.key, o.input, o.outcome::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM unnest($7::text[], $8::text[], $9::text[]) AS w(caller, operation, key)
CROSS JOIN LATERAL (
    SELECT * FROM outcomes WHERE caller = w.caller AND operation = w.operation AND key = w.key
) o

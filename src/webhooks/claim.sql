-- Takes deliveries that are due, for `lease` seconds. Of each endpoint only the first few that are due may be under way,
-- whoever has them: so a receiver that hangs keeps its own few and nobody else's, over all replicas, without counting.
-- Which endpoints have anything open is found by one probe of the index for each, however much they have. Where there is not
-- room for all, each endpoint has its first before any has its second, and no organization more than its share.
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
        SELECT d.endpoint_id FROM webhook_deliveries d
        WHERE d.due_at IS NOT NULL AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1
    ) n
), able AS (
    SELECT e.id, e.organization_id, $7::bigint - COALESCE(u.count, 0) AS share, CASE WHEN r.failures >= $4::integer THEN 1 ELSE $3::bigint END AS places,
           CASE WHEN p.rate IS NOT NULL THEN GREATEST(0, floor(0.001 + p.rate * LEAST(1, extract(epoch FROM
               statement_timestamp() + interval '1 second' - GREATEST(r.paced_until, statement_timestamp())
           ))))::bigint END AS pace
    FROM waiting w
    JOIN webhook_endpoints e ON e.id = w.endpoint_id
    LEFT JOIN webhook_receivers r ON r.endpoint_id = e.id
    LEFT JOIN unnest($6::text[], $8::bigint[]) AS u(organization_id, count) ON u.organization_id = e.organization_id
    CROSS JOIN LATERAL (SELECT COALESCE(e.rate_per_second, NULLIF($5::bigint, 0)) AS rate) p
    WHERE e.state = 'ENABLED' AND NOT e.deleted AND statement_timestamp() >= ALL (ARRAY[COALESCE(r.not_before, '-infinity'), COALESCE(r.down_until, '-infinity')])
      AND COALESCE(u.count, 0) < $7::bigint
), candidates AS (
    SELECT c.id FROM (
        SELECT f.id, f.place, a.share,
               row_number() OVER (PARTITION BY a.organization_id ORDER BY f.place, random()) AS number
        FROM able a CROSS JOIN LATERAL (
            SELECT g.id, row_number() OVER (ORDER BY g.due_at) AS place FROM (
                SELECT d.id, d.leased_until, d.due_at FROM webhook_deliveries d
                WHERE d.endpoint_id = a.id AND d.due_at <= statement_timestamp() ORDER BY d.due_at LIMIT a.places
            ) g
            WHERE g.leased_until IS NULL OR g.leased_until <= statement_timestamp()
        ) f
        WHERE a.pace IS NULL OR f.place <= a.pace
    ) c
    WHERE c.number <= c.share
    ORDER BY c.place, random() LIMIT $1::bigint
), taken AS (
    SELECT d.id FROM webhook_deliveries d
    WHERE d.id = ANY(ARRAY(SELECT id FROM candidates)) AND d.due_at <= statement_timestamp()
      AND (d.leased_until IS NULL OR d.leased_until <= statement_timestamp())
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE webhook_deliveries d SET leased_until = statement_timestamp() + make_interval(secs => $2::float8)
    FROM taken t WHERE d.id = t.id
    RETURNING d.id, d.endpoint_id, d.event_id, d.subject_id, d.leased_until, d.due_at, d.tries
), paced AS (
    INSERT INTO webhook_receivers AS r (endpoint_id, paced_until)
    SELECT l.endpoint_id, statement_timestamp() + make_interval(secs => count(*) / p.rate::float8)
    FROM leased l
    CROSS JOIN LATERAL (SELECT COALESCE(rate_per_second, NULLIF($5::bigint, 0)) AS rate FROM webhook_endpoints e WHERE e.id = l.endpoint_id) p
    WHERE p.rate IS NOT NULL GROUP BY l.endpoint_id, p.rate ORDER BY l.endpoint_id
    ON CONFLICT (endpoint_id) DO UPDATE SET
        paced_until = GREATEST(r.paced_until, statement_timestamp()) + (EXCLUDED.paced_until - statement_timestamp())
)
SELECT l.id AS "id!", l.endpoint_id AS "endpoint!", e.organization_id AS "organization!", l.event_id AS "event!",
       l.subject_id AS subject, l.leased_until AS "leased_until!", l.tries AS "tries!",
       extract(epoch FROM statement_timestamp() - l.due_at)::float8 AS "late_seconds!",
       e.url AS "url!", e.content AS "content!", e.secrets AS "secrets!: Json<Vec<aggregates::webhook::Secret>>"
FROM leased l CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints e WHERE e.id = l.endpoint_id) e

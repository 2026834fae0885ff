-- Takes deliveries that are due, for `lease` seconds. Of each endpoint only the first few that are due may be under way,
-- whoever has them: so a receiver that hangs keeps its own few and nobody else's, over all replicas, without counting.
-- Which endpoints have anything open is found by one probe of the index for each, however much they have.
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
        SELECT d.endpoint_id FROM webhook_deliveries d
        WHERE d.due_at IS NOT NULL AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1
    ) n
), able AS MATERIALIZED (
    SELECT e.id, e.url, e.content, e.secrets, e.version, p.rate,
           LEAST(
               CASE WHEN r.failures >= $4::integer THEN 1 ELSE $3::bigint END,
               CASE WHEN p.rate IS NULL THEN $3::bigint ELSE GREATEST(0, floor(p.rate * LEAST(1, extract(epoch FROM
                   clock_timestamp() + interval '1 second' - GREATEST(r.paced_until, clock_timestamp())
               ))))::bigint END
           ) AS room
    FROM waiting w
    JOIN webhook_endpoints e ON e.id = w.endpoint_id
    LEFT JOIN webhook_receivers r ON r.endpoint_id = e.id
    CROSS JOIN LATERAL (SELECT COALESCE(e.rate_per_second, NULLIF($5::bigint, 0)) AS rate) p
    WHERE e.state = 'ENABLED' AND NOT e.deleted AND (r.not_before IS NULL OR r.not_before <= clock_timestamp())
), candidates AS (
    SELECT c.id FROM able a CROSS JOIN LATERAL (
        SELECT d.id, d.leased_until FROM webhook_deliveries d
        WHERE d.endpoint_id = a.id AND d.due_at <= clock_timestamp() ORDER BY d.due_at LIMIT a.room
    ) c
    WHERE c.leased_until IS NULL OR c.leased_until <= clock_timestamp()
    LIMIT $1::bigint
), taken AS (
    SELECT d.id FROM webhook_deliveries d
    WHERE d.id = ANY(ARRAY(SELECT id FROM candidates)) AND d.due_at <= clock_timestamp()
      AND (d.leased_until IS NULL OR d.leased_until <= clock_timestamp())
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE webhook_deliveries d SET leased_until = clock_timestamp() + make_interval(secs => $2::float8)
    FROM taken t WHERE d.id = t.id
    RETURNING d.id, d.endpoint_id, d.event_id, d.subject_id, d.leased_until, d.due_at, d.tries, d.attempts
), paced AS (
    INSERT INTO webhook_receivers AS r (endpoint_id, paced_until)
    SELECT a.id, clock_timestamp() + make_interval(secs => count(*) / a.rate::float8)
    FROM able a JOIN leased l ON l.endpoint_id = a.id WHERE a.rate IS NOT NULL GROUP BY a.id, a.rate
    ON CONFLICT (endpoint_id) DO UPDATE SET
        paced_until = GREATEST(r.paced_until, clock_timestamp()) + (EXCLUDED.paced_until - clock_timestamp())
)
SELECT l.id AS "id!", l.endpoint_id AS "endpoint!", l.event_id AS "event!",
       l.subject_id AS subject, l.leased_until AS "leased_until!", l.tries AS "tries!", l.attempts AS "attempts!: Json<Vec<Attempt>>",
       extract(epoch FROM clock_timestamp() - l.due_at)::float8 AS "late_seconds!",
       a.url AS "url!", a.content AS "content!", a.secrets AS "secrets!: Json<Vec<aggregates::webhook::Secret>>"
FROM leased l JOIN able a ON a.id = l.endpoint_id

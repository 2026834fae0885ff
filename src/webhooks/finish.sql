-- Records what became of deliveries. What failed counts only while the lease holds: else somebody else is at it. What
-- arrived has arrived.
WITH result AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::timestamptz[], $5::smallint[], $6::text[])
        AS r(id, state, pause, leased_until, tries, attempts)
), done AS (
    UPDATE webhook_deliveries d SET
        state = r.state, leased_until = NULL, tries = r.tries, attempts = r.attempts::json,
        due_at = CASE WHEN r.pause IS NOT NULL THEN clock_timestamp() + make_interval(secs => r.pause) END,
        finished_at = CASE WHEN r.pause IS NULL THEN clock_timestamp() END
    FROM result r
    WHERE d.id = r.id AND d.due_at IS NOT NULL AND (r.state = 'SUCCEEDED' OR d.leased_until = r.leased_until)
), well AS (
    UPDATE webhook_receivers w SET failing_since = NULL, failures = 0, not_before = NULL
    FROM unnest($7::text[]) AS s(endpoint_id) WHERE w.endpoint_id = s.endpoint_id AND w.failing_since IS NOT NULL
)
INSERT INTO webhook_receivers AS i (endpoint_id, failing_since, failures, not_before)
SELECT f.endpoint_id, clock_timestamp(), f.failures, clock_timestamp() + make_interval(secs => f.pause)
FROM unnest($8::text[], $9::integer[], $10::float8[]) AS f(endpoint_id, failures, pause)
ON CONFLICT (endpoint_id) DO UPDATE SET
    failing_since = COALESCE(i.failing_since, EXCLUDED.failing_since),
    failures = i.failures + EXCLUDED.failures,
    not_before = GREATEST(i.not_before, EXCLUDED.not_before)
RETURNING endpoint_id, failures, failing_since AS "failing_since!"

-- Records what became of deliveries, and how their receivers behave. What failed counts only while the lease holds: else
-- somebody else is at it. What arrived has arrived. A receiver that took anything is well; one that asked for peace has it
-- all the same, and one that is down has more of it each time.
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
)
INSERT INTO webhook_receivers AS i (endpoint_id, failing_since, failures, not_before)
SELECT f.endpoint_id, CASE WHEN NOT f.well THEN clock_timestamp() END, f.failures,
       CASE WHEN f.peace > 0 THEN clock_timestamp() + make_interval(secs => f.peace) END
FROM unnest($7::text[], $8::boolean[], $9::integer[], $10::float8[]) AS f(endpoint_id, well, failures, peace)
WHERE NOT f.well OR f.peace > 0
   OR EXISTS (SELECT FROM webhook_receivers k WHERE k.endpoint_id = f.endpoint_id AND k.failing_since IS NOT NULL)
ORDER BY f.endpoint_id
ON CONFLICT (endpoint_id) DO UPDATE SET
    failing_since = CASE WHEN EXCLUDED.failing_since IS NOT NULL THEN COALESCE(i.failing_since, EXCLUDED.failing_since) END,
    failures = CASE WHEN EXCLUDED.failing_since IS NOT NULL THEN i.failures + EXCLUDED.failures ELSE 0 END,
    not_before = GREATEST(i.not_before, EXCLUDED.not_before, CASE
        WHEN EXCLUDED.failing_since IS NOT NULL AND i.failures + EXCLUDED.failures >= $11::integer
        THEN clock_timestamp() + make_interval(secs => LEAST($12::float8, power(2, LEAST(i.failures + EXCLUDED.failures - $11, 20))))
    END)

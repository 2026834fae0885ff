-- Records what became of deliveries, and how their receivers behave. What failed counts only while the lease holds: else
-- somebody else is at it. What arrived has arrived; but where the lease was taken from it meanwhile, what the receiver
-- answered is not kept. A receiver that took anything is well, yet has the peace that it asked for; one that is down has
-- twice the pause each time that it was tried and still is.
WITH result AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::timestamptz[], $5::smallint[], $6::text[])
        AS r(id, state, pause, leased_until, tries, attempt)
), done AS (
    UPDATE webhook_deliveries d SET
        state = r.state, leased_until = NULL, tries = r.tries,
        attempts = CASE
            WHEN r.attempt IS NULL THEN d.attempts
            -- Most arrive at once, and putting a list together costs more than all the rest.
            WHEN d.attempts::text = '[]' AND d.leased_until = r.leased_until THEN ('[' || r.attempt || ']')::json
            ELSE (SELECT json_agg(a.attempt ORDER BY a.number) FROM (
                SELECT attempt, number FROM json_array_elements(d.attempts) WITH ORDINALITY AS of(attempt, number)
                UNION ALL
                SELECT CASE WHEN d.leased_until = r.leased_until THEN r.attempt::json
                            ELSE (r.attempt::jsonb - 'responseExcerpt')::json END, 1 + json_array_length(d.attempts)
                ORDER BY number DESC LIMIT $12
            ) a)
        END,
        due_at = CASE WHEN r.pause IS NOT NULL THEN clock_timestamp() + make_interval(secs => r.pause) END,
        finished_at = CASE WHEN r.pause IS NULL THEN clock_timestamp() END
    FROM result r
    WHERE d.id = r.id AND d.due_at IS NOT NULL AND (r.state = 'SUCCEEDED' OR d.leased_until = r.leased_until)
)
INSERT INTO webhook_receivers AS i (endpoint_id, failing_since, failures, down_until, not_before)
SELECT f.endpoint_id, CASE WHEN NOT f.well THEN clock_timestamp() END,
       CASE WHEN f.well THEN 0 ELSE LEAST(f.failures, $11::integer) END,
       CASE WHEN NOT f.well AND f.failures >= $11 THEN clock_timestamp() + interval '1 second' END,
       CASE WHEN f.peace > 0 THEN clock_timestamp() + make_interval(secs => f.peace) END
FROM unnest($7::text[], $8::boolean[], $9::integer[], $10::float8[]) AS f(endpoint_id, well, failures, peace)
WHERE NOT f.well OR f.peace > 0
   OR EXISTS (SELECT FROM webhook_receivers k WHERE k.endpoint_id = f.endpoint_id AND k.failing_since IS NOT NULL)
ORDER BY f.endpoint_id
ON CONFLICT (endpoint_id) DO UPDATE SET (failing_since, failures, down_until, not_before) = (
    SELECT CASE WHEN n.failing THEN COALESCE(i.failing_since, EXCLUDED.failing_since) END,
           n.failures,
           CASE WHEN n.failures < $11 THEN NULL
                WHEN n.failures = i.failures THEN i.down_until
                ELSE clock_timestamp() + make_interval(secs => LEAST($13::float8, power(2, LEAST(n.failures - $11, 20)))) END,
           GREATEST(i.not_before, EXCLUDED.not_before)
    FROM (
        SELECT EXCLUDED.failing_since IS NOT NULL AS failing, CASE
            WHEN EXCLUDED.failing_since IS NULL THEN 0
            WHEN i.failures < $11 THEN LEAST(i.failures + EXCLUDED.failures, $11)
            -- Of those that were under way when it was found to be down nothing is learnt.
            WHEN i.down_until > clock_timestamp() THEN i.failures
            ELSE i.failures + 1 END AS failures
    ) n
)

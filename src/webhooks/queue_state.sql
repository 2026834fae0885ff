-- The state of the queue. The oldest delivery that is due is looked for once an endpoint.
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
        SELECT d.endpoint_id FROM webhook_deliveries d
        WHERE d.due_at IS NOT NULL AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1
    ) n
)
SELECT GREATEST(0, COALESCE(extract(epoch FROM statement_timestamp() - min(first.due_at)), 0))::float8
           AS "oldest_due_seconds!",
       (SELECT count(*) FROM webhook_endpoints WHERE state = 'DISABLED' AND NOT deleted) AS "endpoints_disabled!",
       (SELECT count(*) FROM webhook_receivers WHERE failing_since IS NOT NULL) AS "endpoints_failing!"
FROM waiting w JOIN webhook_endpoints e ON e.id = w.endpoint_id AND e.state = 'ENABLED' AND NOT e.deleted
CROSS JOIN LATERAL (
    SELECT d.due_at FROM webhook_deliveries d
    WHERE d.endpoint_id = e.id AND d.due_at <= statement_timestamp() ORDER BY d.due_at LIMIT 1
) first

-- Endpoints that have deliveries or a receiver and are in no read model. Each is found by one probe of the index, however
-- many deliveries it has.
WITH RECURSIVE known AS (
    (SELECT endpoint_id FROM webhook_deliveries ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id FROM known k CROSS JOIN LATERAL (
        SELECT d.endpoint_id FROM webhook_deliveries d
        WHERE d.endpoint_id > k.endpoint_id ORDER BY d.endpoint_id LIMIT 1
    ) n
)
SELECT k.endpoint_id AS "endpoint_id!"
FROM (SELECT endpoint_id FROM known UNION SELECT endpoint_id FROM webhook_receivers) k
WHERE NOT EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = k.endpoint_id AND NOT e.deleted)

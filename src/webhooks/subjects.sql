-- Subjects of an endpoint with open deliveries, in order. Each is found by one probe of the index.
WITH RECURSIVE subjects AS (
    (SELECT subject_id, 1 AS number FROM webhook_deliveries
     WHERE endpoint_id = $1 AND due_at IS NOT NULL AND subject_id > $2 ORDER BY subject_id LIMIT 1)
    UNION ALL
    SELECT n.subject_id, s.number + 1 FROM subjects s CROSS JOIN LATERAL (
        SELECT d.subject_id FROM webhook_deliveries d
        WHERE d.endpoint_id = $1 AND d.due_at IS NOT NULL AND d.subject_id > s.subject_id
        ORDER BY d.subject_id LIMIT 1
    ) n WHERE s.number < $3::integer
)
SELECT subject_id AS "subject_id!" FROM subjects ORDER BY subject_id

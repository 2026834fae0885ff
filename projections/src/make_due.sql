-- For each endpoint and subject, schedules the oldest open delivery, unless an earlier backfill is unfinished.
UPDATE webhook_deliveries d SET due_at = clock_timestamp()
FROM unnest($1::text[], $2::text[]) AS s(endpoint_id, subject_id)
CROSS JOIN LATERAL (
    SELECT n.id, n.audit_sequence, n.due_at FROM webhook_deliveries n
    WHERE n.endpoint_id = s.endpoint_id AND n.subject_id = s.subject_id AND n.due_at IS NOT NULL
    ORDER BY n.audit_sequence LIMIT 1
) first
WHERE d.id = first.id AND first.due_at = 'infinity' AND NOT EXISTS (
    SELECT FROM webhook_backfills b
    WHERE b.endpoint_id = s.endpoint_id AND b.kind = 'MISSED' AND b.stage <> 'RELEASE'
      AND b.cursor < first.audit_sequence
)

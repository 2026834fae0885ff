-- Destroys the keys of what began in a stretch of an organization's trail, and says that keys are others now.
WITH destroyed AS (
    UPDATE subject_keys SET wrapped = NULL, wrapped_by = NULL, erased_at = now()
    WHERE wrapped IS NOT NULL AND subject_id IN (
        SELECT aggregate_id FROM events
        WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
          AND aggregate_type = ANY($4) AND sequence = 1
    )
    RETURNING subject_id
)
UPDATE installation SET keys_revision = keys_revision + 1 WHERE EXISTS (SELECT FROM destroyed)

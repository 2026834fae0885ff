-- Secrets of endpoints that no endpoint signs with any more, as far as the read model says.
SELECT k.subject_id, k.created_at, now() AS "now!" FROM subject_keys k
WHERE k.subject_id > GREATEST($1, 'whk_') AND k.subject_id < 'whk`' AND k.wrapped IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM webhook_endpoints e CROSS JOIN LATERAL json_array_elements(e.secrets) s
      WHERE e.id = split_part(k.subject_id, '#', 1) AND NOT e.deleted
        AND s ->> 'number' = split_part(k.subject_id, '#', 2)
        AND COALESCE((s ->> 'until')::timestamptz > now(), true)
  )
ORDER BY k.subject_id LIMIT $2

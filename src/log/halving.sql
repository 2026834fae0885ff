-- The last audit sequence of the organization $1 whose event fits: `fits()` stands for the condition.
WITH RECURSIVE search(low, high) AS (
    SELECT 0::bigint, COALESCE((
        SELECT audit_sequence FROM events WHERE organization_id = $1 ORDER BY audit_sequence DESC LIMIT 1
    ), 0)
    UNION ALL
    SELECT CASE WHEN e.fits THEN h.middle ELSE h.low END, CASE WHEN e.fits THEN h.high ELSE h.middle - 1 END
    FROM (SELECT low, high, (low + high + 1) / 2 AS middle FROM search WHERE low < high) h
    CROSS JOIN LATERAL (
        SELECT fits() AS fits FROM events WHERE organization_id = $1 AND audit_sequence = h.middle
    ) e
)
SELECT low FROM search WHERE low = high

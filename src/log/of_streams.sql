-- The next events of these streams within a part of the organization's trail. In braces stand the columns, where to begin in a
-- stream, the bound by which that is found, the order and the limit.
SELECT {columns} FROM (
    SELECT e.* FROM unnest($1::text[], $2::text[]) AS s(type, id)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN organization_id = $3 THEN sequence ELSE 0 END AS top FROM events
        WHERE aggregate_type = s.type AND aggregate_id = s.id ORDER BY sequence DESC LIMIT 1
    ) t
    CROSS JOIN LATERAL (
        WITH RECURSIVE search(low, high) AS (
            SELECT 0::bigint, t.top
            UNION ALL
            SELECT CASE WHEN e.fits THEN h.middle ELSE h.low END,
                   CASE WHEN e.fits THEN h.high ELSE h.middle - 1 END
            FROM (SELECT low, high, (low + high + 1) / 2 AS middle FROM search WHERE low < high) h
            CROSS JOIN LATERAL (
                SELECT {bound} AS fits FROM events
                WHERE aggregate_type = s.type AND aggregate_id = s.id AND sequence = h.middle
            ) e
        )
        SELECT low FROM search WHERE low = high
    ) b
    CROSS JOIN LATERAL (
        SELECT {columns} FROM events
        WHERE aggregate_type = s.type AND aggregate_id = s.id AND {from}
        ORDER BY sequence {order} LIMIT {limit}
    ) e
) e
WHERE audit_sequence > $4 AND audit_sequence < $5 ORDER BY audit_sequence {order} LIMIT {limit}

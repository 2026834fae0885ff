-- Of an organization's access trail in a period, records of some kinds, those alike as one: the same kind, operation and
-- caller, and the same moment where each is wanted ($5). The most frequent come first, or the newest.
SELECT kind, operation, actor, sum(t.times + COALESCE(r.times, 0))::bigint AS times,
       min(t.created_at) AS first, max(t.created_at) AS last, count(*) OVER () AS groups
FROM access_trail t LEFT JOIN access_repeats r USING (id)
WHERE organization_id = $1 AND ($2::timestamptz IS NULL OR t.created_at >= $2) AND t.created_at <= $3 AND kind = ANY($4)
GROUP BY kind, operation, actor, CASE WHEN $5 THEN t.id END
ORDER BY CASE WHEN $5 THEN 0 ELSE sum(t.times + COALESCE(r.times, 0)) END DESC, max(t.created_at) DESC, actor, operation
LIMIT $6

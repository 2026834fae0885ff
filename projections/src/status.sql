-- How far the projections of this version are, and how long the next event of each has waited.
SELECT c.projection, c.shadow, c.partition, c."offset", COALESCE(h.head, 0) AS "head!",
       COALESCE(GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - n.recorded_at), 0), 0)::float8 AS "lag_seconds!"
FROM unnest($1::text[], $2::int[]) AS p(name, version)
JOIN checkpoints c ON c.projection = p.name AND c.version = p.version
LEFT JOIN LATERAL (
    SELECT "offset" AS head FROM events WHERE partition = c.partition ORDER BY "offset" DESC LIMIT 1
) h ON true
LEFT JOIN events n ON n.partition = c.partition AND n."offset" = c."offset" + 1
ORDER BY c.projection, c.partition

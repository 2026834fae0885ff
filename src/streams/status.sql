-- How each stream stands: over its partitions, beside the log.
SELECT s.name AS "name!",
       array_agg(s.partition ORDER BY s.partition) AS "partitions!",
       array_agg(s."offset" ORDER BY s.partition) AS "offsets!",
       sum(s.sent)::bigint AS "sent!",
       max(s.sent_at) AS sent_at,
       sum(GREATEST(0, COALESCE(newest."offset", 0) - s."offset"))::bigint AS "lag_events!",
       GREATEST(0, COALESCE(extract(epoch FROM now() - min(next.recorded_at)), 0))::float8 AS "lag_seconds!",
       min(s.failing_since) AS failing_since,
       max(s.failed_at) AS failed_at,
       (array_agg(s.failure ORDER BY s.failed_at DESC NULLS LAST))[1] AS failure
FROM audit_streams s
LEFT JOIN LATERAL (
    SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT recorded_at FROM events WHERE partition = s.partition AND "offset" > s."offset" ORDER BY "offset" LIMIT 1
) next ON true
GROUP BY s.name
ORDER BY s.name

WITH new AS (
    INSERT INTO access_repeats (id, created_at, times, mac)
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::bytea[]) ON CONFLICT (id) DO NOTHING RETURNING id
)
INSERT INTO access_unsealed (id, part) SELECT id, 2 FROM new ON CONFLICT DO NOTHING

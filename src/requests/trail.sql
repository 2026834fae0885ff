WITH new AS (
    INSERT INTO access_trail (id, created_at, kind, actor, operation, organization_id, reached_organization_id, target_id,
                              times, ip, mac)
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::bigint[], $10::text[], $11::bytea[])
    ON CONFLICT (id) DO NOTHING RETURNING id
)
INSERT INTO access_unsealed (id, part) SELECT id, 1 FROM new ON CONFLICT DO NOTHING

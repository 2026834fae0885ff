-- Whether a read model is behind these offsets, and whether a stream is parked that keeps it from showing them.
WITH wanted AS (SELECT * FROM unnest($3::smallint[], $4::bigint[]) AS w(number, at)),
     own AS (SELECT * FROM unnest($1::text[], $2::int[]) AS p(name, version))
SELECT EXISTS (
           SELECT FROM own CROSS JOIN wanted JOIN checkpoints c
               ON c.projection = own.name AND c.version = own.version AND c.partition = wanted.number
           WHERE NOT c.shadow AND c."offset" < wanted.at
       ) AS "behind!",
       EXISTS (
           SELECT FROM own CROSS JOIN wanted JOIN parked k
               ON k.projection = own.name AND k.version = own.version AND k.partition = wanted.number
           JOIN events e ON e.partition = wanted.number AND e."offset" = wanted.at
           WHERE NOT k.shadow AND k."offset" <= wanted.at
             AND k.owner = COALESCE(e.organization_id, e.aggregate_id)
       ) AS "parked!"

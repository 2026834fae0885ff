-- Gives these rows of the access trail the next numbers, once: those that wait lose their line.
WITH last AS (
    SELECT GREATEST(
        (SELECT max(number) FROM access_seals), (SELECT size FROM sealed_trees WHERE organization_id = $3), 0
    ) AS number
), sealed AS (
    INSERT INTO access_seals (number, id, part)
    SELECT last.number + r.place, r.id, r.part
    FROM last CROSS JOIN unnest($1::text[], $2::smallint[]) WITH ORDINALITY AS r(id, part, place)
)
DELETE FROM access_unsealed u USING unnest($1::text[], $2::smallint[]) AS r(id, part)
WHERE u.id = r.id AND u.part = r.part

-- Drops some rows that are older than so many days, each with its line in the seals: its hash stays. The newest one that is
-- sealed is kept, so that a trail of which nothing is left was not emptied by age.
WITH old AS (
    SELECT id, part FROM (
        (SELECT id, 1::smallint AS part FROM access_trail WHERE created_at < now() - make_interval(days => $1) LIMIT $2)
        UNION ALL
        (SELECT id, 2::smallint FROM access_repeats WHERE created_at < now() - make_interval(days => $1) LIMIT $2)
    ) o WHERE id IS DISTINCT FROM (SELECT id FROM access_seals ORDER BY number DESC LIMIT 1)
), records AS (
    DELETE FROM access_trail t USING old WHERE t.id = old.id AND old.part = 1
), repeats AS (
    DELETE FROM access_repeats t USING old WHERE t.id = old.id AND old.part = 2
)
DELETE FROM access_seals s USING old WHERE s.id = old.id AND s.part = old.part

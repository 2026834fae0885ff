-- Whoever makes a schema of read models calls this once when its tables are there: owner, privileges and policies are
-- then those of every other. The roles are made beside the migrations, because they belong to the whole server
-- (src/database/roles.sql).
--
-- tenancy_reader sees the rows that name one of the ids in the setting tenancy.scope, which holds for one transaction:
-- an organization, or the caller himself, or the keyed hash of his address. Without it he sees nothing. The list is
-- looked at by a hashed subquery: read once a statement, and never taken for a way into an index.
CREATE FUNCTION protect_read_model(schema text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    relation regclass;
    named    text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = schema AND nspowner = 'tenancy_projector'::regrole) THEN
        EXECUTE format('ALTER SCHEMA %I OWNER TO tenancy_projector', schema);
    END IF;
    IF NOT has_schema_privilege('tenancy_reader', schema, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tenancy_writer, tenancy_reader, tenancy_operator', schema);
    END IF;
    FOR relation IN
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = schema AND c.relkind = 'r'
          AND NOT (c.relrowsecurity AND c.relowner = 'tenancy_projector'::regrole
                   AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'everything'))
        ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO tenancy_projector', relation);
        EXECUTE format('GRANT SELECT ON %s TO tenancy_writer, tenancy_reader, tenancy_operator', relation);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('DROP POLICY IF EXISTS everything ON %s', relation);
        EXECUTE format('DROP POLICY IF EXISTS in_scope ON %s', relation);
        EXECUTE format('CREATE POLICY everything ON %s FOR SELECT TO tenancy_writer, tenancy_operator USING (true)',
                       relation);
        -- By whom a row is named; the row of an organization or of a user by its own id. A table that has none of
        -- these columns shows a reader nothing.
        SELECT string_agg(format('%I IN (SELECT unnest(string_to_array(current_setting(''tenancy.scope'', true), '','')))',
                                 attname), ' OR ' ORDER BY attnum)
        INTO named FROM pg_attribute
        WHERE attrelid = relation AND NOT attisdropped AND (
            attname IN ('organization_id', 'user_id', 'email_claim')
            OR attname = 'id' AND NOT EXISTS (
                SELECT FROM pg_attribute o WHERE o.attrelid = relation AND o.attname = 'organization_id' AND NOT o.attisdropped
            )
        );
        IF named IS NOT NULL THEN
            EXECUTE format('CREATE POLICY in_scope ON %s FOR SELECT TO tenancy_reader USING (%s)', relation, named);
        END IF;
    END LOOP;
END
$$;

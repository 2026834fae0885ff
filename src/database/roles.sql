-- The roles that the service works under, and what each may do. Run by the owner of the database after its migrations,
-- at every start: it changes what is missing, and locks nothing when nothing is.
DO $$
DECLARE
    role    name;
    member  boolean;
    may     record;
    allowed text;
BEGIN
    PERFORM set_config('client_min_messages', 'warning', true);

    -- Roles belong to the whole server, so another database may make them at the same time.
    FOREACH role IN ARRAY '{tenancy_writer,tenancy_projector,tenancy_reader,tenancy_operator}'::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        -- Since PostgreSQL 16 whoever makes a role may grant it, and is no member by that.
        member := pg_has_role(role, 'USAGE');
        IF member AND current_setting('server_version_num')::integer >= 160000 THEN
            member := pg_has_role(role, 'SET');
        END IF;
        IF NOT member THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role);
        END IF;
    END LOOP;

    -- Replicas that start together.
    PERFORM pg_advisory_xact_lock(hashtext('tenancy roles'));

    -- A rebuild makes schemas, and a check makes temporary tables; nobody else makes anything.
    IF NOT has_database_privilege('tenancy_projector', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO tenancy_projector', current_database());
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF has_schema_privilege('tenancy_reader', 'public', 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;

    FOR may IN SELECT * FROM (VALUES
        ('tenancy_writer', 'events', '{SELECT,INSERT}'::text[]),
        ('tenancy_writer', 'claims', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_writer', 'tallies', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_writer', 'outcomes', '{SELECT,INSERT,DELETE}'),
        ('tenancy_writer', 'snapshots', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_writer', 'subject_keys', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'tombstones', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'master_keys', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_writer', 'installation', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'access_trail', '{SELECT,INSERT,DELETE}'),
        ('tenancy_writer', 'access_repeats', '{SELECT,INSERT,DELETE}'),
        ('tenancy_writer', 'access_unsealed', '{SELECT,INSERT}'),
        ('tenancy_writer', 'access_seals', '{SELECT,DELETE}'),
        ('tenancy_writer', 'access_dropped', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'answered_times', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'token_uses', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_writer', 'audit_keys', '{SELECT,INSERT}'),
        ('tenancy_writer', 'seals', '{SELECT,UPDATE}'),
        ('tenancy_writer', 'sealed_trees', '{SELECT}'),
        ('tenancy_writer', 'installation_trail', '{SELECT}'),
        ('tenancy_writer', 'sealed_hashes', '{SELECT}'),
        ('tenancy_writer', 'witnessed_trees', '{SELECT}'),
        ('tenancy_writer', 'checkpoints', '{SELECT}'),
        ('tenancy_writer', 'parked', '{SELECT}'),
        ('tenancy_writer', 'rebuilds', '{SELECT}'),
        ('tenancy_writer', 'webhook_deliveries', '{SELECT,UPDATE}'),
        ('tenancy_writer', 'webhook_receivers', '{SELECT}'),
        ('tenancy_writer', 'webhook_backfills', '{SELECT}'),
        ('tenancy_writer', 'audit_streams', '{SELECT}'),
        ('tenancy_writer', '_sqlx_migrations', '{SELECT}'),
        ('tenancy_projector', 'events', '{SELECT}'),
        ('tenancy_projector', 'installation', '{SELECT}'),
        ('tenancy_projector', 'checkpoints', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_projector', 'parked', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_projector', 'rebuilds', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_projector', 'seals', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_projector', 'sealed_trees', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_projector', 'sealed_hashes', '{SELECT,INSERT}'),
        ('tenancy_projector', 'witnessed_trees', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_projector', 'access_trail', '{SELECT}'),
        ('tenancy_projector', 'access_repeats', '{SELECT}'),
        ('tenancy_projector', 'access_unsealed', '{SELECT,DELETE}'),
        ('tenancy_projector', 'access_seals', '{SELECT,INSERT}'),
        ('tenancy_projector', 'installation_trail', '{SELECT,INSERT}'),
        ('tenancy_projector', 'audit_streams', '{SELECT,INSERT,UPDATE}'),
        ('tenancy_projector', 'webhook_deliveries', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_projector', 'webhook_backfills', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_projector', 'webhook_receivers', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('tenancy_reader', 'events', '{SELECT}'),
        ('tenancy_reader', 'webhook_deliveries', '{SELECT}'),
        ('tenancy_reader', 'access_trail', '{SELECT}'),
        ('tenancy_reader', 'access_repeats', '{SELECT}'),
        ('tenancy_operator', 'events', '{SELECT}'),
        ('tenancy_operator', 'access_trail', '{SELECT}'),
        ('tenancy_operator', 'access_repeats', '{SELECT}'),
        ('tenancy_operator', 'webhook_deliveries', '{SELECT}'),
        ('tenancy_operator', 'checkpoints', '{SELECT}'),
        ('tenancy_operator', 'parked', '{SELECT}'),
        ('tenancy_operator', 'rebuilds', '{SELECT}')
    ) AS v(who, relation, privileges)
    LOOP
        FOREACH allowed IN ARRAY may.privileges LOOP
            IF NOT has_table_privilege(may.who, may.relation::regclass, allowed) THEN
                EXECUTE format('GRANT %s ON %s TO %I', allowed, may.relation::regclass, may.who);
            END IF;
        END LOOP;
    END LOOP;

    -- A policy that names a role is lost in a dump that is restored where the role is not.
    IF 3 > (SELECT count(*) FROM pg_policy WHERE polrelid = 'events'::regclass) THEN
        DROP POLICY IF EXISTS everything ON events;
        DROP POLICY IF EXISTS append ON events;
        DROP POLICY IF EXISTS in_scope ON events;
        ALTER TABLE events ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON events FOR SELECT TO tenancy_writer, tenancy_projector, tenancy_operator USING (true);
        CREATE POLICY append ON events FOR INSERT TO tenancy_writer WITH CHECK (true);
        CREATE POLICY in_scope ON events FOR SELECT TO tenancy_reader
            USING (organization_id IN (SELECT unnest(string_to_array(current_setting('tenancy.scope', true), ','))));
    END IF;
    IF 4 > (SELECT count(*) FROM pg_policy WHERE polrelid = 'webhook_deliveries'::regclass) THEN
        DROP POLICY IF EXISTS everything ON webhook_deliveries;
        DROP POLICY IF EXISTS delivery ON webhook_deliveries;
        DROP POLICY IF EXISTS erasure ON webhook_deliveries;
        DROP POLICY IF EXISTS in_scope ON webhook_deliveries;
        ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON webhook_deliveries FOR SELECT TO tenancy_writer, tenancy_operator USING (true);
        CREATE POLICY delivery ON webhook_deliveries TO tenancy_projector USING (true) WITH CHECK (true);
        CREATE POLICY erasure ON webhook_deliveries FOR UPDATE TO tenancy_writer USING (true) WITH CHECK (true);
        CREATE POLICY in_scope ON webhook_deliveries FOR SELECT TO tenancy_reader
            USING (organization_id IN (SELECT unnest(string_to_array(current_setting('tenancy.scope', true), ','))));
    END IF;
    IF 4 > (SELECT count(*) FROM pg_policy WHERE polrelid = 'access_trail'::regclass) THEN
        DROP POLICY IF EXISTS sealing ON access_trail;
        DROP POLICY IF EXISTS everything ON access_trail;
        DROP POLICY IF EXISTS operators ON access_trail;
        DROP POLICY IF EXISTS in_scope ON access_trail;
        ALTER TABLE access_trail ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON access_trail TO tenancy_writer USING (true) WITH CHECK (true);
        CREATE POLICY operators ON access_trail FOR SELECT TO tenancy_operator USING (true);
        CREATE POLICY sealing ON access_trail FOR SELECT TO tenancy_projector USING (true);
        CREATE POLICY in_scope ON access_trail FOR SELECT TO tenancy_reader
            USING (organization_id IN (SELECT unnest(string_to_array(current_setting('tenancy.scope', true), ','))));
    END IF;
    IF 4 > (SELECT count(*) FROM pg_policy WHERE polrelid = 'access_repeats'::regclass) THEN
        DROP POLICY IF EXISTS sealing ON access_repeats;
        DROP POLICY IF EXISTS everything ON access_repeats;
        DROP POLICY IF EXISTS operators ON access_repeats;
        DROP POLICY IF EXISTS in_scope ON access_repeats;
        ALTER TABLE access_repeats ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON access_repeats TO tenancy_writer USING (true) WITH CHECK (true);
        CREATE POLICY operators ON access_repeats FOR SELECT TO tenancy_operator USING (true);
        CREATE POLICY sealing ON access_repeats FOR SELECT TO tenancy_projector USING (true);
        -- Of a record that the reader sees.
        CREATE POLICY in_scope ON access_repeats FOR SELECT TO tenancy_reader
            USING (EXISTS (SELECT FROM access_trail t WHERE t.id = access_repeats.id));
    END IF;
END
$$;

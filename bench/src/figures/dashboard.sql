SELECT json_build_object('data', json_build_object('organization', json_build_object(
    'id', o.id, 'slug', o.slug, 'name', o.name, 'verification', o.verification, 'lifecycle', o.lifecycle,
    'plan', o.plan, 'version', o.version, 'createdAt', o.created_at,
    'limits', json_build_array(
        json_build_object('name', 'members', 'maximum', tm.maximum, 'used', tm.used),
        json_build_object('name', 'projects', 'maximum', tp.maximum, 'used', coalesce(tp.used, 0)),
        json_build_object('name', 'tokens', 'maximum', tt.maximum, 'used', coalesce(tt.used, 0)),
        json_build_object('name', 'webhooks', 'maximum', tw.maximum, 'used', coalesce(tw.used, 0))),
    'members', m.list, 'projects', p.list, 'invitations', i.list, 'auditTrail', json_build_object('nodes', e.nodes)
)))
FROM bench_picks k JOIN organizations o ON o.id = k.id
LEFT JOIN tallies tm ON tm.organization_id = o.id AND tm.name = 'members'
LEFT JOIN tallies tp ON tp.organization_id = o.id AND tp.name = 'projects'
LEFT JOIN tallies tt ON tt.organization_id = o.id AND tt.name = 'tokens'
LEFT JOIN tallies tw ON tw.organization_id = o.id AND tw.name = 'webhooks'
CROSS JOIN LATERAL (
    SELECT json_build_object(
        'nodes', coalesce(json_agg(json_build_object('id', r.id, 'roles', r.roles, 'state', r.state, 'source', r.source,
            'joinedAt', r.joined_at, 'user', json_build_object('id', u.id, 'name', u.name, 'email', u.email))
            ORDER BY r.created_at, r.id) FILTER (WHERE r.place <= 10), '[]'),
        'pageInfo', json_build_object('hasNextPage', count(*) > 10)) AS list
    FROM (SELECT *, row_number() OVER (ORDER BY created_at, id) AS place FROM members
          WHERE organization_id = o.id AND state <> 'REMOVED' ORDER BY created_at, id LIMIT 11) r
    LEFT JOIN users u ON u.id = r.user_id
) m
CROSS JOIN LATERAL (
    SELECT json_build_object(
        'nodes', coalesce(json_agg(json_build_object('id', r.id, 'slug', r.slug, 'name', r.name, 'state', r.state,
            'metadata', r.metadata, 'createdAt', r.created_at, 'version', r.version)
            ORDER BY r.created_at, r.id) FILTER (WHERE r.place <= 5), '[]'),
        'pageInfo', json_build_object('hasNextPage', count(*) > 5)) AS list
    FROM (SELECT *, row_number() OVER (ORDER BY created_at, id) AS place FROM projects
          WHERE organization_id = o.id AND state <> 'DELETED' ORDER BY created_at, id LIMIT 6) r
) p
CROSS JOIN LATERAL (
    SELECT json_build_object(
        'nodes', coalesce(json_agg(json_build_object('id', r.id, 'email', r.email, 'roles', r.roles, 'state', r.state,
            'expiresAt', r.expires_at) ORDER BY r.created_at, r.id) FILTER (WHERE r.place <= 10), '[]'),
        'pageInfo', json_build_object('hasNextPage', count(*) > 10)) AS list
    FROM (SELECT *, row_number() OVER (ORDER BY created_at, id) AS place FROM invitations
          WHERE organization_id = o.id AND state = 'PENDING' AND expires_at > now()
          ORDER BY created_at, id LIMIT 11) r
) i
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object('id', r.event_id, 'action', a.action, 'subjectId', r.aggregate_id,
        'sequence', r.sequence, 'auditSequence', r.audit_sequence, 'recordedAt', r.recorded_at,
        'actor', json_build_object('id', split_part(r.actor, ':', 2), 'label', coalesce(u.name, u.email, u.id)))
        ORDER BY r.audit_sequence), '[]') AS nodes
    FROM (SELECT * FROM events WHERE organization_id = o.id ORDER BY audit_sequence DESC LIMIT 10) r
    JOIN bench_actions a ON a.event_type = r.event_type
    LEFT JOIN users u ON u.id = split_part(r.actor, ':', 2)
) e
WHERE k.number = :number

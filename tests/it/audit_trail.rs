//! The audit trail by its filters: each is right, alone and with others, and costs no more where there is more.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aggregates::ids::{EventId, Id, OrganizationId, ProjectId, UserId};
use aggregates::project::ProjectEvent;
use aggregates::user::{UserEvent, UserState};
use aggregates::{Actor, Event, Origin, Recorded, StreamId};
use chrono::{DateTime, Utc};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::json;
use sqlx::PgPool;
use tenancy::database::embedded::Purpose;
use tenancy::log::{AuditCursor, AuditFilter, AuditPage, Direction, Draft, Log, Outcome};
use tenancy::service::Core;
use uuid::Uuid;

use crate::support::{Database, eventually};

fn created(number: usize) -> Event {
    let (name, slug) = (format!("Project {number}"), format!("p{}", Uuid::new_v4().simple()));
    ProjectEvent::ProjectCreated { name, slug, metadata: json!({}), created_at: Utc::now(), reason: None }.into()
}

fn changed(number: usize) -> Event {
    match number % 3 {
        0 => ProjectEvent::ProjectArchived { reason: None }.into(),
        1 => ProjectEvent::ProjectUnarchived { reason: None }.into(),
        _ => {
            let (name, previous_name) = (format!("Name {number}"), "before".to_owned());
            ProjectEvent::ProjectRenamed { name, previous_name, reason: None }.into()
        }
    }
}

/// Some organizations and people, and what they do.
struct World {
    organizations: Vec<OrganizationId>,
    actors: Vec<Actor>,
    correlations: Vec<Uuid>,
    projects: Vec<(OrganizationId, ProjectId, u64)>,
}

impl World {
    fn new() -> Self {
        let users: Vec<UserId> = (0..3).map(|_| UserId::random()).collect();
        let mut actors: Vec<Actor> = users.iter().cloned().map(Actor::User).collect();
        actors.extend([Actor::Operator(users[0].clone()), Actor::System]);
        Self {
            organizations: (0..5).map(|_| OrganizationId::random()).collect(),
            actors,
            correlations: (0..6).map(|_| Uuid::new_v4()).collect(),
            projects: vec![],
        }
    }

    async fn go_on(&mut self, log: &Log, steps: usize) {
        for number in 0..steps {
            let (organization, write) = {
                let mut chance = rand::rng();
                let known = (!self.projects.is_empty()).then(|| chance.random_range(0..self.projects.len()));
                match chance.random_range(0..10) {
                    0..6 if known.is_some() => {
                        let (organization, project, version) = &mut self.projects[known.unwrap()];
                        *version += 1;
                        (Some(organization.clone()), (project.clone().into(), *version - 1, vec![changed(number)]))
                    }
                    9 => {
                        let user = UserId::random();
                        let event = UserEvent::UserApproved { user_state: UserState::Active, reason: None }.into();
                        (None, (StreamId::from(user), 0, vec![event]))
                    }
                    _ => {
                        // One has nearly everything.
                        let place = chance.random_range(0..12_usize).saturating_sub(7);
                        let (organization, project) = (self.organizations[place].clone(), ProjectId::random());
                        let events = vec![created(number), changed(number)];
                        self.projects.push((organization.clone(), project.clone(), 2));
                        (Some(organization), (project.into(), 0, events))
                    }
                }
            };
            let origin = {
                let mut chance = rand::rng();
                Origin {
                    command_id: Uuid::new_v4(),
                    actor: self.actors.choose(&mut chance).unwrap().clone(),
                    on_behalf_of: None,
                    ip: None,
                    user_agent: None,
                    request_id: None,
                    correlation_id: *self.correlations.choose(&mut chance).unwrap(),
                    causation_id: None,
                }
            };
            let draft = Draft { organization, relied: vec![], held: None, writes: vec![write], origin };
            let outcome = log.append(log.seal(draft).await.unwrap()).await.unwrap();
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        }
    }

    /// A filter as by chance, by what there is in `events`.
    fn filter(&self, events: &[Recorded]) -> AuditFilter {
        let mut chance = rand::rng();
        let mut filter = AuditFilter::default();
        let some = |chance: &mut rand::rngs::ThreadRng| events.choose(chance).cloned();
        // A condition that comes twice names several values, or one twice.
        for _ in 0..chance.random_range(1..=4) {
            match chance.random_range(0..6) {
                0 => filter.event_types.extend(some(&mut chance).map(|e| e.event.descriptor().name.to_owned())),
                1 => filter.actors.extend(
                    some(&mut chance).map(|e| e.origin.actor.id().map_or("system".to_owned(), ToString::to_string)),
                ),
                2 => filter.subjects.extend(some(&mut chance).map(|e| e.stream.id().to_owned())),
                3 => filter.since = some(&mut chance).map(|e| e.recorded_at),
                4 => filter.until = some(&mut chance).map(|e| e.recorded_at),
                _ => filter.correlation = some(&mut chance).map(|e| e.origin.correlation_id),
            }
        }
        filter
    }
}

/// The whole filter, written once more.
fn wanted(filter: &AuditFilter, event: &Recorded) -> bool {
    let actor = event.origin.actor.id().map_or("system".to_owned(), ToString::to_string);
    (filter.event_types.is_empty() || filter.event_types.contains(&event.event.descriptor().name.to_owned()))
        && (filter.actors.is_empty() || filter.actors.contains(&actor))
        && (filter.subjects.is_empty() || filter.subjects.contains(&event.stream.id().to_owned()))
        && filter.since.is_none_or(|since| event.recorded_at >= since)
        && filter.until.is_none_or(|until| event.recorded_at < until)
        && filter.correlation.is_none_or(|correlation| event.origin.correlation_id == correlation)
}

fn page(organization: Option<&OrganizationId>, filter: AuditFilter, direction: Direction, limit: usize) -> AuditPage {
    AuditPage { organization: organization.cloned(), filter, direction, after: None, before: None, limit }
}

/// All events that a filter finds, page by page, in ascending order; and how many pages that took.
async fn all(log: &Log, mut page: AuditPage) -> (Vec<EventId>, usize) {
    let (mut found, mut pages): (Vec<EventId>, usize) = (vec![], 0);
    loop {
        let slice = log.audit_trail(&page).await.unwrap();
        pages += 1;
        assert!(slice.events.len() <= page.limit);
        let ids = slice.events.iter().map(|event| event.id.clone());
        match page.direction {
            Direction::First => found.extend(ids),
            Direction::Last => found = ids.chain(found.clone()).collect(),
        }
        match (slice.more, page.direction) {
            (None, _) => return (found, pages),
            (more, Direction::First) => page.after = more,
            (more, Direction::Last) => page.before = more,
        }
    }
}

async fn core(database: &Database) -> Core {
    Core::open(&database.config(&[]), Purpose::Command).await.unwrap()
}

/// Every event of the log.
async fn everything(log: &Log, pool: &PgPool) -> Vec<Recorded> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT event_id FROM events").fetch_all(pool).await.unwrap();
    log.events(&ids).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_what_a_plain_look_at_every_event_finds() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log().clone();
    let pool = database.pool().await;
    let mut world = World::new();
    // Behind the index, half behind it, and level with it.
    for round in 0..3 {
        world.go_on(&log, 150).await;
        if round == 2 {
            core.catch_up().await.unwrap();
        }
        let events = everything(&log, &pool).await;
        for _ in 0..120 {
            let organization = rand::rng().random_bool(0.7).then(|| world.organizations[0].clone());
            let own = |event: &&Recorded| organization.is_none() || event.organization == organization;
            let filter = world.filter(&events);
            let mut expected: Vec<&Recorded> = events.iter().filter(own).filter(|e| wanted(&filter, e)).collect();
            match organization {
                Some(_) => expected.sort_by_key(|event| event.audit_sequence),
                None => expected.sort_by_key(|event| (event.recorded_at, event.id.to_string())),
            }
            let expected: Vec<EventId> = expected.iter().map(|event| event.id.clone()).collect();
            for direction in [Direction::First, Direction::Last] {
                let limit = *[1, 2, 3, 7, 20, 99, 100].choose(&mut rand::rng()).unwrap();
                let (found, pages) = all(&log, page(organization.as_ref(), filter.clone(), direction, limit)).await;
                assert_eq!(found, expected, "round {round}, {organization:?}, {direction:?}, {limit}: {filter:?}");
                assert_eq!(pages, expected.len().div_ceil(limit).max(1), "no page is short here: {filter:?}");
            }
        }
        if round == 0 {
            core.catch_up().await.unwrap();
        }
    }
    drop(log);
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_read_while_events_arrive_has_each_once_and_in_order() {
    let database = Database::new().await;
    let server = database.serve().await;
    let log = server.service().core().commands.log().clone();
    let pool = database.pool().await;
    let mut world = World::new();
    world.go_on(&log, 100).await;
    let before = everything(&log, &pool).await;
    let organization = world.organizations[0].clone();
    let filters: Vec<AuditFilter> = vec![
        AuditFilter::default(),
        AuditFilter { event_types: vec!["ProjectArchived".to_owned()], ..AuditFilter::default() },
        AuditFilter { actors: vec!["system".to_owned()], ..AuditFilter::default() },
        AuditFilter { correlation: Some(world.correlations[0]), ..AuditFilter::default() },
    ];
    let read = async {
        let mut found = vec![];
        for filter in &filters {
            for direction in [Direction::First, Direction::Last] {
                found.push((filter, all(&log, page(Some(&organization), filter.clone(), direction, 3)).await.0));
            }
        }
        found
    };
    let ((), found) = tokio::join!(world.go_on(&log, 400), read);
    let after = everything(&log, &pool).await;
    let own = |events: &[Recorded], filter: &AuditFilter| {
        let mut own: Vec<&Recorded> =
            events.iter().filter(|e| e.organization.as_ref() == Some(&organization) && wanted(filter, e)).collect();
        own.sort_by_key(|event| event.audit_sequence);
        own.iter().map(|event| event.id.clone()).collect::<Vec<_>>()
    };
    for (filter, found) in found {
        // Everything that was there, and of what arrived the first, without a gap.
        assert!(found.len() >= own(&before, filter).len(), "{filter:?}");
        assert_eq!(found, own(&after, filter)[..found.len()], "{filter:?}");
    }
    drop(log);
    server.stop().await;
}

/// Makes an organization's trail longer by copies of its last event, with other places.
async fn lengthen(pool: &PgPool, organization: &OrganizationId, events: i64) {
    sqlx::query(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
               organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           SELECT e.aggregate_type, e.aggregate_id, e.sequence + n, e.event_type, e.event_version, e.payload, e.partition,
               e."offset" + n, e.organization_id, e.audit_sequence + n,
               'evt_0' || substr(md5(n::text || e.event_id), 1, 25), gen_random_uuid(), e.actor,
               gen_random_uuid(), e.recorded_at + n * interval '1 microsecond', ''
           FROM (SELECT * FROM events WHERE organization_id = $1 ORDER BY audit_sequence DESC LIMIT 1) e,
                generate_series(1, $2) AS n"#,
    )
    .bind(organization.to_string())
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
}

/// How many rows of the log, and of the index beside it, were looked at so far, and how often the log was read through.
async fn looked_at(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT sum(COALESCE(idx_tup_fetch, 0) + seq_tup_read)::bigint, sum(seq_scan)::bigint FROM pg_stat_user_tables
         WHERE relname IN ('events', 'terms')",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// The same when nothing more is told: a connection tells when it ends.
async fn rested(pool: &PgPool) -> (i64, i64) {
    let last = AtomicI64::new(-1);
    eventually("the figures rest", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = looked_at(pool).await.0;
        last.swap(now, Ordering::Relaxed) == now
    })
    .await;
    looked_at(pool).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_the_same_however_long_the_trail_is() {
    let database = Database::new().await;
    let mut costs: Vec<Vec<i64>> = vec![];
    let mut world = World::new();
    let (rare, subject): (Actor, ProjectId) = (Actor::User(UserId::random()), ProjectId::random());
    let correlation = Uuid::new_v4();
    let organization = world.organizations[0].clone();
    for length in [2_000, 30_000] {
        let opened = core(&database).await;
        let log = opened.commands.log().clone();
        if costs.is_empty() {
            // Few at the beginning, and everything else after.
            let origin = Origin {
                command_id: Uuid::new_v4(),
                actor: rare.clone(),
                on_behalf_of: None,
                ip: None,
                user_agent: None,
                request_id: None,
                correlation_id: correlation,
                causation_id: None,
            };
            let events = (0..5).map(|number| if number == 0 { created(0) } else { changed(2) }).collect();
            let writes = vec![(subject.clone().into(), 0, events)];
            let draft = Draft { organization: Some(organization.clone()), relied: vec![], held: None, writes, origin };
            assert!(matches!(log.append(log.seal(draft).await.unwrap()).await.unwrap(), Outcome::Accepted { .. }));
            let origin = Origin {
                command_id: Uuid::new_v4(),
                actor: Actor::System,
                on_behalf_of: None,
                ip: None,
                user_agent: None,
                request_id: None,
                correlation_id: Uuid::new_v4(),
                causation_id: None,
            };
            let project = ProjectId::random();
            world.projects.push((organization.clone(), project.clone(), 2));
            let writes = vec![(project.into(), 0, vec![created(1), changed(0)])];
            let draft = Draft { organization: Some(organization.clone()), relied: vec![], held: None, writes, origin };
            assert!(matches!(log.append(log.seal(draft).await.unwrap()).await.unwrap(), Outcome::Accepted { .. }));
        }
        let pool = database.pool().await;
        lengthen(&pool, &organization, length).await;
        eventually("the index is level", async || {
            opened.catch_up().await.unwrap();
            projections::status(&pool).await.unwrap().iter().all(|status| status.lag_events() == 0)
        })
        .await;
        sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        drop(log);
        opened.close().await.unwrap();
        let times: Vec<DateTime<Utc>> = sqlx::query_scalar(
            "SELECT recorded_at FROM events WHERE organization_id = $1 AND audit_sequence IN (6, 1500) ORDER BY 1",
        )
        .bind(organization.to_string())
        .fetch_all(&pool)
        .await
        .unwrap();
        let filters = [
            AuditFilter { event_types: vec!["ProjectRenamed".to_owned()], ..AuditFilter::default() },
            AuditFilter { actors: vec![rare.id().unwrap().to_string()], ..AuditFilter::default() },
            AuditFilter { actors: vec!["system".to_owned()], ..AuditFilter::default() },
            AuditFilter { subjects: vec![subject.to_string()], ..AuditFilter::default() },
            AuditFilter { correlation: Some(correlation), ..AuditFilter::default() },
            AuditFilter { since: Some(times[1]), ..AuditFilter::default() },
            AuditFilter { until: Some(times[0]), ..AuditFilter::default() },
            AuditFilter { since: Some(times[0]), until: Some(times[1]), ..AuditFilter::default() },
            AuditFilter::default(),
        ];
        let mut own = vec![];
        for filter in filters {
            let (before, scans) = rested(&pool).await;
            let opened = core(&database).await;
            let log = opened.commands.log().clone();
            let mut found = 0;
            for direction in [Direction::First, Direction::Last] {
                found += log
                    .audit_trail(&page(Some(&organization), filter.clone(), direction, 20))
                    .await
                    .unwrap()
                    .events
                    .len();
            }
            drop(log);
            opened.close().await.unwrap();
            let (after, scans_after) = rested(&pool).await;
            assert!(found > 0 && scans_after == scans, "{filter:?}: {found} found, {} scans", scans_after - scans);
            assert!(after - before < 1_500, "{filter:?} looked at {} rows of {length}", after - before);
            own.push(after - before);
        }
        costs.push(own);
    }
    for (short, long) in costs[0].iter().zip(&costs[1]) {
        assert!(*long <= short + 60, "{costs:?}");
    }

    // Several conditions of which none helps end a page early, and the next ones find everything.
    let opened = core(&database).await;
    let log = opened.commands.log().clone();
    let filter = AuditFilter {
        event_types: vec!["ProjectArchived".to_owned()],
        actors: vec!["system".to_owned(), rare.id().unwrap().to_string()],
        since: None,
        ..AuditFilter::default()
    };
    let none = AuditFilter {
        event_types: vec!["ProjectRenamed".to_owned()],
        actors: vec!["system".to_owned()],
        ..filter.clone()
    };
    for direction in [Direction::First, Direction::Last] {
        let slice = log.audit_trail(&page(Some(&organization), none.clone(), direction, 20)).await.unwrap();
        assert!(slice.events.is_empty() && matches!(slice.more, Some(AuditCursor::Sequence(_))), "{slice:?}");
        let (found, pages) = all(&log, page(Some(&organization), none.clone(), direction, 20)).await;
        assert!(found.is_empty() && (6..=9).contains(&pages), "{pages}");
        let slice = log.audit_trail(&page(None, none.clone(), direction, 20)).await.unwrap();
        assert!(slice.events.is_empty() && matches!(slice.more, Some(AuditCursor::Time(..))), "{slice:?}");
    }
    let (found, _) =
        all(&log, page(Some(&organization), AuditFilter { since: None, ..filter }, Direction::First, 100)).await;
    let distinct: BTreeSet<&EventId> = found.iter().collect();
    assert_eq!((found.len(), distinct.len()), (32_001, 32_001));
    drop(log);
    opened.close().await.unwrap();

    // A client goes on from where it was looked, though nothing was found there.
    let server = database.serve().await;
    let query = "query($filter: AuditFilter, $after: String) { auditTrail(filter: $filter, first: 20, after: $after) {
        nodes { id } edges { cursor } pageInfo { hasNextPage startCursor endCursor } } }";
    let (mut after, mut pages) = (json!(null), 0);
    loop {
        let filter = json!({"actions": ["PROJECT_RENAMED"], "actorIds": ["system"]});
        let answer = server.operator().query(query, json!({"filter": filter, "after": after})).await;
        let page = answer.at("/auditTrail");
        assert!(page["nodes"] == json!([]) && page["edges"] == json!([]), "{page}");
        pages += 1;
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert!((6..=9).contains(&pages), "{pages}");
    server.stop().await;
}

//! The log itself: what it refuses, what others can read of it, and the traps of the libraries below it.

use std::collections::BTreeMap;
use std::time::Duration;

use aggregates::ids::{Id, OrganizationId, ProjectId, UserId};
use aggregates::project::ProjectEvent;
use aggregates::{Actor, Event, Origin, Project, StreamId};
use chrono::Utc;
use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore};
use cqrs_es::{Aggregate, EventStore};
use futures_util::future::join_all;
use postgres_es::PostgresEventRepository;
use projections::{Entry, Range, Source};
use serde_json::json;
use sqlx::PgPool;
use tenancy::database::embedded::Purpose;
use tenancy::log::{Draft, Log, LogError, Outcome};
use tenancy::service::Core;
use uuid::Uuid;

use crate::support::{Database, check_log};

async fn core(database: &Database) -> Core {
    Core::open(&database.config(&[]), Purpose::Command).await.unwrap()
}

fn origin() -> Origin {
    Origin {
        command_id: Uuid::new_v4(),
        actor: Actor::User(UserId::random()),
        on_behalf_of: None,
        ip: Some("192.0.2.7".into()),
        user_agent: Some("a test".into()),
        request_id: None,
        correlation_id: Uuid::new_v4(),
        causation_id: None,
    }
}

fn created(slug: &str) -> Event {
    ProjectEvent::ProjectCreated {
        name: slug.to_owned(),
        slug: slug.to_owned(),
        metadata: json!({}),
        created_at: Utc::now(),
        reason: None,
    }
    .into()
}

fn draft(organization: &OrganizationId, stream: impl Into<StreamId>, expected: u64, events: Vec<Event>) -> Draft {
    let writes = vec![(stream.into(), expected, events)];
    Draft { organization: Some(organization.clone()), relied: vec![], held: None, writes, origin: origin() }
}

async fn append(log: &Log, draft: Draft) -> Result<Outcome, LogError> {
    log.append(log.seal(draft).await?).await
}

async fn rows(pool: &PgPool) -> (i64, i64, i64, i64) {
    let statement = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM claims), (SELECT count(*) FROM tallies), (SELECT count(*) FROM outcomes)";
    sqlx::query_as(statement).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_to_change_history() {
    let database = Database::new().await;
    let core = core(&database).await;
    append(core.commands.log(), draft(&OrganizationId::random(), ProjectId::random(), 0, vec![created("a")]))
        .await
        .unwrap();
    let pool = database.pool().await;
    for statement in ["UPDATE events SET payload = '{}'", "DELETE FROM events", "TRUNCATE events"] {
        let refused = sqlx::query(statement).execute(&pool).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_append_leaves_nothing() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let (organization, project) = (OrganizationId::random(), ProjectId::random());
    append(log, draft(&organization, project.clone(), 0, vec![created("a")])).await.unwrap();
    let pool = database.pool().await;
    let before = rows(&pool).await;
    let conflict = append(log, draft(&organization, project.clone(), 0, vec![created("b")])).await.unwrap();
    assert!(matches!(conflict, Outcome::Conflict { actual: 1, .. }), "{conflict:?}");
    let taken = append(log, draft(&organization, ProjectId::random(), 0, vec![created("a")])).await.unwrap();
    assert!(matches!(taken, Outcome::Taken { .. }), "{taken:?}");
    let mut relied = draft(&organization, ProjectId::random(), 0, vec![created("c")]);
    relied.relied = vec![(project.into(), 7)];
    assert!(matches!(append(log, relied).await.unwrap(), Outcome::Conflict { actual: 1, .. }));
    assert_eq!(rows(&pool).await, before);
    core.close().await.unwrap();
}

/// cqrs-es applies one aggregate a transaction; here several streams stand or fall together.
#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_written_whole_or_not_at_all() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let organization = OrganizationId::random();
    let (a, b) = (ProjectId::random(), ProjectId::random());
    let both = |expected: u64, names: [&str; 2]| {
        let mut draft = draft(&organization, a.clone(), 0, vec![created(names[0])]);
        draft.writes.push((b.clone().into(), expected, vec![created(names[1])]));
        draft
    };
    assert!(matches!(append(log, both(3, ["a", "b"])).await.unwrap(), Outcome::Conflict { .. }));
    assert_eq!(rows(&database.pool().await).await.0, 0);
    assert!(
        matches!(append(log, both(0, ["a", "b"])).await.unwrap(), Outcome::Accepted { events } if events.len() == 2)
    );
    core.close().await.unwrap();
}

/// postgres-es inserts events one round trip each, and one command a transaction; here what is queued together is
/// committed together.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_wait_together_are_committed_together() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let organization = OrganizationId::random();
    let appends = join_all(
        (0..200).map(|i| log.seal(draft(&organization, ProjectId::random(), 0, vec![created(&format!("p{i}"))]))),
    )
    .await;
    let outcomes = join_all(appends.into_iter().map(|append| log.append(append.unwrap()))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Accepted { .. }))));
    let pool = database.pool().await;
    let transactions: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM events").fetch_one(&pool).await.unwrap();
    assert!(transactions <= 20, "200 commands took {transactions} transactions");
    check_log(&pool).await;
    core.close().await.unwrap();
}

/// postgres-es binds sequences as 32-bit integers.
#[tokio::test(flavor = "multi_thread")]
async fn sequences_go_past_32_bits() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let (organization, project) = (OrganizationId::random(), ProjectId::random());
    let partition = log.partition_of(organization.as_ref());
    let pool = database.pool().await;
    sqlx::query(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
                organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           VALUES ('Project', $1, 2147483648, 'ProjectArchived', '1.0', '{"ProjectArchived": {"reason": null}}', $2, 5000000000,
                $3, 5000000000, 'evt_x', gen_random_uuid(), 'system', gen_random_uuid(), now(), '')"#,
    )
    .bind(project.as_ref())
    .bind(partition)
    .bind(organization.as_ref())
    .execute(&pool)
    .await
    .unwrap();
    let next =
        draft(&organization, project, 2_147_483_648, vec![ProjectEvent::ProjectUnarchived { reason: None }.into()]);
    let Outcome::Accepted { events } = append(log, next).await.unwrap() else { panic!("refused") };
    assert_eq!(
        (events[0].sequence, events[0].offset, events[0].audit_sequence),
        (2_147_483_649, 5_000_000_001, Some(5_000_000_001))
    );
    core.close().await.unwrap();
}

/// cqrs-es's snapshot modes apply events twice; here a state is the same however it is come by.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_the_same_from_memory_from_the_log_and_from_its_beginning() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let (organization, project) = (OrganizationId::random(), ProjectId::random());
    append(log, draft(&organization, project.clone(), 0, vec![created("p0")])).await.unwrap();
    for version in 1..15 {
        let rename = ProjectEvent::ProjectSlugChanged {
            slug: format!("p{version}"),
            previous_slug: format!("p{}", version - 1),
            reason: None,
        };
        append(log, draft(&organization, project.clone(), version, vec![rename.into()])).await.unwrap();
    }
    let cached = log.load::<Project>(&project).await.unwrap();
    log.bring_up_to_date(&[project.clone().into()]).await.unwrap();
    let compared = log.load::<Project>(&project).await.unwrap();
    let whole = log.load_at(&project.clone().into(), 15).await.unwrap().get::<Project>().unwrap();
    assert_eq!((cached.version, compared.version, whole.version), (15, 15, 15));
    assert_eq!((&cached.state, &compared.state), (&whole.state, &whole.state));
    assert_eq!(log.load_at(&project.clone().into(), 7).await.unwrap().get::<Project>().unwrap().state.slug, "p6");
    core.close().await.unwrap();
}

/// A snapshot that is behind, wrong or of another shape changes no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_loaded_from_a_snapshot_and_the_rest() {
    let database = Database::new().await;
    let organization = OrganizationId::random();
    let project = ProjectId::random();
    let first = core(&database).await;
    let log = first.commands.log();
    append(log, draft(&organization, project.clone(), 0, vec![created("p0")])).await.unwrap();
    for version in 1..150 {
        let rename =
            ProjectEvent::ProjectRenamed { name: format!("n{version}"), previous_name: String::new(), reason: None };
        append(log, draft(&organization, project.clone(), version, vec![rename.into()])).await.unwrap();
    }
    first.close().await.unwrap();
    let pool = database.pool().await;
    let kept = "SELECT max(version) FROM snapshots WHERE aggregate_id = $1";
    let load = async |expected: &str, version: u64| {
        let core = core(&database).await;
        let loaded = core.commands.log().load::<Project>(&project).await.unwrap();
        assert_eq!(
            (loaded.state.name.as_str(), loaded.version, loaded.organization.as_ref()),
            (expected, version, Some(&organization))
        );
        let whole =
            core.commands.log().load_at(&project.clone().into(), version).await.unwrap().get::<Project>().unwrap();
        assert_eq!(loaded.state, whole.state);
        core
    };
    load("n149", 150).await.close().await.unwrap();
    let version: Option<i64> = sqlx::query_scalar(kept).bind(project.as_ref()).fetch_one(&pool).await.unwrap();
    assert_eq!(version, Some(150));
    let core = load("n149", 150).await;
    let rename = ProjectEvent::ProjectRenamed { name: "last".into(), previous_name: String::new(), reason: None };
    append(core.commands.log(), draft(&organization, project.clone(), 150, vec![rename.into()])).await.unwrap();
    core.close().await.unwrap();
    load("last", 151).await.close().await.unwrap();
    for broken in ["state = '{}'", "shape = 99"] {
        sqlx::query(&format!("UPDATE snapshots SET {broken}")).execute(&pool).await.unwrap();
        load("last", 151).await.close().await.unwrap();
    }
}

/// In cqrs-es a failed replay reports success.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_named_twice_is_read_once() {
    let database = Database::new().await;
    let writing = core(&database).await;
    let (organization, project) = (OrganizationId::random(), ProjectId::random());
    append(writing.commands.log(), draft(&organization, project.clone(), 0, vec![created("a")])).await.unwrap();
    writing.close().await.unwrap();
    // Nothing is in memory yet.
    let core = core(&database).await;
    let stream = StreamId::from(project.clone());
    let now = core.commands.log().current(&[stream.clone(), organization.into(), stream]).await.unwrap();
    assert_eq!(now.get::<Project>(&project).version, 1);
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_an_error_and_no_empty_state() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let (organization, project) = (OrganizationId::random(), ProjectId::random());
    let pool = database.pool().await;
    sqlx::query(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
                organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           VALUES ('Project', $1, 1, 'ProjectExploded', '1.0', '{"ProjectExploded": {}}', $2, 1, $3, 1, $4,
                gen_random_uuid(), 'system', gen_random_uuid(), now(), '')"#,
    )
    .bind(project.as_ref())
    .bind(log.partition_of(organization.as_ref()))
    .bind(organization.as_ref())
    .bind(aggregates::ids::EventId::random().as_ref())
    .execute(&pool)
    .await
    .unwrap();
    let error = log.load::<Project>(&project).await.unwrap_err();
    assert!(matches!(&error, LogError::Corrupt(reason) if reason.contains("ProjectExploded")), "{error}");
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_es_reads_the_same_table() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.organization("acme", &owner).await;
    owner.organization_command("submitOrganizationForVerification", &id).await;
    let input = json!({"organizationId": id, "contactEmail": "ada@example.com"});
    assert!(owner.run("updateOrganization", "UpdateOrganizationInput", input, "__typename").await.accepted());
    let pool = database.pool().await;
    let repository = PostgresEventRepository::new(pool.clone());
    let stored = repository.get_events::<aggregates::Organization>(&id).await.unwrap();
    assert_eq!(stored.len(), 3);
    let store = PersistedEventStore::<PostgresEventRepository, aggregates::Organization>::new_event_store(repository);
    let mut state = aggregates::Organization::default();
    for envelope in store.load_events(&id).await.unwrap() {
        state.apply(envelope.payload);
    }
    assert_eq!((state.slug.as_str(), state.status.verification), ("acme", aggregates::status::Verification::Pending));
    assert!(state.contact_email.unwrap().is_sealed(), "personal data is ciphertext to whoever has no keys");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_of_a_person_and_no_secret_lies_in_the_log() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner-person@example.com");
    let id = server.verified("acme", &owner).await;
    let invited = owner.invite(&id, "invited-person@example.com", &["member"]).await;
    server.user("invited-person@example.com").accept(&invited.text("/token")).await;
    let input = json!({"organizationId": id, "reason": "a private matter"});
    server
        .user("invited-person@example.com")
        .run("leaveOrganization", "OrganizationCommandInput", input, "__typename")
        .await;
    let pool = database.pool().await;
    let log: Vec<String> = sqlx::query_scalar("SELECT events::text FROM events").fetch_all(&pool).await.unwrap();
    let log = log.join("\n");
    assert!(log.contains("MemberLeft"));
    for secret in ["person@", "private matter", "127.0.0.1", invited.text("/token").splitn(3, '_').nth(2).unwrap()] {
        assert!(!log.contains(secret), "{secret}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_does_not_fit_stops_the_start() {
    let database = Database::new().await;
    core(&database).await.close().await.unwrap();
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let config = database.config(&[("TENANCY_SECRETS__MASTER_KEY", other)]);
    let error = Core::open(&config, Purpose::Command).await.err().unwrap();
    assert!(error.remedy().unwrap().contains("master key"), "{error}");
}

/// A reader that follows the log while two replicas write sees every event once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_reader_misses_nothing_and_sees_nothing_twice() {
    let database = Database::new().await;
    let (one, two) = (core(&database).await, core(&database).await);
    let organizations: Vec<OrganizationId> = (0..6).map(|_| OrganizationId::random()).collect();
    let write = async |core: &Core| {
        for round in 0..40 {
            let log = core.commands.log();
            join_all(organizations.iter().map(|organization| {
                append(
                    log,
                    draft(organization, ProjectId::random(), 0, vec![created(&format!("p{round}-{}", Uuid::new_v4()))]),
                )
            }))
            .await
            .into_iter()
            .for_each(|outcome| assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}"));
        }
    };
    let pool = database.pool().await;
    let log = one.commands.log();
    let follow = async {
        let mut cursors: BTreeMap<i16, i64> = (0..log.partitions()).map(|partition| (partition, 0)).collect();
        let mut seen = 0;
        while seen < 2 * 40 * 6 {
            let mut connection = pool.acquire().await.unwrap();
            let range =
                |(partition, after): (&i16, &i64)| Range { partition: *partition, after: *after, until: i64::MAX };
            let ranges: Vec<Range> = cursors.iter().map(range).collect();
            for entry in log.read(&mut connection, &ranges, 7).await.unwrap().into_iter().flatten() {
                let Entry::Event(event) = entry else { panic!("{entry:?}") };
                let cursor = cursors.get_mut(&event.partition).unwrap();
                assert_eq!(event.offset, *cursor + 1);
                *cursor = event.offset;
                seen += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(write(&one), write(&two), follow) })
        .await
        .unwrap();
    check_log(&pool).await;
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_writers_connection_is_cut() {
    let database = Database::new().await;
    let core = core(&database).await;
    let log = core.commands.log();
    let pool = database.pool().await;
    let organization = OrganizationId::random();
    let write = async |number: usize| {
        let mut acknowledged = vec![];
        for i in 0..30 {
            let project = ProjectId::random();
            let outcome =
                append(log, draft(&organization, project.clone(), 0, vec![created(&format!("p{number}-{i}"))])).await;
            if let Ok(Outcome::Accepted { .. }) = outcome {
                acknowledged.push(project.to_string());
            }
        }
        acknowledged
    };
    let cut = async {
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(12)).await;
            let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'tenancy writer' AND datname = current_database()";
            let _: i64 = sqlx::query_scalar(statement).fetch_one(&pool).await.unwrap();
        }
    };
    let (acknowledged, ()) = tokio::join!(join_all((0..6).map(write)), cut);
    let acknowledged: Vec<String> = acknowledged.concat();
    assert!(acknowledged.len() > 60, "only {} of 180 went through", acknowledged.len());
    let found: Vec<(String, i64)> =
        sqlx::query_as("SELECT aggregate_id, count(*) FROM events GROUP BY 1").fetch_all(&pool).await.unwrap();
    let found: BTreeMap<String, i64> = found.into_iter().collect();
    for project in &acknowledged {
        assert_eq!(found.get(project), Some(&1), "{project}");
    }
    check_log(&pool).await;
    core.close().await.unwrap();
}

/// Not even a program that goes past the writer can make a gap, a double or a second holder.
#[tokio::test(flavor = "multi_thread")]
async fn unique_keys_stand_behind_the_ledger() {
    let database = Database::new().await;
    let core = core(&database).await;
    let pool = database.pool().await;
    append(core.commands.log(), draft(&OrganizationId::random(), ProjectId::random(), 0, vec![created("a")]))
        .await
        .unwrap();
    let columns = r#"aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
        organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac"#;
    for (column, value) in [("aggregate_id", "'x'"), ("\"offset\"", "99"), ("audit_sequence", "99")] {
        // Two of stream, offset and audit sequence are made to differ; the third stands in the way.
        let select = columns.replace(column, value);
        let doubled =
            sqlx::query(&format!("INSERT INTO events ({columns}) SELECT {select} FROM events")).execute(&pool).await;
        assert!(doubled.unwrap_err().to_string().contains("duplicate key"), "{column}");
    }
    assert!(sqlx::query("INSERT INTO claims SELECT * FROM claims").execute(&pool).await.is_err());
    core.close().await.unwrap();
}

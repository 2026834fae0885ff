//! What row-level security costs the statements that read lists and audit trails.
//!
//! Two pages of usual organizations of the large log (see `fill`; each has 21 members and about 100 events):
//! - a page of 20 members, for which the service asks 21 rows, as its list loader reads it;
//! - a page of 50 audit events, as large as in the group `audit`: the statement that reads whole events at places that
//!   were found before. What finds the places works as `tenancy_writer` in the service, and so costs what it did.
//!
//! Each is read in three ways:
//! - without row-level security: by a plain statement with a condition on the organization, as `tenancy_writer`, whose
//!   policy is `true`, of which the planner leaves nothing;
//! - as built: as `tenancy_reader`, by the service's statement, which sets its own scope; one round trip;
//! - as is usual elsewhere: as `tenancy_reader`, by the plain statement after `BEGIN` and `set_config` and before
//!   `COMMIT`; four round trips, over a unix socket, where they are as short as they get.
//!
//! One client, one connection for each way, from the pools of the service and so with its settings; statements are
//! built anew each time and prepared once, as in the service. Time is from building the statement to having all rows,
//! in this process and by the service's driver; rows are not decoded then. Each organization is drawn at random from up
//! to 1,000, and read in all three ways right after each other, in all six orders in turn, so that none profits more
//! often from what another has warmed; a number of first executions of each, the same, does not count. All ways have to
//! find the same rows each time, as many as a page holds, and the reader none without a scope; else the run fails.
//!
//! Median and 99th percentile of each round. What it is of a whole operation stands in a remark, where the group
//! `audit` measured an audit page over HTTP in this run.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgPool, Postgres, QueryBuilder, Row};
use tenancy::database::Lease;
use tenancy::database::embedded::Purpose;
use tenancy::log::{COLUMNS, scope};
use tenancy::service::Core;

use crate::logs::Log;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::stats::{median, percentile};

const GROUP: &str = "scope";
/// From how many organizations they are drawn, if there are as many.
const ORGANIZATIONS: usize = 1_000;
/// How often each page is read in each way in a round.
const EXECUTIONS: usize = 4_200;
/// So many times more before that, which do not count.
const WARM: usize = 300;
/// Members of a page; one more is asked for.
const MEMBERS: usize = 20;
/// Events of a page, as the group `audit` asks for.
const EVENTS: usize = 50;
/// As the list of members has it in the service.
const MEMBER: &str = "id, organization_id, user_id, roles, state, source, joined_at, version, created_at FROM members";

/// How a page is read.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Without row-level security.
    Plain,
    /// As built.
    Scoped,
    /// In a transaction that sets the scope first.
    Transaction,
}

/// All orders.
const ORDERS: [[Way; 3]; 6] = [
    [Way::Plain, Way::Scoped, Way::Transaction],
    [Way::Scoped, Way::Transaction, Way::Plain],
    [Way::Transaction, Way::Plain, Way::Scoped],
    [Way::Plain, Way::Transaction, Way::Scoped],
    [Way::Transaction, Way::Scoped, Way::Plain],
    [Way::Scoped, Way::Plain, Way::Transaction],
];

/// An organization, and where the events of a page of its trail are.
struct Place {
    organization: String,
    partitions: Vec<i16>,
    offsets: Vec<i64>,
}

/// What is read.
#[derive(Debug, Clone, Copy)]
enum Page {
    Members,
    Events,
}

/// A connection for each way.
struct Connections {
    plain: Lease,
    scoped: Lease,
    transaction: Lease,
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let logs = context.logs().await;
    let log = &logs.1;
    let core = Core::open(&log.database.config(), Purpose::Command).await.expect("the service opens");
    context.say("bringing the read models of the large log up to it");
    core.catch_up().await.expect("read models can be made");
    let owner = log.database.pool(1).await;
    sqlx::query("VACUUM ANALYZE").execute(&owner).await.expect("the planner learns the tables");
    context.server.checkpoint().await;
    let places = places(&owner, log).await;
    let mut connections = Connections::open(&core).await.expect("the service has connections");
    let mut figures = vec![];
    for page in [Page::Members, Page::Events] {
        let unseen = connections.unseen(page, &places[0]).await.expect("a page can be asked for");
        assert!(unseen, "the reader sees {} without a scope: it is not held by row-level security", page.title());
        // Median and 99th percentile of each round, for each way.
        let mut rounds: [Vec<[f64; 2]>; 3] = Default::default();
        for _ in 0..context.options.rounds {
            let times = round(&mut connections, page, &places).await;
            for (known, times) in rounds.iter_mut().zip(&times) {
                known.push([median(times), percentile(times, 99.0)]);
            }
        }
        figures.extend(figures_of(context, page, &rounds));
    }
    drop(connections);
    core.close().await.expect("the service closes");
    figures
}

/// The lines of a page.
fn figures_of(context: &Context, page: Page, rounds: &[Vec<[f64; 2]>; 3]) -> Vec<Figure> {
    let values =
        |way: Way, value: usize| -> Vec<f64> { rounds[way as usize].iter().map(|round| round[value]).collect() };
    let line = |way: Way, value: usize, title: String| {
        Figure::alone(GROUP, title, "µs", values(way, value), Goal::Shown)
            .beside("without row-level security", &Ok(values(Way::Plain, value)))
    };
    let more = median(&values(Way::Scoped, 0)) - median(&values(Way::Plain, 0));
    let title = page.title();
    vec![
        line(Way::Scoped, 0, format!("{title}, row-level security as built")).noted(remark(context, page, more)),
        line(Way::Scoped, 1, format!("… {title}, as built, p99")),
        line(Way::Transaction, 0, format!("… {title}, scope set by a transaction around")),
        line(Way::Transaction, 1, format!("… {title}, scope set by a transaction around, p99")),
    ]
}

/// What so many more microseconds are, and of a whole operation if one was measured.
fn remark(context: &Context, page: Page, more: f64) -> String {
    let each = format!("{more:+.1} µs, median; {EXECUTIONS} executions of each way a round, in turn");
    match (page, context.audit_page) {
        (Page::Events, Some(whole)) => {
            let ratio = whole / (whole - more / 1000.0);
            format!("{each}; over HTTP such a page took {whole:.2} ms (group audit), so {ratio:.3} × that without it")
        }
        (Page::Events, None) | (Page::Members, _) => each,
    }
}

/// Some organizations from all over the log, with the places of their newest events.
async fn places(owner: &PgPool, log: &Log) -> Vec<Place> {
    let step = (log.usual.len() / ORGANIZATIONS).max(1);
    let ids: Vec<&str> = log.usual.iter().step_by(step).take(ORGANIZATIONS).map(|usual| usual.id.as_ref()).collect();
    let statement = format!(
        r#"SELECT o.id, array_agg(e.partition ORDER BY e.audit_sequence),
                  array_agg(e."offset" ORDER BY e.audit_sequence)
           FROM unnest($1::text[]) AS o(id) CROSS JOIN LATERAL (
               SELECT partition, "offset", audit_sequence FROM events WHERE organization_id = o.id
               ORDER BY audit_sequence DESC LIMIT {EVENTS}
           ) e GROUP BY o.id"#
    );
    let rows: Vec<(String, Vec<i16>, Vec<i64>)> =
        sqlx::query_as(&statement).bind(&ids).fetch_all(owner).await.expect("events can be found");
    assert_eq!(rows.len(), ids.len(), "organizations have no events");
    let place = |(organization, partitions, offsets)| Place { organization, partitions, offsets };
    rows.into_iter().map(place).collect()
}

/// Microseconds of each execution of a round, for each way.
async fn round(connections: &mut Connections, page: Page, places: &[Place]) -> [Vec<f64>; 3] {
    let mut random = StdRng::from_os_rng();
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..WARM + EXECUTIONS {
        let place = &places[random.random_range(0..places.len())];
        let mut first: Option<Vec<String>> = None;
        for way in ORDERS[number % ORDERS.len()] {
            let begin = Instant::now();
            let rows = connections.read(way, page, place).await.expect("a page can be read");
            let took = begin.elapsed().as_secs_f64() * 1_000_000.0;
            let ids = page.ids(&rows);
            assert_eq!(ids.len(), page.rows(), "{way:?}: not a whole {} of {}", page.title(), place.organization);
            let known = first.get_or_insert_with(|| ids.clone());
            assert_eq!(ids, *known, "{way:?}: other rows of {}", place.organization);
            if number >= WARM {
                times[way as usize].push(took);
            }
        }
    }
    times
}

impl Connections {
    async fn open(core: &Core) -> Result<Self, sqlx::Error> {
        let (writers, readers) = (&core.database.pool, &core.database.readers);
        let plain = writers.acquire().await?;
        let scoped = readers.acquire().await?;
        let transaction = readers.acquire().await?;
        Ok(Self { plain, scoped, transaction })
    }

    /// Whether a reader is shown nothing by the plain statement.
    async fn unseen(&mut self, page: Page, place: &Place) -> Result<bool, sqlx::Error> {
        let mut query = page.plain(place);
        let rows = query.build().fetch_all(&mut *self.transaction).await?;
        Ok(rows.is_empty())
    }

    /// A page, read one way.
    async fn read(&mut self, way: Way, page: Page, place: &Place) -> Result<Vec<PgRow>, sqlx::Error> {
        match way {
            Way::Plain => {
                let mut query = page.plain(place);
                query.build().fetch_all(&mut *self.plain).await
            }
            Way::Scoped => {
                let mut query = page.scoped(place);
                query.build().fetch_all(&mut *self.scoped).await
            }
            Way::Transaction => {
                let mut query = page.plain(place);
                let mut transaction = self.transaction.begin().await?;
                let set = sqlx::query("SELECT set_config('tenancy.scope', $1, true)").bind(&place.organization);
                set.execute(&mut *transaction).await?;
                let rows = query.build().fetch_all(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(rows)
            }
        }
    }
}

impl Page {
    fn title(self) -> String {
        match self {
            Self::Members => format!("page of {MEMBERS} members"),
            Self::Events => format!("page of {EVENTS} audit events"),
        }
    }

    /// How many rows there have to be.
    fn rows(self) -> usize {
        match self {
            Self::Members => MEMBERS + 1,
            Self::Events => EVENTS,
        }
    }

    /// Which rows these are.
    fn ids(self, rows: &[PgRow]) -> Vec<String> {
        let column = match self {
            Self::Members => "id",
            Self::Events => "event_id",
        };
        rows.iter().map(|row| row.get::<String, _>(column)).collect()
    }

    /// The statement that one would write without row-level security.
    fn plain(self, place: &Place) -> QueryBuilder<'static, Postgres> {
        match self {
            Self::Members => {
                let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {MEMBER} WHERE organization_id = "));
                query.push_bind(place.organization.clone());
                push_members(&mut query);
                query
            }
            Self::Events => {
                let mut query = QueryBuilder::<Postgres>::new("SELECT e.* FROM unnest(");
                push_events(&mut query, place);
                query.push(" AND organization_id = ").push_bind(place.organization.clone());
                query.push(format!(") e ORDER BY w.place LIMIT {EVENTS}"));
                query
            }
        }
    }

    /// The service's statement: that of its list loader, and that by which the audit trail reads whole events.
    fn scoped(self, place: &Place) -> QueryBuilder<'static, Postgres> {
        match self {
            Self::Members => {
                let mut query = scope::begin("wanted.id AS of, r.*", &[&place.organization]);
                query.push(format!(" CROSS JOIN LATERAL (SELECT {MEMBER} WHERE organization_id = wanted.id"));
                push_members(&mut query);
                query.push(") r");
                query
            }
            Self::Events => {
                let mut query = scope::begin("e.*", &[&place.organization]);
                query.push(" CROSS JOIN LATERAL (SELECT e.*, w.place FROM unnest(");
                push_events(&mut query, place);
                query.push(" AND organization_id = wanted.id");
                query.push(format!(") e ORDER BY w.place LIMIT {EVENTS}) e ORDER BY e.place"));
                query
            }
        }
    }
}

/// The rest of the conditions of a first page of members, its order and its limit.
fn push_members(query: &mut QueryBuilder<'static, Postgres>) {
    query.push(" AND state <> 'REMOVED' ORDER BY created_at ASC, id ASC LIMIT ").push_bind(MEMBERS as i64 + 1);
}

/// The places of the events of a page, and the beginning of what reads them.
fn push_events(query: &mut QueryBuilder<'static, Postgres>, place: &Place) {
    query.push_bind(place.partitions.clone()).push("::smallint[], ");
    query.push_bind(place.offsets.clone()).push("::bigint[]) WITH ORDINALITY AS w(number, at, place)");
    query.push(format!(
        r#" CROSS JOIN LATERAL (SELECT {COLUMNS} FROM events WHERE partition = w.number AND "offset" = w.at"#
    ));
}

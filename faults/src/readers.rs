//! Followers of the log while it grows: as a projection does it (one number a partition, straight from the table) and
//! as a client does it (an organization's audit trail, page by page). Each comes in a quick and in a slow kind. They
//! note what came in which order, and say at once when a number is missing or comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::clients::Office;
use crate::cluster::Cluster;
use crate::graphql;
use crate::history::Followed;

/// How long a follower may take to come to the end, after everything else has ended.
const LAST_PAGES: Duration = Duration::from_secs(60);

/// How a follower takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Looks every few milliseconds.
    Quick,
    /// Sleeps for seconds between looks.
    Slow,
}

impl Pace {
    fn pause(self, random: &mut StdRng) -> Duration {
        Duration::from_millis(match self {
            Self::Quick => random.random_range(2..30),
            Self::Slow => random.random_range(500..4000),
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Quick => "a quick",
            Self::Slow => "a slow",
        }
    }
}

/// Follows a partition in the table, as any projection does, until told to finish, and then to the end.
pub async fn follow_partition(
    cluster: Arc<Cluster>,
    office: Arc<Office>,
    partition: i16,
    pace: Pace,
    mut random: StdRng,
    finish: Arc<AtomicBool>,
) {
    let mut followed = Followed {
        who: format!("{} reader of partition {partition}", pace.word()),
        partition: Some(partition),
        organization: None,
        events: vec![],
        end: 0,
    };
    let mut connection: Option<PgConnection> = None;
    let mut deadline = None;
    loop {
        let finishing = finish.load(Ordering::Relaxed);
        let look = look_at_table(&cluster, &mut connection, partition, &mut followed.events).await;
        if finishing {
            let until = *deadline.get_or_insert_with(|| Instant::now() + LAST_PAGES);
            followed.end = office.end_of(&partition.to_string());
            if is_there(&followed) || Instant::now() > until {
                break;
            }
            connection = connection.filter(|_| look.is_ok());
        } else {
            if look.is_err() {
                connection = None;
            }
            tokio::time::sleep(pace.pause(&mut random)).await;
        }
    }
    office.recorder.followed(followed);
}

fn is_there(followed: &Followed) -> bool {
    followed.events.last().map_or(0, |(number, _)| *number) >= followed.end
}

async fn look_at_table(
    cluster: &Cluster,
    connection: &mut Option<PgConnection>,
    partition: i16,
    events: &mut Vec<(i64, String)>,
) -> Result<usize, ()> {
    if connection.is_none() {
        *connection = Some(cluster.connect().await.map_err(drop)?);
    }
    let open = connection.as_mut().ok_or(())?;
    let after = events.last().map_or(0, |(offset, _)| *offset);
    let statement =
        r#"SELECT "offset", event_id FROM events WHERE partition = $1 AND "offset" > $2 ORDER BY "offset" LIMIT 500"#;
    let rows = sqlx::query(statement).bind(partition).bind(after).fetch_all(open);
    let rows = tokio::time::timeout(Duration::from_secs(20), rows).await.map_err(drop)?.map_err(drop)?;
    events.extend(rows.iter().map(|row| (row.get::<i64, _>(0), row.get::<String, _>(1))));
    Ok(rows.len())
}

/// Follows the audit trail of an organization by cursors, at one replica, until told to finish, and then to the end.
pub async fn follow_trail(
    office: Arc<Office>,
    organization: String,
    replica: usize,
    pace: Pace,
    mut random: StdRng,
    finish: Arc<AtomicBool>,
) {
    let mut followed = Followed {
        who: format!("{} reader of the audit trail of {organization} at replica {replica}", pace.word()),
        partition: None,
        organization: Some(organization.clone()),
        events: vec![],
        end: 0,
    };
    let mut cursor: Option<String> = None;
    let mut deadline = None;
    loop {
        let finishing = finish.load(Ordering::Relaxed);
        let page = look_at_trail(&office, &organization, replica, cursor.as_deref(), &mut random).await;
        if let Some((nodes, end)) = page {
            followed.events.extend(nodes);
            cursor = end.or(cursor);
        }
        if finishing {
            let until = *deadline.get_or_insert_with(|| Instant::now() + LAST_PAGES);
            followed.end = office.end_of(&organization);
            if is_there(&followed) || Instant::now() > until {
                break;
            }
        } else {
            tokio::time::sleep(pace.pause(&mut random)).await;
        }
    }
    office.recorder.followed(followed);
}

const TRAIL: &str = "query($o: ID!, $after: String) { organization(by: {id: $o}) {
    auditTrail(first: 50, after: $after) { nodes { id auditSequence } pageInfo { endCursor } } } }";

type Page = (Vec<(i64, String)>, Option<String>);

async fn look_at_trail(
    office: &Office,
    organization: &str,
    replica: usize,
    cursor: Option<&str>,
    random: &mut StdRng,
) -> Option<Page> {
    let operator = office.world.operators.choose(random)?;
    let body = json!({"query": TRAIL, "variables": {"o": organization, "after": cursor}});
    let url = office.replicas[replica].url("/graphql");
    let answer = graphql::send(&office.http, &url, &operator.token, None, &body, Duration::from_secs(10)).await.ok()?;
    let trail = &answer["data"]["organization"]["auditTrail"];
    let node = |node: &Value| Some((node["auditSequence"].as_i64()?, node["id"].as_str()?.to_owned()));
    let nodes = trail["nodes"].as_array()?.iter().filter_map(node).collect();
    Some((nodes, trail["pageInfo"]["endCursor"].as_str().map(str::to_owned)))
}

/// Asks for much, and takes the answer a few bytes at a time.
pub async fn read_slowly(office: Arc<Office>, replica: usize, span: Duration) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(operator) = office.world.operators.first() else { return };
    let body = json!({"query": "{ auditTrail(last: 100) { nodes { id action data } } }"}).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        operator.token,
        body.len()
    );
    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", office.replicas[replica].port())).await else {
        return;
    };
    let _ = stream.write_all(request.as_bytes()).await;
    let until = Instant::now() + span;
    let mut few = [0u8; 64];
    while Instant::now() < until && matches!(stream.read(&mut few).await, Ok(length) if length > 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A consumer of the table that fetches by a cursor, slowly, and so holds its snapshot for long.
pub async fn hold_cursor(cluster: Arc<Cluster>, span: Duration) {
    let Ok(mut connection) = cluster.connect().await else { return };
    let _ = sqlx::query("BEGIN").execute(&mut connection).await;
    let _ = sqlx::query("DECLARE slow CURSOR FOR SELECT payload FROM events").execute(&mut connection).await;
    let until = Instant::now() + span;
    while Instant::now() < until && sqlx::query("FETCH 20 FROM slow").execute(&mut connection).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let _ = connection.close().await;
}

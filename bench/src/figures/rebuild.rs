//! Making all read models again from a long log.
//!
//! Ours: `tenancy projections rebuild --all`, the program itself, on the large log (1,000,000 events; written by COPY,
//! see `fill`, with sealed personal data that has to be opened), from start to end of the process. Where the program
//! has no such subcommand, the same work by other means: read models are made for the first time, by `catch_up` in
//! this process, and the figure says so.
//!
//! The reference: `COPY` of the resulting tables into empty ones of the same definition, indexes included, from rows
//! that were copied out before, in memory: no file is read while the clock runs. It parses and decides nothing, so it
//! is the least that anything could take.

use std::process::Stdio;
use std::time::Instant;

use sqlx::{Executor, PgPool};
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use crate::logs::Log;
use crate::progress::{names, schemas};
use crate::report::{Figure, Goal};
use crate::run::Context;

const GROUP: &str = "rebuild";

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let logs = context.logs().await;
    let log = &logs.1;
    let (mut seconds, mut copied, mut note) = (vec![], vec![], String::new());
    let first = first_time(log).await;
    for _ in 0..context.options.rounds {
        settle(context, log).await;
        match rebuild(context, log).await {
            Some(took) => seconds.push(took),
            None => {
                note = "no `projections rebuild` in this program: read models were made for the first time".to_owned();
                seconds.push(first);
            }
        }
        settle(context, log).await;
        copied.push(copy_tables(&log.database.pool(2).await).await);
    }
    let rates = seconds.iter().map(|seconds| log.events as f64 / seconds).collect();
    vec![
        Figure::alone(
            GROUP,
            format!("rebuild of all read models from {} events", log.events),
            "events/s",
            rates,
            Goal::AtLeast(50_000.0),
        )
        .noted(note),
        Figure::alone(GROUP, "… time", "s", seconds, Goal::Shown).beside("COPY of the resulting tables", &Ok(copied)),
    ]
}

/// So that nothing that was written before is vacuumed or flushed meanwhile.
async fn settle(context: &Context, log: &Log) {
    log.database.pool(1).await.execute("VACUUM ANALYZE").await.expect("the planner learns the tables");
    context.server.checkpoint().await;
}

/// Read models of a log that has none yet: seconds, or nearly none where they are there.
async fn first_time(log: &Log) -> f64 {
    let pool = log.database.pool(1).await;
    for schema in schemas() {
        for table in tables(&pool, &schema).await {
            pool.execute(format!("TRUNCATE {table}").as_str()).await.expect("a read model can be emptied");
        }
    }
    pool.execute("UPDATE checkpoints SET \"offset\" = 0").await.expect("checkpoints can be set");
    pool.execute("VACUUM ANALYZE").await.expect("the planner learns the tables");
    let core = Core::open(&log.database.config(), Purpose::Command).await.expect("the service opens");
    let begin = Instant::now();
    core.catch_up().await.expect("read models can be made");
    let seconds = begin.elapsed().as_secs_f64();
    core.close().await.expect("the service closes");
    seconds
}

/// By the program: seconds; nothing where it knows no such subcommand.
async fn rebuild(context: &Context, log: &Log) -> Option<f64> {
    let run = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&context.program);
        command.args(arguments).envs(log.database.environment()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        command
    };
    if !run(&["projections", "rebuild", "--help"]).status().await.ok()?.success() {
        return None;
    }
    let begin = Instant::now();
    if run(&["projections", "rebuild", "--all"]).status().await.ok()?.success() {
        return Some(begin.elapsed().as_secs_f64());
    }
    let begin = Instant::now();
    for name in names() {
        if !run(&["projections", "rebuild", name]).status().await.ok()?.success() {
            return None;
        }
    }
    Some(begin.elapsed().as_secs_f64())
}

async fn tables(pool: &PgPool, schema: &str) -> Vec<String> {
    let statement = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = $1 ORDER BY 1";
    sqlx::query_scalar(statement).bind(schema).fetch_all(pool).await.expect("tables can be listed")
}

/// Copies the resulting tables into empty ones, with their indexes: seconds.
async fn copy_tables(pool: &PgPool) -> f64 {
    let mut seconds = 0.0;
    for schema in schemas() {
        for table in tables(pool, &schema).await {
            let rows = copy_out(pool, &table).await;
            let make = format!("CREATE TABLE bench_copy (LIKE {table} INCLUDING ALL)");
            pool.execute(make.as_str()).await.expect("a table can be made");
            let begin = Instant::now();
            crate::fill::copy(pool, "COPY bench_copy FROM STDIN", &rows).await;
            seconds += begin.elapsed().as_secs_f64();
            pool.execute("DROP TABLE bench_copy").await.expect("a table can be dropped");
        }
    }
    seconds
}

async fn copy_out(pool: &PgPool, table: &str) -> String {
    let mut connection = pool.acquire().await.expect("the server answers");
    let mut rows = connection.copy_out_raw(&format!("COPY {table} TO STDOUT")).await.expect("rows can be read");
    let mut text = vec![];
    while let Some(part) = futures_util::TryStreamExt::try_next(&mut rows).await.expect("rows can be read") {
        text.extend_from_slice(&part);
    }
    String::from_utf8(text).expect("rows are text")
}

//! Alarms as webhooks: told once, until they were taken, and signed.

use std::time::Duration;

use super::receiver::{Behaviour, Got, Receiver};
use crate::support::{Database, Server, eventually, tamper};

const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";

async fn serve(database: &Database, receiver: &Receiver) -> Server {
    let url = receiver.url("alarms");
    let variables = [
        ("TENANCY_AUDIT__ALARM_WEBHOOK_URL", url.as_str()),
        ("TENANCY_SECRETS__ALARM_WEBHOOK_KEY", KEY),
        ("TENANCY_WEBHOOKS__HTTP_ALLOWED", "true"),
        ("TENANCY_WEBHOOKS__ADDRESSES_ALLOWED", "127.0.0.1"),
        ("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1"),
    ];
    database.serve_with(&variables).await
}

/// Those that speak of the organization itself; its partition is told too.
fn of(got: &[Got], organization: &str, kind: &str) -> Vec<Got> {
    let about = |got: &&Got| got.kind() == kind && got.json()["data"]["trail"] == organization;
    got.iter().filter(about).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_told_once_until_it_was_taken_and_when_it_is_over() {
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    receiver.behave("alarms", Behaviour::Status(500));
    let server = serve(&database, &receiver).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let pool = database.pool().await;
    eventually("it is sealed", async || {
        let sealed = sqlx::query_scalar("SELECT count(*) FROM sealed_trees WHERE organization_id = $1");
        sealed.bind(&acme).fetch_one(&pool).await.unwrap_or(0i64) > 0
    })
    .await;
    sqlx::raw_sql("CREATE TABLE kept AS TABLE events").execute(&pool).await.unwrap();
    let alter = format!("UPDATE events SET actor = 'system' WHERE organization_id = '{acme}' AND audit_sequence = 2");
    tamper(&pool, &alter).await;
    // Nobody takes it; it is sent again as the same message, also by the next process.
    let first = receiver.wait("alarms", 2).await;
    assert_eq!(first[0].id(), first[1].id());
    server.stop().await;
    let before = receiver.at("alarms").len();
    let server = serve(&database, &receiver).await;
    assert_eq!(receiver.wait("alarms", before + 1).await[before].id(), first[0].id());
    receiver.behave("alarms", Behaviour::Status(204));
    eventually("it is taken", async || !of(&receiver.at("alarms"), &acme, "audit.alarm.raised").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let got = receiver.at("alarms");
    let told = of(&got, &acme, "audit.alarm.raised").last().cloned().expect("it is told");
    assert!(told.verifies(&format!("whsec_{KEY}")) && !told.verifies("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    let data = &told.json()["data"];
    assert_eq!(data["noticedBy"], "VERIFICATION", "{data}");
    assert!(data["message"].as_str().unwrap().contains("is not what"), "{data}");
    // It stands for rounds and starts, and is not told again.
    server.stop().await;
    let server = serve(&database, &receiver).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(receiver.at("alarms").len(), got.len(), "{:?}", receiver.kinds("alarms"));

    let mend = "UPDATE events e SET actor = k.actor FROM kept k WHERE k.event_id = e.event_id AND k.actor <> e.actor";
    tamper(&pool, mend).await;
    eventually("its end is told", async || of(&receiver.at("alarms"), &acme, "audit.alarm.cleared").len() == 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_are_not_sent_where_webhooks_may_not_go() {
    let database = Database::new().await;
    let refused = async |url: &str, key: &str| {
        let variables = [("TENANCY_AUDIT__ALARM_WEBHOOK_URL", url), ("TENANCY_SECRETS__ALARM_WEBHOOK_KEY", key)];
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
        let output = command.env_clear().envs(database.variables(&variables)).arg("serve").kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await.expect("it is refused").unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let metadata = refused("https://169.254.169.254/alarms", KEY).await;
    assert!(metadata.contains("audit.alarm_webhook_url cannot be used: url leads to an address"), "{metadata}");
    assert!(refused("http://alarms.example.com/", KEY).await.contains("is not encrypted"));
    assert!(refused("https://alarms.example.com/", "").await.contains("secrets.alarm_webhook_key"));
}

//! Master keys are changed while the service runs, and nothing is lost by it.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tenancy::database::embedded::Purpose;
use tenancy::log::LogError;
use tenancy::service::{Core, Error};

use crate::support::{Client, Database, Server};

const OLD: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NEW: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn keys<'a>(current: &'a str, other: &'a str) -> [(&'static str, &'a str); 2] {
    [("TENANCY_SECRETS__MASTER_KEY", current), ("TENANCY_SECRETS__MASTER_KEY_OTHER", other)]
}

async fn rotate(database: &Database, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.arg("rotate-master-key").envs(database.variables(variables)).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn addresses(server: &Server) -> String {
    let query = "{ auditTrail(last: 100, filter: {actions: [USER_REGISTERED, MEMBER_INVITED]}) { nodes { data ip } } }";
    server.operator().query(query, json!({})).await.0.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_changed_under_load_and_everything_still_opens() {
    let database = Database::new().await;
    let server = database.serve_with(&keys(OLD, OLD)).await;
    let owner = server.user("owner@example.com");
    let (id, acme) = (owner.user_id().await, server.organization("acme", &owner).await);
    owner.invite(&acme, "eve@example.com", &["guest"]).await;
    for number in 0..20 {
        server.user(&format!("early-{number}@example.com")).user_id().await;
    }
    server.stop().await;

    let server = database.serve_with(&keys(NEW, OLD)).await;
    let done = AtomicBool::new(false);
    let load = async {
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            server.user(&format!("late-{number}@example.com")).user_id().await;
            assert!(addresses(&server).await.contains("early-3@example.com"));
            number += 1;
        }
        number
    };
    let rotation = async {
        let output = rotate(&database, &keys(NEW, OLD)).await;
        done.store(true, Ordering::Relaxed);
        output
    };
    let (late, output) = tokio::join!(load, rotation);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(late > 0);
    server.stop().await;

    let refused = Core::open(&database.config(&keys(OLD, OLD)), Purpose::Command).await.err().unwrap();
    assert!(matches!(refused, Error::Log(LogError::Cipher)), "{refused}");
    // The old one is gone, and everything is as it was: what is readable, who is who, and which addresses are taken.
    let server = database.serve_with(&keys(NEW, NEW)).await;
    let owner = Client { url: server.url("/graphql"), ..owner };
    assert_eq!(owner.user_id().await, id);
    let read = addresses(&server).await;
    for address in ["owner@example.com", "eve@example.com", "early-19@example.com", "late-0@example.com", "127.0.0.1"] {
        assert!(read.contains(address), "{address}: {read}");
    }
    assert_eq!(owner.invite(&acme, "EVE@example.com", &["guest"]).await.refusal(), Some("ALREADY_EXISTS"));
    server.stop().await;
    let output = rotate(&database, &keys(NEW, NEW)).await;
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("0 keys"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_a_key_that_is_still_in_use_does_not_start_and_says_which() {
    let database = Database::new().await;
    let server = database.serve_with(&keys(OLD, OLD)).await;
    server.user("ada@example.com").user_id().await;
    server.stop().await;
    // Half way: the new one is in use, and the old one still wraps somebody's key.
    let server = database.serve_with(&keys(NEW, OLD)).await;
    server.user("bob@example.com").user_id().await;
    server.stop().await;
    for key in [NEW, OLD] {
        let refused = Core::open(&database.config(&keys(key, key)), Purpose::Command).await.err().unwrap();
        assert!(matches!(refused, Error::Log(LogError::MasterKey(_))), "{refused}");
        assert!(refused.remedy().unwrap().contains("TENANCY_SECRETS__MASTER_KEY_OTHER"), "{refused}");
    }
    // Told of the new one before it is used, a replica opens what others wrap by it.
    let server = database.serve_with(&keys(OLD, NEW)).await;
    assert!(addresses(&server).await.contains("bob@example.com"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_that_is_moved_to_somebody_else_does_not_open() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com").user_id().await;
    let bob = server.user("bob@example.com").user_id().await;
    server.stop().await;
    let pool = database.pool().await;
    let moved = "UPDATE subject_keys SET wrapped = (SELECT wrapped FROM subject_keys WHERE subject_id = $1) WHERE subject_id = $2";
    sqlx::query(moved).bind(&ada).bind(&bob).execute(&pool).await.unwrap();
    pool.close().await;
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    assert!(core.commands.log().keys().find([ada.as_str()]).await.is_ok());
    assert!(matches!(core.commands.log().keys().find([bob.as_str()]).await, Err(LogError::Cipher)));
    core.close().await.unwrap();
}

//! What is sealed of the audit trail: checkpoints and proofs, and what becomes of them when somebody changes the log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sqlx::PgPool;
use tenancy::audit::merkle::{Frontier, Hash, leaf_hash, verify_consistency, verify_inclusion};
use tenancy::audit::note::{Checkpoint, VerifierKey, open};
use tenancy::service::audit_signers;

use crate::support::{Client, Database, eventually, tamper};

fn keys(database: &Database) -> Vec<VerifierKey> {
    let signers = audit_signers(&database.config(&[])).unwrap();
    signers.iter().map(|signer| signer.verifier().to_string().parse().unwrap()).collect()
}

fn hash(value: &Value) -> Hash {
    STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

async fn note(client: &Client, organization: &str) -> Option<(String, u64, Hash)> {
    let query = "query($o: ID!) { auditCheckpoint(organizationId: $o) { note treeSize rootHash signedAt } }";
    let answer = client.send(query, json!({"o": organization})).await;
    let found = answer.pointer("/data/auditCheckpoint").filter(|found| !found.is_null())?;
    Some((found["note"].as_str()?.to_owned(), found["treeSize"].as_u64()?, hash(&found["rootHash"])))
}

/// Waits until so many events are sealed, and verifies the checkpoint.
async fn sealed(client: &Client, organization: &str, size: u64, keys: &[VerifierKey]) -> Checkpoint {
    eventually("the events are sealed", async || {
        note(client, organization).await.is_some_and(|(_, sealed, _)| sealed >= size)
    })
    .await;
    let (note, tree_size, root) = note(client, organization).await.unwrap();
    let checkpoint: Checkpoint = open(&note, keys).unwrap().parse().unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (tree_size, root));
    checkpoint
}

async fn inclusion(client: &Client, organization: &str, sequence: u64, size: Option<u64>) -> Value {
    let query = "query($o: ID!, $s: Long!, $t: Long) {
        auditInclusionProof(organizationId: $o, auditSequence: $s, treeSize: $t) { leafIndex treeSize leaf leafHash path } }";
    client.send(query, json!({"o": organization, "s": sequence, "t": size})).await
}

async fn consistency(client: &Client, organization: &str, from: u64, to: Option<u64>) -> Value {
    let query = "query($o: ID!, $f: Long!, $t: Long) {
        auditConsistencyProof(organizationId: $o, fromSize: $f, toSize: $t) { fromSize toSize path } }";
    client.send(query, json!({"o": organization, "f": from, "t": to})).await
}

/// A row of the log, as the documentation of the leaf has it, written without the program's own code.
async fn documented_leaf(pool: &PgPool, organization: &str, sequence: i64) -> Vec<u8> {
    let row: Vec<Option<String>> = sqlx::query_scalar(
        r#"SELECT ARRAY[aggregate_type, aggregate_id, sequence::text, event_type, event_version, payload::text,
               metadata::text, organization_id, audit_sequence::text, event_id, command_id::text, actor, on_behalf_of, ip,
               user_agent, request_id, correlation_id::text, causation_id,
               to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')]
           FROM events WHERE organization_id = $1 AND audit_sequence = $2"#,
    )
    .bind(organization)
    .bind(sequence)
    .fetch_one(pool)
    .await
    .unwrap();
    let mut leaf = vec![1];
    for value in row {
        let length = value.as_ref().map_or(u32::MAX, |value| value.len() as u32);
        leaf.extend(length.to_be_bytes());
        leaf.extend(value.unwrap_or_default().into_bytes());
    }
    leaf
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_sealed_and_proven() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let (ada, beside) = (first.user("ada@example.com"), second.user("ada@example.com"));
    let acme = first.verified("acme", &ada).await;
    let keys = keys(&database);
    let mut older = vec![];
    // Past the size of a tile, sealed bit by bit and by two replicas.
    for number in 0..140 {
        let client = if number % 3 == 0 { &beside } else { &ada };
        assert!(client.create_project(&acme, &format!("p{number}")).await.accepted());
        let project = client.create_project(&acme, &format!("q{number}")).await;
        assert!(project.accepted());
        if number % 45 == 0 {
            older.push(sealed(&ada, &acme, 1, &keys).await);
        }
    }
    let pool = database.pool().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE organization_id = $1")
        .bind(&acme)
        .fetch_one(&pool)
        .await
        .unwrap();
    let count = count.unsigned_abs();
    assert!(count > 256);
    let newest = sealed(&ada, &acme, count, &keys).await;
    assert_eq!((newest.size, newest.origin.as_str()), (count, format!("tenancy.local/audit/{acme}").as_str()));

    // The root is that of the documented leaves.
    let mut frontier = Frontier::default();
    for sequence in 1..=count {
        let leaf = documented_leaf(&pool, &acme, sequence.cast_signed()).await;
        frontier.push(leaf_hash(&leaf), |_, _| {});
        if [1, 2, 200, 255, 256, 257, count].contains(&sequence) {
            let answer = inclusion(&beside, &acme, sequence, None).await;
            let proof = &answer["data"]["auditInclusionProof"];
            assert_eq!(STANDARD.decode(proof["leaf"].as_str().unwrap()).unwrap(), leaf, "{answer}");
            assert_eq!((proof["leafIndex"].as_u64(), hash(&proof["leafHash"])), (Some(sequence - 1), leaf_hash(&leaf)));
            let path = hashes(&proof["path"]);
            assert!(verify_inclusion(sequence - 1, count, &leaf_hash(&leaf), &path, &newest.root), "{sequence}");
        }
    }
    assert_eq!(frontier.root(), newest.root);

    // Each head that was signed before is the beginning of it.
    for older in older {
        let answer = consistency(&ada, &acme, older.size, None).await;
        let path = hashes(&answer["data"]["auditConsistencyProof"]["path"]);
        assert!(verify_consistency(older.size, count, &older.root, &newest.root, &path), "{older:?}");
        let answer = inclusion(&ada, &acme, 1, Some(older.size)).await;
        let proof = &answer["data"]["auditInclusionProof"];
        let (leaf, path) = (hash(&proof["leafHash"]), hashes(&proof["path"]));
        assert!(verify_inclusion(0, older.size, &leaf, &path, &older.root));
    }
    for (from, to) in [(1, 2), (3, 256), (256, 257), (255, count), (count, count)] {
        let answer = consistency(&ada, &acme, from, Some(to)).await;
        assert_eq!(answer["data"]["auditConsistencyProof"]["toSize"].as_u64(), Some(to), "{answer}");
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_do_not_fit_are_told_apart() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let size = sealed(&ada, &acme, 4, &keys(&database)).await.size;
    let past = format!("the newest checkpoint covers {size} events: ask again in a moment, or for less");
    let none = format!("a tree of {size} events has no event {}", size + 1);
    let from = format!("fromSize has to be between 1 and {size}, the size of the other tree");
    for (answer, message) in [
        (inclusion(&ada, &acme, 0, None).await, "events are numbered from 1"),
        (inclusion(&ada, &acme, size + 1, None).await, none.as_str()),
        (inclusion(&ada, &acme, 1, Some(size + 1)).await, past.as_str()),
        (consistency(&ada, &acme, 1, Some(size + 1)).await, past.as_str()),
        (consistency(&ada, &acme, 0, None).await, from.as_str()),
        (consistency(&ada, &acme, size + 1, None).await, from.as_str()),
    ] {
        assert_eq!(answer["errors"][0]["message"], message, "{answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_changed_after_it_was_sealed_does_not_fit_any_more() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let newest = sealed(&ada, &acme, 4, &keys(&database)).await;
    let pool = database.pool().await;
    for (column, value) in [
        ("payload", "(payload::text || ' ')::json"),
        ("metadata", "'{\"a\": 1}'"),
        ("actor", "'system'"),
        ("recorded_at", "recorded_at + interval '1 microsecond'"),
        ("request_id", "'another'"),
        ("correlation_id", "gen_random_uuid()"),
    ] {
        let change = |value: &str| {
            format!("UPDATE events SET {column} = {value} WHERE organization_id = '{acme}' AND audit_sequence = 2")
        };
        let before: String = sqlx::query_scalar(&format!(
            "SELECT quote_nullable({column}) FROM events WHERE organization_id = '{acme}' AND audit_sequence = 2"
        ))
        .fetch_one(&pool)
        .await
        .unwrap();
        let fits = async || {
            let answer = inclusion(&ada, &acme, 2, Some(newest.size)).await;
            let proof = &answer["data"]["auditInclusionProof"];
            let leaf = leaf_hash(&STANDARD.decode(proof["leaf"].as_str().unwrap()).unwrap());
            verify_inclusion(1, newest.size, &leaf, &hashes(&proof["path"]), &newest.root)
        };
        assert!(fits().await);
        tamper(&pool, &change(value)).await;
        assert!(!fits().await, "{column}");
        tamper(&pool, &change(&before)).await;
    }
    // What was sealed cannot be changed without breaking through, either.
    let refused = sqlx::query("UPDATE sealed_hashes SET hashes = hashes").execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
    server.stop().await;
}

/// Why an organization is not sealed any further.
async fn failure(pool: &PgPool, organization: &str) -> Option<String> {
    sqlx::query_scalar("SELECT failure FROM sealed_trees WHERE organization_id = $1")
        .bind(organization)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_not_what_was_signed_does_not_grow_and_others_do() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let keys = keys(&database);
    let pool = database.pool().await;
    let other = server.verified("other", &ada).await;
    // Each of them as somebody may change it who writes to the database and has no key.
    let changes = [
        ("shorter", "size = 2, peaks = substr(peaks, 1, 32)"),
        ("another", "peaks = set_byte(peaks, 0, 255 - get_byte(peaks, 0))"),
        ("unsigned", "note = replace(note, chr(8212), '- ')"),
        ("damaged", "peaks = 'x'"),
    ];
    for (slug, change) in changes {
        let organization = server.verified(slug, &ada).await;
        let before = sealed(&ada, &organization, 4, &keys).await;
        let signed = note(&ada, &organization).await.unwrap().0;
        let statement = format!("UPDATE sealed_trees SET {change} WHERE organization_id = $1");
        sqlx::query(&statement).bind(&organization).execute(&pool).await.unwrap();
        assert!(ada.create_project(&organization, "one").await.accepted());
        eventually("the failure is on record", async || failure(&pool, &organization).await.is_some()).await;
        let size: i64 = sqlx::query_scalar("SELECT size FROM sealed_trees WHERE organization_id = $1")
            .bind(&organization)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert!(size.unsigned_abs() <= before.size, "{slug}");
        let now: String = sqlx::query_scalar("SELECT note FROM sealed_trees WHERE organization_id = $1")
            .bind(&organization)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert!(now == signed || slug == "unsigned", "{slug}: nothing new was signed");
        let query = "query($o: ID!) { auditCheckpoint(organizationId: $o) { failure } }";
        let answer = ada.query(query, json!({"o": organization})).await;
        assert!(!answer.at("/auditCheckpoint/failure").is_null(), "{slug}: {answer:?}");
    }
    let size = sealed(&ada, &other, 4, &keys).await.size;
    assert!(ada.create_project(&other, "one").await.accepted());
    sealed(&ada, &other, size + 1, &keys).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_one_partition_keeps_back_no_other() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let keys = keys(&database);
    let pool = database.pool().await;
    let mut organizations = vec![];
    for number in 0..12 {
        organizations.push(server.verified(&format!("org{number}"), &ada).await);
    }
    for organization in &organizations {
        sealed(&ada, organization, 4, &keys).await;
    }
    // The newest event of a partition goes before it was sealed, as if the offset had been skipped.
    let partition: i16 = sqlx::query_scalar("SELECT partition FROM sealed_trees WHERE organization_id = $1")
        .bind(&organizations[0])
        .fetch_one(&pool)
        .await
        .unwrap();
    sqlx::query(r#"UPDATE seals SET "offset" = "offset" - 2 WHERE partition = $1"#)
        .bind(partition)
        .execute(&pool)
        .await
        .unwrap();
    tamper(&pool, &format!(r#"DELETE FROM events WHERE partition = {partition} AND "offset" = (SELECT max("offset") - 1 FROM events WHERE partition = {partition})"#)).await;
    let mut went_on = 0;
    for organization in &organizations {
        let own: i16 = sqlx::query_scalar("SELECT partition FROM sealed_trees WHERE organization_id = $1")
            .bind(organization)
            .fetch_one(&pool)
            .await
            .unwrap();
        if own != partition {
            let size = note(&ada, organization).await.unwrap().1;
            assert!(ada.create_project(organization, "one").await.accepted());
            sealed(&ada, organization, size + 1, &keys).await;
            went_on += 1;
        }
    }
    assert!(went_on > 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_other_keys_is_turned_away() {
    let database = Database::new().await;
    let server = database.serve().await;
    server.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(database.config(&[]).data_dir).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "audit.pem" {
            std::fs::copy(file.path(), elsewhere.path().join(file.file_name())).unwrap();
        }
    }
    let config = tenancy::config::Config { data_dir: elsewhere.path().to_owned(), ..database.config(&[]) };
    let refused = tenancy::service::Service::start(&config).await.err().unwrap();
    assert!(refused.to_string().contains("there is no key that signs the audit trail"), "{refused}");
    assert!(!elsewhere.path().join("audit.pem").exists());
    // One of its own does not help.
    tenancy::audit::keys::open(elsewhere.path(), "tenancy.local/audit", &[], true).unwrap();
    let refused = tenancy::service::Service::start(&config).await.err().unwrap();
    assert!(refused.to_string().contains("by none of the keys here"), "{refused}");
    assert!(refused.remedy().unwrap().contains("audit.pem"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_without_a_gap() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let old = keys(&database);
    let size = sealed(&ada, &acme, 4, &old).await.size;
    server.stop().await;

    let directory = database.config(&[]).data_dir;
    let key = ed25519_dalek::SigningKey::from_bytes(&rand::random());
    let pem = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_pem(&key, Default::default()).unwrap();
    let path = directory.join("audit-2.pem");
    std::fs::write(&path, pem.as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let both = keys(&database);
    assert_eq!((both.len(), &both[..1]), (2, &old[..]));
    let new = &both[1..];

    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    // What was signed before gets the new signature too, without a new event.
    eventually("the head is signed again", async || {
        let (signed, ..) = note(&ada, &acme).await.unwrap();
        open(&signed, &old).is_ok() && open(&signed, new).is_ok()
    })
    .await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    sealed(&ada, &acme, size + 1, &old).await;
    sealed(&ada, &acme, size + 1, new).await;
    server.stop().await;

    std::fs::remove_file(directory.join("audit.pem")).unwrap();
    assert_eq!(keys(&database), new);
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    assert!(ada.create_project(&acme, "two").await.accepted());
    sealed(&ada, &acme, size + 2, new).await;
    let (signed, ..) = note(&ada, &acme).await.unwrap();
    assert!(open(&signed, &old).is_err());
    server.stop().await;
}

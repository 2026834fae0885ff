//! The access trail: refused tries, operators' reads of tenants, and reads of the audit trail.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, eventually};

const RECORD: &str = "at kind operation organizationId targetId times ip actor { __typename id label }";

/// Waits for a minute that has some seconds left, so that what a test does falls into one.
async fn within_a_minute() {
    let second = chrono::Utc::now().timestamp() % 60;
    if second > 40 {
        tokio::time::sleep(Duration::from_secs(61 - second.unsigned_abs())).await;
    }
}

async fn trail(client: &Client, organization: &str) -> Vec<Value> {
    let query = format!(
        "query($o: ID!) {{ organization(by: {{id: $o}}) {{ accessTrail(last: 100) {{ nodes {{ {RECORD} }} }} }} }}"
    );
    let answer = client.query(&query, json!({"o": organization})).await;
    answer.at("/organization/accessTrail/nodes").as_array().unwrap().clone()
}

async fn everything(operator: &Client) -> Vec<Value> {
    let query = format!("{{ accessTrail(last: 100) {{ nodes {{ {RECORD} }} }} }}");
    operator.query(&query, json!({})).await.at("/accessTrail/nodes").as_array().unwrap().clone()
}

/// Stops a service, so that everything is written, and starts another one.
async fn again(database: &Database, server: Server) -> Server {
    server.stop().await;
    database.serve().await
}

fn of<'a>(records: &'a [Value], kind: &str, operation: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind && record["operation"] == operation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_on_record_once_a_minute_with_how_often() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let acme = server.verified("acme", &ada).await;
    ada.bring_in(&acme, &bob, "bob@example.com", &["guest"]).await;
    within_a_minute().await;
    assert_eq!(bob.create_project(&acme, "no").await.fault(), Some("FORBIDDEN"));
    // The first time is there at once, or nearly.
    eventually("the refusal is on record", async || trail(&ada, &acme).await.len() == 1).await;
    for _ in 0..4 {
        assert_eq!(bob.create_project(&acme, "no").await.fault(), Some("FORBIDDEN"));
    }
    let bob_id = bob.user_id().await;
    let server = again(&database, server).await;
    let records = trail(&server.user("ada@example.com"), &acme).await;
    assert_eq!(records.len(), 1, "{records:?}");
    let record = &records[0];
    assert_eq!(record["kind"], "REFUSED");
    assert_eq!(record["operation"], "createProject");
    assert_eq!(record["times"], 5);
    assert_eq!(record["targetId"], acme);
    assert_eq!(record["organizationId"], acme);
    assert_eq!(record["ip"], "127.0.0.1");
    assert_eq!(record["actor"]["__typename"], "UserActor");
    assert_eq!(record["actor"]["id"], bob_id);
    // Nobody reads it who may not read the audit, and that is a refusal too.
    let bob = server.user("bob@example.com");
    let query = "query($o: ID!) { organization(by: {id: $o}) { accessTrail { nodes { at } } } }";
    assert_eq!(bob.fault(query, json!({"o": acme})).await, "FORBIDDEN");
    let server = again(&database, server).await;
    assert_eq!(of(&trail(&server.user("ada@example.com"), &acme).await, "REFUSED", "organization").len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reach_across_tenants_is_seen_by_operators_and_in_the_callers_own_organization() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    let acme = server.verified("acme", &ada).await;
    let other = server.verified("other", &eve).await;
    let project = ada.create_project(&acme, "secret").await.text("/project/id");
    let nothing = |id: &str| format!("{}{}", &id[..id.len() - 6], "000000");
    let node = "query($i: ID!) { node(id: $i) { id } }";
    let reads = [
        ("query($i: ID!) { organization(by: {id: $i}) { name } }", &acme),
        ("query($i: ID!) { roles(organizationId: $i) { name } }", &acme),
        ("query($i: ID!) { permissions(organizationId: $i) }", &acme),
        ("query($i: ID!) { project(id: $i) { id } }", &project),
        (node, &project),
        (node, &acme),
    ];
    within_a_minute().await;
    for (query, id) in reads {
        let hidden = eve.send(query, json!({"i": id})).await;
        let missing = eve.send(query, json!({"i": nothing(id)})).await;
        assert_eq!(hidden["errors"][0]["extensions"]["code"], "NOT_FOUND", "{hidden}");
        assert_eq!(hidden, missing);
    }
    assert_eq!(eve.create_project(&acme, "no").await.fault(), Some("NOT_FOUND"));
    assert_eq!(eve.create_project(&nothing(&acme), "no").await.fault(), Some("NOT_FOUND"));
    let eve_id = eve.user_id().await;
    let server = again(&database, server).await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    assert_eq!(trail(&ada, &acme).await, Vec::<Value>::new());
    // Eve's own owner learns that she tries ids, and not which of them exist: those of nothing stand there alike.
    let own = trail(&eve, &other).await;
    for (operation, times) in
        [("organization", 2), ("roles", 2), ("permissions", 2), ("project", 2), ("node", 4), ("createProject", 2)]
    {
        let found = of(&own, "REFUSED", operation);
        assert_eq!(found.len(), 1, "{operation}: {own:?}");
        assert_eq!((&found[0]["organizationId"], &found[0]["times"]), (&json!(other), &json!(times)), "{operation}");
        assert_eq!(found[0]["actor"]["id"], eve_id, "{operation}");
    }
    assert_eq!(own.len(), 6, "{own:?}");
    let records = everything(&server.operator()).await;
    let records: Vec<Value> = records.into_iter().filter(|record| record["organizationId"] != other).collect();
    for (operation, target, times) in [
        ("organization", &acme, 1),
        ("roles", &acme, 1),
        ("permissions", &acme, 1),
        ("project", &project, 1),
        ("node", &project, 2),
        ("createProject", &acme, 1),
    ] {
        let found = of(&records, "REFUSED", operation);
        assert_eq!(found.len(), 1, "{operation}: {records:?}");
        assert_eq!(found[0]["organizationId"], acme, "{operation}");
        assert_eq!(found[0]["targetId"], *target, "{operation}");
        assert_eq!(found[0]["times"], times, "{operation}");
        assert_eq!(found[0]["actor"]["id"], eve_id, "{operation}");
    }
    assert_eq!(records.len(), 6, "what does not exist leaves nothing: {records:?}");
    // Another tenant's owner reads neither the trail of this one nor the one over all.
    let query = "query($o: ID!) { organization(by: {id: $o}) { accessTrail { nodes { at } } } }";
    assert_eq!(eve.fault(query, json!({"o": acme})).await, "NOT_FOUND");
    assert_eq!(eve.fault("{ accessTrail { nodes { at } } }", json!({})).await, "FORBIDDEN");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_read_stands_in_the_tenants_trail_with_his_name() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let (acme, calm) = (server.verified("acme", &ada).await, server.verified("calm", &ada).await);
    let operator = server.operator();
    let operator_id = operator.user_id().await;
    let read = "query($o: ID!) { organization(by: {id: $o}) {
        members { nodes { id } } projects { nodes { id } } invitations { nodes { id } } } }";
    within_a_minute().await;
    for _ in 0..3 {
        operator.query(read, json!({"o": acme})).await;
    }
    ada.query(read, json!({"o": acme})).await;
    let server = again(&database, server).await;
    let ada = server.user("ada@example.com");
    let records = trail(&ada, &acme).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["kind"], "OPERATOR_READ");
    assert_eq!(records[0]["operation"], "organization");
    assert_eq!(records[0]["times"], 3, "once a request, whatever it reads");
    assert_eq!(records[0]["actor"]["__typename"], "OperatorActor");
    assert_eq!(records[0]["actor"]["id"], operator_id);
    assert_eq!(trail(&ada, &calm).await, Vec::<Value>::new());
    // An operator's read of the trail is one too; a member's is not.
    trail(&server.operator(), &calm).await;
    let server = again(&database, server).await;
    let records = trail(&server.user("ada@example.com"), &calm).await;
    assert_eq!(of(&records, "OPERATOR_READ", "organization").len(), 1);
    assert_eq!(records.len(), 1, "{records:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_audit_trail_is_on_record() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    within_a_minute().await;
    ada.audit(&acme).await;
    server.operator().audit(&acme).await;
    server.operator().query("{ auditTrail(last: 1) { nodes { id } } }", json!({})).await;
    let server = again(&database, server).await;
    let records = trail(&server.user("ada@example.com"), &acme).await;
    let audits = of(&records, "AUDIT_READ", "organization");
    let actors: Vec<&Value> = audits.iter().map(|record| &record["actor"]["__typename"]).collect();
    assert_eq!(actors, ["UserActor", "OperatorActor"]);
    assert_eq!(of(&records, "OPERATOR_READ", "organization").len(), 1);
    assert_eq!(records.len(), 3, "{records:?}");
    let all = everything(&server.operator()).await;
    assert_eq!(of(&all, "AUDIT_READ", "auditTrail").len(), 1, "{all:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_where_they_are_while_records_arrive() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let acme = server.verified("acme", &ada).await;
    ada.bring_in(&acme, &bob, "bob@example.com", &["guest"]).await;
    within_a_minute().await;
    assert_eq!(bob.organization_command("deleteOrganization", &acme).await.fault(), Some("FORBIDDEN"));
    assert_eq!(bob.create_project(&acme, "no").await.fault(), Some("FORBIDDEN"));
    ada.audit(&acme).await;
    eventually("all are written", async || of(&trail(&ada, &acme).await, "AUDIT_READ", "organization").len() == 1)
        .await;
    let whole: Vec<String> = operations(&trail(&ada, &acme).await);
    assert_eq!(whole, ["deleteOrganization", "createProject", "organization"]);
    let page = async |arguments: &str| {
        let query = format!(
            "query($o: ID!) {{ organization(by: {{id: $o}}) {{ accessTrail({arguments}) {{
             pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} nodes {{ operation }} }} }} }}"
        );
        ada.query(&query, json!({"o": acme})).await.at("/organization/accessTrail").clone()
    };
    let first = page("first: 2").await;
    assert_eq!(operations(first["nodes"].as_array().unwrap()), whole[..2]);
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let after = first["pageInfo"]["endCursor"].as_str().unwrap().to_owned();
    assert_eq!(bob.invite(&acme, "x@example.com", &["guest"]).await.fault(), Some("FORBIDDEN"));
    eventually("one more", async || trail(&ada, &acme).await.len() == whole.len() + 1).await;
    let rest = page(&format!("first: 100, after: \"{after}\"")).await;
    assert_eq!(operations(rest["nodes"].as_array().unwrap()), [&whole[2..], &["inviteMember".to_owned()]].concat());
    assert_eq!(rest["pageInfo"]["hasNextPage"], false);
    let before = rest["pageInfo"]["startCursor"].as_str().unwrap().to_owned();
    let back = page(&format!("last: 100, before: \"{before}\"")).await;
    assert_eq!(operations(back["nodes"].as_array().unwrap()), whole[..2]);
    let foreign = "query($o: ID!) { organization(by: {id: $o}) { members(first: 1) { pageInfo { endCursor } } } }";
    let foreign = ada.query(foreign, json!({"o": acme})).await.text("/organization/members/pageInfo/endCursor");
    let query = format!(
        "query($o: ID!) {{ organization(by: {{id: $o}}) {{ accessTrail(after: \"{foreign}\") {{ nodes {{ at }} }} }} }}"
    );
    assert_eq!(ada.fault(&query, json!({"o": acme})).await, "BAD_USER_INPUT");
    server.stop().await;
}

fn operations(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["operation"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refusals_are_a_handful_of_rows() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let acme = server.verified("acme", &ada).await;
    ada.bring_in(&acme, &bob, "bob@example.com", &["guest"]).await;
    let field =
        |number: usize| format!("a{number}: organization(by: {{id: $o}}) {{ accessTrail {{ nodes {{ at }} }} }} ");
    let query = format!("query($o: ID!) {{ {} }}", (0..25).map(field).collect::<String>());
    for _ in 0..25 {
        let burst = (0..16).map(|_| bob.send(&query, json!({"o": acme})));
        let answers = futures_util::future::join_all(burst).await;
        assert!(answers.iter().all(|answer| answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"));
    }
    let server = again(&database, server).await;
    let records = trail(&server.user("ada@example.com"), &acme).await;
    let times: i64 = records.iter().map(|record| record["times"].as_i64().unwrap()).sum();
    assert_eq!(times, 10_000);
    let pool = database.pool().await;
    let rows: i64 =
        sqlx::query_scalar("SELECT (SELECT count(*) FROM access_trail) + (SELECT count(*) FROM access_repeats)")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(rows <= 6, "{rows} rows");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_only_ever_added_to_until_it_is_old() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let acme = server.verified("acme", &ada).await;
    ada.bring_in(&acme, &bob, "bob@example.com", &["guest"]).await;
    assert_eq!(bob.create_project(&acme, "no").await.fault(), Some("FORBIDDEN"));
    let bob_id = bob.user_id().await;
    let server = again(&database, server).await;
    let pool = database.pool().await;
    for statement in [
        "UPDATE access_trail SET times = 1",
        "DELETE FROM access_trail",
        "TRUNCATE access_trail",
        "UPDATE access_repeats SET times = 1",
        "TRUNCATE access_repeats",
    ] {
        let refused = sqlx::query(statement).execute(&pool).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
    for (id, days) in [("acc_old", 400), ("acc_younger", 300)] {
        let insert = "INSERT INTO access_trail (id, created_at, kind, actor, operation, organization_id, times, mac)
                      VALUES ($1, now() - make_interval(days => $2), 'REFUSED', 'system', 'node', $3, 1, '')";
        sqlx::query(insert).bind(id).bind(days).bind(&acme).execute(&pool).await.unwrap();
    }
    server.service().core().commands.sweep().await.unwrap();
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM access_trail ORDER BY created_at").fetch_all(&pool).await.unwrap();
    assert_eq!((ids.len(), ids[0].as_str()), (2, "acc_younger"));
    // The address is ciphertext, and nothing once the person is erased.
    let ip: String =
        sqlx::query_scalar("SELECT ip FROM access_trail WHERE ip IS NOT NULL").fetch_one(&pool).await.unwrap();
    assert!(!ip.contains("127."), "{ip}");
    let erase = "UPDATE subject_keys SET wrapped = NULL, erased_at = now() WHERE subject_id = $1";
    sqlx::query(erase).bind(&bob_id).execute(&pool).await.unwrap();
    let server = again(&database, server).await;
    let records = trail(&server.user("ada@example.com"), &acme).await;
    assert_eq!(of(&records, "REFUSED", "createProject")[0]["ip"], Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_on_the_command_line_stands_there_as_the_operator_who_is_named() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, operator) = (server.user("ada@example.com"), server.operator());
    let acme = server.verified("acme", &ada).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
        command.env_clear().envs(database.variables(&[])).args(arguments);
        command.output().await.unwrap()
    };
    let commands: [&[&str]; 3] = [
        &["audit", "export", "--organization", &acme, "--out", "-"],
        &["audit", "diff", "--organization", &acme, "--from", "1", "--to", "2"],
        &["audit", "report", "--organization", &acme],
    ];
    for command in commands {
        let output = run(&[command, &["--as", "Ops@example.com"]].concat()).await;
        assert!(output.status.success(), "{output:?}");
    }
    // Without a name it is the service.
    assert!(run(commands[1]).await.status.success());
    let ops = server.user("ops@example.com").user_id().await;
    let kinds = ["AUDIT_EXPORT", "AUDIT_READ", "AUDIT_READ"];
    for (kind, operation) in
        kinds.into_iter().zip(["tenancy audit export", "tenancy audit diff", "tenancy audit report"])
    {
        eventually(operation, async || {
            let records = everything(&operator).await;
            of(&records, kind, operation)
                .iter()
                .any(|record| record["actor"]["__typename"] == "OperatorActor" && record["actor"]["id"] == ops)
        })
        .await;
    }
    let records = everything(&operator).await;
    let by: Vec<&Value> =
        of(&records, "AUDIT_READ", "tenancy audit diff").iter().map(|r| &r["actor"]["__typename"]).collect();
    assert!(by.contains(&&json!("SystemActor")) && by.len() == 2, "{by:?}");

    let input = json!({"userId": ops, "reason": "a test"});
    assert!(operator.run("revokeUser", "UserReviewInput", input, "__typename").await.accepted());
    let output = run(&[commands[1], &["--as", "ops@example.com"]].concat()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.contains("may not act")), (Some(1), true), "{said}");
    server.stop().await;
}

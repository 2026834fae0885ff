//! Introspection: standard clients get all of it, nobody gets more than its bound, and what it says is the schema.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Database, Server};

/// What GraphiQL asks.
const GRAPHIQL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/graphiql/introspection.graphql"));

/// Lists of types inside lists of types, as deep as the limits of documents allow.
const BOMBS: [&str; 4] = [
    r#"{__type(name:"Node"){possibleTypes{interfaces{possibleTypes{interfaces{possibleTypes{name}}}}}}}"#,
    r#"{__type(name:"Node"){possibleTypes{interfaces{possibleTypes{interfaces{possibleTypes{fields{name}}}}}}}}"#,
    "{__schema{types{interfaces{possibleTypes{fields{name description}}}}}}",
    "{__schema{types{...F}}} fragment F on __Type{interfaces{...G}} fragment G on __Type{possibleTypes{interfaces{possibleTypes{name}}}}",
];

async fn answer(server: &Server, query: &str) -> Value {
    server.nobody().send(query, json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_about_the_schema_has_an_endless_answer() {
    let database = Database::new().await;
    let server = database.serve().await;
    for bomb in BOMBS {
        let started = Instant::now();
        let answered = answer(&server, bomb).await;
        assert_eq!(answered["errors"][0]["extensions"]["code"], "QUERY_TOO_EXPENSIVE", "{bomb}");
        assert_eq!(answered.get("data"), None, "nothing is answered by half");
        assert!(answered["errors"][0]["message"].as_str().unwrap().contains("introspection_bytes_max"));
        // Far less than it takes to make what was asked for.
        assert!(started.elapsed().as_secs() < 5, "{bomb}: {:?}", started.elapsed());
    }
    // Many small ones in one request share the bound.
    let many: String = (0..30)
        .map(|n| format!("q{n}: __schema {{ types {{ fields {{ name description args {{ name description }} }} }} }} "))
        .collect();
    let answered = answer(&server, &format!("{{ {many} }}")).await;
    assert_eq!(answered["errors"][0]["extensions"]["code"], "QUERY_TOO_EXPENSIVE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_introspection_says_is_the_schema() {
    let database = Database::new().await;
    let server = database.serve().await;
    let answered = answer(&server, GRAPHIQL).await;
    assert_eq!(answered.get("errors"), None);
    // It leaves room for twice as much.
    let bytes = serde_json::to_vec(&answered).unwrap().len();
    assert!(bytes < 1024 * 1024, "{bytes} bytes: look at limits.introspection_bytes_max");
    let types = answered["data"]["__schema"]["types"].as_array().unwrap();
    let of = |name: &str| types.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    // Everything that the SDL names is there, with its fields.
    let document = async_graphql::parser::parse_schema(include_str!("../../schema.graphql")).unwrap();
    let mut seen = 0;
    for definition in document.definitions {
        use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let told = of(&definition.node.name.node);
        let names = |list: &str| -> Vec<String> {
            let mut names: Vec<String> = told[list]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| one["name"].as_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        match definition.node.kind {
            TypeKind::Object(object) => {
                let fields = object.fields.iter().map(|field| field.node.name.node.to_string()).collect();
                assert_eq!(names("fields"), sorted(fields));
                assert_eq!(
                    names("interfaces"),
                    sorted(object.implements.iter().map(|one| one.node.to_string()).collect())
                );
            }
            TypeKind::Interface(interface) => {
                let fields = interface.fields.iter().map(|field| field.node.name.node.to_string()).collect();
                assert_eq!(names("fields"), sorted(fields));
                let implements: Vec<String> = interface.implements.iter().map(|one| one.node.to_string()).collect();
                assert_eq!(names("interfaces"), sorted(implements));
            }
            TypeKind::Enum(of) => {
                assert_eq!(
                    names("enumValues"),
                    sorted(of.values.iter().map(|one| one.node.value.node.to_string()).collect())
                );
            }
            TypeKind::InputObject(input) => {
                assert_eq!(
                    names("inputFields"),
                    sorted(input.fields.iter().map(|one| one.node.name.node.to_string()).collect())
                );
            }
            TypeKind::Scalar | TypeKind::Union(_) => {}
        }
        seen += 1;
    }
    assert!(seen > 200, "{seen}");
    let interfaces = &of("AuditEvent")["interfaces"];
    assert!(interfaces.as_array().unwrap().iter().any(|one| one["name"] == "Node"), "{interfaces}");
    server.stop().await;
}

/// The engine's own answer, which has no bound.
async fn by_the_engine(query: &str) -> Value {
    let rules = tenancy::graphql::Introspection { bytes_max: 0, without_token: false };
    let schema = tenancy::graphql::schema(1_000_000, 100, rules);
    serde_json::to_value(schema.execute(query.into(), false).await.data).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_answered_as_the_engine_would() {
    let database = Database::new().await;
    let server = database.serve().await;
    // Without what is deprecated, and with it; whole types where they are nested.
    for query in [
        GRAPHIQL.to_owned(),
        GRAPHIQL.replace("(includeDeprecated: true)", ""),
        r#"{ __type(name: "Organization") { fields { type { ofType { name fields { name args { defaultValue type { kind } } } } } } } }"#.to_owned(),
        r#"{ __schema { directives { name args { name type { kind ofType { name } } } } } }"#.to_owned(),
    ] {
        let (mut own, mut engines) = (answer(&server, &query).await["data"].take(), by_the_engine(&query).await);
        // The engine says of objects only what they implement.
        for answered in [&mut own, &mut engines] {
            for one in answered.pointer_mut("/__schema/types").and_then(Value::as_array_mut).into_iter().flatten() {
                if one["kind"] == "INTERFACE" {
                    one["interfaces"] = Value::Null;
                }
            }
        }
        assert!(own == engines, "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_fragments_variables_and_directives_hold_in_it() {
    let database = Database::new().await;
    let server = database.serve().await;
    let query = r#"query($old: Boolean = true, $no: Boolean!) {
        one: __type(name: "Project") { ...Named kind again: name name @skip(if: $no) __typename }
        one: __type(name: "Project") { fields(includeDeprecated: $old) { name type { ... on __Type { kind ofType { name } } } } }
        none: __type(name: "Nothing") { name }
        left: __type(name: "Project") @include(if: $no) { name }
        __schema { queryType { name } mutationType { name } subscriptionType { name } }
    } fragment Named on __Type { name description @include(if: $no) }"#;
    let answered = server.nobody().send(query, json!({"no": false})).await;
    assert_eq!(answered.get("errors"), None, "{answered}");
    let one = &answered["data"]["one"];
    assert_eq!((&one["name"], &one["again"], &one["kind"]), (&json!("Project"), &json!("Project"), &json!("OBJECT")));
    assert_eq!(one["__typename"], "__Type");
    assert_eq!(one.get("description"), None);
    let id = one["fields"].as_array().unwrap().iter().find(|field| field["name"] == "id").unwrap();
    assert_eq!(id["type"], json!({"kind": "NON_NULL", "ofType": {"name": "ID"}}));
    assert_eq!(answered["data"]["none"], Value::Null);
    assert_eq!(answered["data"].get("left"), None);
    let roots = json!({"queryType": {"name": "Query"}, "mutationType": {"name": "Mutation"}, "subscriptionType": {"name": "Subscription"}});
    assert_eq!(answered["data"]["__schema"], roots);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_may_be_for_callers_with_a_token_only() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_HTTP__INTROSPECTION_WITHOUT_TOKEN", "false")]).await;
    let query = "{ __schema { queryType { name } } }";
    assert_eq!(server.nobody().fault(query, json!({})).await, "UNAUTHENTICATED");
    let answered = server.user("ada@example.com").query(query, json!({})).await;
    assert_eq!(answered.text("/__schema/queryType/name"), "Query");
    // What a client asks of every answer is no introspection.
    assert_eq!(server.nobody().query("{ __typename }", json!({})).await.text("/__typename"), "Query");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_documents_has_a_bound() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_LIMITS__ANSWER_BYTES_MAX", "100000")]).await;
    let owner = server.user("ada@example.com");
    let id = server.verified("acme", &owner).await;
    let document = json!({"text": "x".repeat(40_000)});
    let input = json!({"organizationId": id, "namespace": "branding", "value": document});
    let set = owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
    assert!(set.accepted(), "{set:?}");
    let settings = |times: usize| {
        let fields: String = (0..times).map(|n| format!("s{n}: settings(namespace: \"branding\") ")).collect();
        format!("query($id: ID!) {{ organization(by: {{id: $id}}) {{ {fields} }} }}")
    };
    owner.query(&settings(2), json!({"id": id})).await;
    assert_eq!(owner.fault(&settings(3), json!({"id": id})).await, "QUERY_TOO_EXPENSIVE");
    server.stop().await;
}

//! Commands over GraphQL and HTTP.
//!
//! Ours: the service as a process of its own, all of it on (authentication, projections, metrics, audit), 128
//! connections that are kept; each sends one `createProject` after the other with the token of the organization's
//! owner, for a random organization, with a slug of its own. Tokens are the built-in issuer's, one for each owner.
//! Every answer has to be a success that names the new project and its event. The reference: the single-row INSERTs
//! of the commands' figure, in turn in each round. A bare axum handler with one INSERT a request reaches about 0.53
//! times the reference.
//!
//! The generator is this program's own (see `http`).

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use super::commands::slug;
use crate::http::{Counted, body, find, load};
use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::world::{Tenant, World};

const GROUP: &str = "requests";
/// Connections.
pub const CONNECTIONS: usize = 128;

const CREATE: &str = "mutation Create($input: CreateProjectInput!) { createProject(input: $input) {
    project { id slug name state version } events { id action } position errors { code message } } }";

/// A request that creates a project for somebody.
pub fn create_project(world: &World, random: &mut StdRng) -> (String, String) {
    create_project_of(&world.tenants[random.random_range(0..world.tenants.len())])
}

/// The token and the body of a request that creates a project of this tenant.
pub fn create_project_of(tenant: &Tenant) -> (String, String) {
    let slug = slug();
    let input = json!({"organizationId": tenant.id.as_ref(), "name": format!("Project {slug}"), "slug": slug});
    (tenant.token.clone(), body(CREATE, &json!({"input": input})))
}

/// Whether the answer is that of a project that was created.
pub fn created(answer: &[u8]) -> bool {
    find(answer, b"\"errors\":[]").is_some() && find(answer, b"\"id\":\"prj_").is_some()
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    context.prepare_rows().await;
    let world = context.world().await;
    let service = Service::start(&context.program, &world.database).await;
    // What was recorded without it is none of its requests' business.
    super::audit::wait_for_read_models(&world.database.pool(1).await).await;
    let time = context.options.time();
    let (mut ours, mut costs, mut reference) = (vec![], vec![], Ok(vec![]));
    for round in 0..context.options.rounds {
        context.server.checkpoint().await;
        let before = context.spent(Some(&service));
        let counted = rate(&service, &world, time).await;
        costs.push(before.each(context.spent(Some(&service)), counted.all));
        ours.push(counted.rate);
        context.rows(&mut reference, |rows| &rows.single).await;
        context.say(&format!("createProject over HTTP, round {}: {:.0}/s", round + 1, ours[round]));
    }
    let memory = vec![service.memory("VmHWM")];
    service.stop().await;
    vec![
        Figure::alone(GROUP, "createProject over HTTP, 128 connections", "/s", ours, Goal::Times(0.5, 1.0))
            .beside("single-row INSERT", &reference),
        context.cost(GROUP, &costs),
        Figure::alone(GROUP, "resident memory, most under this load", "MiB", memory, Goal::AtMost(250.0)),
    ]
}

/// Commands a second over HTTP.
pub async fn rate(service: &Service, world: &Arc<World>, time: std::time::Duration) -> Counted {
    let world = world.clone();
    load(service.address, CONNECTIONS, time, move |random| create_project(&world, random), created).await
}

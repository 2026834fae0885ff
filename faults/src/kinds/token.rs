//! API tokens.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{By, Kind, Limit, Rule, Status};
use crate::check::case::{CATALOGUE, Case, Rights};
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// The limit of living tokens.
const TOKENS: &str = "tokens";

/// An API token.
#[derive(Debug, Clone, Default)]
pub struct Token {
    pub place: Place,
    pub name: String,
    pub hint: String,
    pub secret: String,
    pub permissions: Vec<String>,
    pub created_by: String,
    pub responsible: String,
    pub state: String,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: Option<DateTime<Utc>>,
}

impl Token {
    /// The user who answers for it.
    pub fn person(&self) -> &str {
        self.responsible.split_once(':').map_or("", |(_, user)| user)
    }
}

pub static KIND: Kind = Kind {
    name: "ApiToken",
    prefix: "tok",
    rules: &[RULES],
    fold,
    after: &[],
    limit: Some(Limit { name: TOKENS, default: Some(100) }),
    tables: &[Table {
        name: "api_tokens",
        check: "the read model of API tokens equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) FROM api_tokens_1.api_tokens t",
        rows,
    }],
};

const RULES: &[Rule] = &[
    Rule::of("TokenCreated", Status::Create, &[By::MayIf(&["token:manage"], may_create)]).also(says_by_whom),
    Rule::of(
        "TokenRevoked",
        Status::If(may_be_revoked),
        &[By::May(&["token:read", "token:manage"]), By::If(ends_with_membership), By::If(is_left_behind)],
    ),
    Rule::of("TokenExpired", Status::Any, &[By::Service])
        .due(|case| case.before::<Token>().and_then(|token| token.expires_at))
        .after_purge(),
];

/// A token permits no more than its creator may do, and one that a token created does not outlive that.
fn may_create(case: &Case<'_>, rights: &Rights) -> bool {
    let permissions = case.event.texts("permissions");
    let known = permissions.iter().all(|name| CATALOGUE.contains(&name.as_str()));
    let within = permissions.iter().all(|name| rights.permissions.contains(name));
    let latest = case.token().and_then(|creator| creator.expires_at);
    let end = case.event.time("token_expires_at");
    let in_time = latest.is_none_or(|latest| end.is_some_and(|end| end <= latest));
    !permissions.is_empty() && known && within && in_time
}

/// Its creator answers for it; for one that a token created, the user who answers for that.
fn says_by_whom(case: &Case<'_>, findings: &mut Findings) {
    let event = case.event;
    let responsible = case.token().map_or(event.actor.as_str(), |creator| &creator.responsible);
    if event.text("created_by") != event.actor || event.text("responsible") != responsible {
        findings.add("a token says by whom it is, and who answers for it", || event.place());
    }
}

fn may_be_revoked(case: &Case<'_>) -> bool {
    Status::Remove.allows(case) || ends_with_membership(case) || is_left_behind(case)
}

/// Where the organization's policy wants it, tokens end with the membership of the user who answers for them.
fn ends_with_membership(case: &Case<'_>) -> bool {
    let Some(token) = case.before::<Token>() else { return false };
    let ends = |name: &str| matches!(name, "MemberRemoved" | "MemberLeft");
    let of_token = case.group.iter().any(|event| ends(&event.name) && event.text("user_id") == token.person());
    case.organization.revokes_tokens() && of_token
}

/// The service revokes the same later where nobody saw them then.
fn is_left_behind(case: &Case<'_>) -> bool {
    let Some(token) = case.before::<Token>() else { return false };
    let is_out = case.member(token.person()).is_some_and(|member| member.state == "REMOVED");
    case.is_service() && case.organization.revokes_tokens() && is_out
}

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: Token = fold.take();
    fold.expect(state.place.is_new() == (event.name == "TokenCreated"));
    state.place.move_to(event);
    match event.name.as_str() {
        "TokenCreated" => {
            state = Token {
                place: state.place,
                name: event.text("name").to_owned(),
                hint: event.text("hint").to_owned(),
                secret: event.text("secret_digest").to_owned(),
                permissions: event.texts("permissions"),
                created_by: event.text("created_by").to_owned(),
                responsible: event.text("responsible").to_owned(),
                state: "ACTIVE".to_owned(),
                expires_at: event.time("token_expires_at"),
                revoked_at: None,
                created_at: event.time("created_at"),
            };
            fold.claim_global("api_token", &state.secret, Some("token_expires_at"));
            fold.count(TOKENS, 1);
        }
        "TokenRevoked" => {
            end(&mut state, fold, "REVOKED");
            state.revoked_at = event.time("revoked_at");
        }
        "TokenExpired" => {
            fold.expect(event.time("expires_at") == state.expires_at);
            end(&mut state, fold, "EXPIRED");
        }
        _ => fold.unknown(),
    }
    // Lists show no state of a token.
    fold.put(state, "", "");
}

/// A token ends once.
fn end(state: &mut Token, fold: &mut Fold<'_>, to: &str) {
    fold.expect(state.state == "ACTIVE" && fold.event.text("secret_digest") == state.secret);
    state.state = to.to_owned();
    fold.release_global("api_token", &state.secret);
    fold.count(TOKENS, -1);
}

fn rows(model: &Model) -> Rows {
    let shown = model.all::<Token>().filter(|(_, t)| model.shows(&t.place.organization));
    let row = |t: &Token| {
        t.place.row(json!({
            "name": t.name, "hint": t.hint, "permissions": t.permissions, "created_by": t.created_by,
            "responsible": t.responsible, "state": t.state, "expires_at": t.expires_at, "revoked_at": t.revoked_at,
            "created_at": t.created_at,
        }))
    };
    shown.map(|(id, t)| (id.clone(), row(t))).collect()
}

/// What the clients do with it.
pub mod plans {
use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::clients::plans::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] =
    &[List { name: "apiTokens", prefix: "tok", fields: "id version revokedAt", parts: &["(last: 20)"] }];

pub const PLANS: &[Plan] = &[
    Plan {
        mutation: "createApiToken",
        weight: 5,
        input: "CreateApiTokenInput",
        select: "token { id version } secret",
        make: create,
    },
    Plan {
        mutation: "revokeApiToken",
        weight: 3,
        input: "ApiTokenCommandInput",
        select: "token { id version }",
        make: revoke,
    },
];

fn create(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let permissions: &[&str] = match planner.below(4) {
        0 => &["organization:read"],
        1 => &["organization:read", "project:read", "project:create", "project:update", "project:delete"],
        2 => &["organization:read", "token:read", "token:manage", "project:read", "project:create"],
        _ => &["organization:read", "member:read", "member:invite", "invitation:read", "member:suspend", "member:add"],
    };
    let mut input = json!({"organizationId": planner.id(), "name": "A token of this run", "permissions": permissions});
    if planner.chance(0.3) {
        // Some run out while others work.
        input["expiresAt"] = json!(Utc::now() + TimeDelta::seconds(i64::from(5 + planner.below(120))));
    }
    Some(give(mutation, planner.actor()?, input, None))
}

fn revoke(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let token = planner.thing("apiTokens", 0.9, |token| token.node["revokedAt"].is_null())?;
    Some(give(mutation, planner.actor()?, json!({"tokenId": token.id}), Some(token.version)))
}
}

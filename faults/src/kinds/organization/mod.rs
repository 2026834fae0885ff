//! Organizations: profile, status on two axes, plan and limits, holds, and the end. Own roles and offers of ownership
//! stand beside this, in [`roles`] and [`ownership`].

mod limits;
pub mod ownership;
pub mod plans;
pub mod roles;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

pub use self::ownership::Offer;
pub use self::roles::{Role, holders};
use super::{After, By, Kind, Rule, Status};
use crate::check::case::Case;
use crate::check::event::Event;
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::check::model::{Model, Place, Tally};
use crate::check::tables::{Rows, Table};

/// The tally of active owners.
pub const OWNERS: &str = "owners";

/// An organization.
#[derive(Debug, Clone, Default)]
pub struct Organization {
    pub place: Place,
    /// Gone for good.
    pub purged: bool,
    pub name: String,
    pub slug: String,
    pub has_contact: bool,
    pub external_id: Option<String>,
    pub verification: String,
    pub verification_reason: Option<String>,
    pub before_block: String,
    pub once_verified: bool,
    pub lifecycle: String,
    pub before_deletion: String,
    pub deleted_by_operator: bool,
    pub purge_at: Option<DateTime<Utc>>,
    pub held_since: Option<DateTime<Utc>>,
    pub plan: String,
    pub plan_limits: BTreeMap<String, Option<i64>>,
    pub overrides: BTreeMap<String, Option<i64>>,
    pub settings: BTreeMap<String, (Value, i64)>,
    /// Own roles by name.
    pub roles: BTreeMap<String, Role>,
    pub removed_roles: BTreeSet<String>,
    pub offer: Option<Offer>,
    /// What is counted, by name.
    pub tallies: BTreeMap<String, Tally>,
    pub created_at: Option<DateTime<Utc>>,
}

impl Organization {
    /// How much is used of something that is counted.
    pub fn used(&self, name: &str) -> i64 {
        self.tallies.get(name).map_or(0, |tally| tally.used)
    }

    /// Whether only its owners, and operators, see it.
    pub fn is_hidden(&self) -> bool {
        self.verification == "BLOCKED" || self.lifecycle == "DELETED"
    }

    fn policy(&self, key: &str) -> Option<&str> {
        self.settings.get("policies").and_then(|(document, _)| document[key].as_str())
    }

    /// Whether invitations by a removed member stay.
    pub fn keeps_invitations(&self) -> bool {
        self.policy("invitationsOfRemovedMembers") == Some("keep")
    }

    /// Whether the tokens that a removed member answers for end.
    pub fn revokes_tokens(&self) -> bool {
        self.policy("tokensOfRemovedMembers") == Some("revoke")
    }
}

pub static KIND: Kind = Kind {
    name: "Organization",
    prefix: "org",
    rules: &[RULES, limits::RULES, roles::RULES, ownership::RULES],
    fold,
    after: &[limits::hold, has_an_owner, is_created_whole, roles::are_vacant_when_removed, ownership::stands],
    limit: None,
    tables: &[
        Table {
            name: "organizations",
            check: "the read model of organizations equals a fold of the log",
            statement: "SELECT id, to_jsonb(t) - 'contact_email' FROM organizations_1.organizations t",
            rows,
        },
        Table {
            name: "settings",
            check: "the read model of settings equals a fold of the log",
            statement: "SELECT organization_id || ' ' || namespace, to_jsonb(t) FROM organizations_1.settings t",
            rows: settings_rows,
        },
    ],
};

const UPDATE: By = By::May(&["organization:update"]);
const DELETE: By = By::May(&["organization:delete"]);
const REVIEW: By = By::Operator;

const RULES: &[Rule] = &[
    // A creation is one decision, and is judged as a whole: see `rules`.
    Rule::of("OrgCreated", Status::Any, &[]),
    Rule::of("OrgRenamed", Status::Edit, &[UPDATE]),
    Rule::of("OrgSlugChanged", Status::Edit, &[UPDATE]),
    Rule::of("OrgContactChanged", Status::If(may_change_contact), &[UPDATE, By::If(is_cleared_by_erasure)]),
    Rule::of("OrgExternalIdChanged", Status::Remove, &[By::Operator]),
    Rule::of("OrgSettingsUpdated", Status::Edit, &[UPDATE]),
    Rule::of("OrgSubmitted", Status::Submit, &[By::May(&["organization:submit"])]),
    Rule::of("OrgVerified", Status::Remove, &[REVIEW]),
    Rule::of("OrgRejected", Status::Remove, &[REVIEW]),
    Rule::of("OrgWaitlisted", Status::Remove, &[REVIEW]),
    Rule::of("OrgReopened", Status::Remove, &[REVIEW]),
    Rule::of("OrgReviewRestarted", Status::Remove, &[REVIEW]),
    Rule::of("OrgBlocked", Status::Remove, &[REVIEW]),
    Rule::of("OrgUnblocked", Status::Remove, &[REVIEW]),
    Rule::of("OrgDeactivated", Status::Active, &[REVIEW]),
    Rule::of("OrgActivated", Status::Inactive, &[REVIEW]),
    Rule::of("OrgDeleted", Status::If(may_be_deleted), &[DELETE]).also(says_by_whom),
    Rule::of("OrgRestored", Status::If(may_be_restored), &[DELETE]),
    Rule::of("OrgLegalHoldSet", Status::Any, &[REVIEW]),
    Rule::of("OrgLegalHoldReleased", Status::Any, &[REVIEW]),
    Rule::of("OrgPurged", Status::Deleted, &[By::Service]).due(|case| case.organization.purge_at).also(is_not_held),
    // Nothing of a pruned organization is folded, this event neither.
    Rule::of("OrgPruned", Status::Any, &[By::Service]).after_purge(),
];

/// The address of somebody who was erased goes in any status.
fn is_cleared_by_erasure(case: &Case<'_>) -> bool {
    case.event.body["contact_email"].is_null() && (case.is_operator() || case.is_service())
}

fn may_change_contact(case: &Case<'_>) -> bool {
    Status::Edit.allows(case) || is_cleared_by_erasure(case)
}

fn may_be_deleted(case: &Case<'_>) -> bool {
    match case.organization.lifecycle.as_str() {
        "ACTIVE" => case.organization.verification != "BLOCKED" || case.is_operator(),
        lifecycle => lifecycle == "INACTIVE",
    }
}

fn may_be_restored(case: &Case<'_>) -> bool {
    Status::Deleted.allows(case) && (case.is_operator() || !case.organization.deleted_by_operator)
}

fn says_by_whom(case: &Case<'_>, findings: &mut Findings) {
    if case.event.body["by_operator"] != json!(case.is_operator()) {
        findings.add("a deletion says whether an operator did it", || case.event.place());
    }
}

/// Nothing of an organization is purged while a legal hold stands.
pub fn is_not_held(case: &Case<'_>, findings: &mut Findings) {
    if case.organization.held_since.is_some() {
        findings.add("nothing that is held is purged, and nobody in it erased", || case.event.place());
    }
}

/// No command takes the last owner of a living organization. A deleted one loses its owners by erasures, and has none when
/// an operator restores it.
fn has_an_owner(after: &After<'_>, findings: &mut Findings) {
    let created = after.group.iter().any(|event| event.name == "OrgCreated");
    let had = created || after.before.get(OWNERS).is_some_and(|owners| owners.used > 0);
    let living = after.organization.lifecycle != "DELETED";
    if living && had && after.organization.used(OWNERS) < 1 {
        findings.add("a living organization has an owner", || after.group[0].place());
    }
}

/// A creation comes with its owner.
fn is_created_whole(after: &After<'_>, findings: &mut Findings) {
    let has = |name: &str| after.group.iter().any(|event| event.name == name);
    if has("OrgCreated") && !has("MemberJoined") {
        findings.add("an organization is created with its owner", || after.group[0].place());
    }
}

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state = fold.model.organizations.remove(&event.stream).unwrap_or_default();
    fold.expect(state.place.is_new() == (event.name == "OrgCreated") && !state.purged);
    fold.expect(event.organization.as_ref() == Some(&event.stream));
    state.place.move_to(event);
    match event.name.as_str() {
        "OrgCreated" => create(&mut state, fold),
        "OrgRenamed" | "OrgSlugChanged" | "OrgContactChanged" | "OrgExternalIdChanged" | "OrgSettingsUpdated" => {
            profile(&mut state, fold);
        }
        "OrgDeactivated" | "OrgActivated" | "OrgDeleted" | "OrgRestored" | "OrgPurged" | "OrgLegalHoldSet"
        | "OrgLegalHoldReleased" => lifecycle(&mut state, fold),
        "OrgPruned" => fold.expect(false),
        "OrgLimitSet" => limits::set(&mut state, fold),
        "OrgPlanChanged" => limits::change_plan(&mut state, fold),
        "LimitReached" => limits::reach(&mut state, fold),
        "RoleDefined" | "RoleChanged" | "RoleRemoved" => roles::fold(&mut state, fold),
        "OwnershipOffered" | "OwnershipAccepted" | "OwnershipOfferWithdrawn" => ownership::fold(&mut state, fold),
        _ => review(&mut state, fold),
    }
    fold.face(&format!("{} {}", state.verification, state.lifecycle), &state.slug);
    fold.model.organizations.insert(event.stream.clone(), state);
}

fn create(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    *state = Organization {
        place: state.place.clone(),
        name: event.text("name").to_owned(),
        slug: event.text("slug").to_owned(),
        has_contact: !event.body["contact_email"].is_null(),
        external_id: event.optional("external_id"),
        verification: "IN_SETUP".to_owned(),
        before_block: "IN_SETUP".to_owned(),
        lifecycle: "ACTIVE".to_owned(),
        before_deletion: "ACTIVE".to_owned(),
        plan: event.text("plan").to_owned(),
        created_at: event.time("created_at"),
        ..Organization::default()
    };
    limits::begin(state, event);
    fold.claim_global("organization_slug", event.text("slug"), None);
    if let Some(id) = &state.external_id {
        fold.claim_global("external_id", id, None);
    }
}

fn profile(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    match event.name.as_str() {
        "OrgRenamed" => {
            fold.expect(event.text("previous_name") == state.name);
            state.name = event.text("name").to_owned();
        }
        "OrgSlugChanged" => {
            fold.expect(event.text("previous_slug") == state.slug);
            state.slug = event.text("slug").to_owned();
            fold.release_global("organization_slug", event.text("previous_slug"));
            fold.claim_global("organization_slug", event.text("slug"), None);
        }
        "OrgContactChanged" => {
            fold.expect(event.body["previous_contact_email"].is_null() != state.has_contact);
            state.has_contact = !event.body["contact_email"].is_null();
        }
        "OrgExternalIdChanged" => {
            fold.expect(event.optional("previous_external_id") == state.external_id);
            let before = std::mem::replace(&mut state.external_id, event.optional("external_id"));
            before.iter().for_each(|id| fold.release_global("external_id", id));
            state.external_id.iter().for_each(|id| fold.claim_global("external_id", id, None));
        }
        _ => settings(state, fold),
    }
}

fn settings(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    let namespace = event.text("namespace");
    let before = state.settings.get(namespace).map_or(&Value::Null, |(value, _)| value);
    fold.expect(event.body["previous_value"] == *before);
    match &event.body["value"] {
        Value::Null => drop(state.settings.remove(namespace)),
        value => drop(state.settings.insert(namespace.to_owned(), (value.clone(), event.offset))),
    }
}

fn lifecycle(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    match event.name.as_str() {
        "OrgDeactivated" => state.lifecycle = "INACTIVE".to_owned(),
        "OrgActivated" => state.lifecycle = "ACTIVE".to_owned(),
        "OrgDeleted" => {
            fold.expect(event.text("previous_lifecycle") == state.lifecycle && state.lifecycle != "DELETED");
            state.before_deletion = std::mem::replace(&mut state.lifecycle, "DELETED".to_owned());
            state.deleted_by_operator = event.body["by_operator"] == Value::Bool(true);
            state.purge_at = event.time("purge_at");
            state.tallies.entry(OWNERS.to_owned()).or_default().floor = 0;
        }
        "OrgRestored" => {
            fold.expect(event.text("lifecycle") == state.before_deletion && state.lifecycle == "DELETED");
            state.lifecycle = event.text("lifecycle").to_owned();
            (state.deleted_by_operator, state.purge_at) = (false, None);
            state.tallies.entry(OWNERS.to_owned()).or_default().floor = 1;
        }
        "OrgPurged" => {
            fold.expect(event.text("slug") == state.slug && event.optional("external_id") == state.external_id);
            state.purged = true;
            fold.model.keys_destroyed.insert(event.stream.clone());
            fold.release_global("organization_slug", event.text("slug"));
            state.external_id.iter().for_each(|id| fold.release_global("external_id", id));
        }
        "OrgLegalHoldSet" => {
            fold.expect(state.held_since.is_none());
            state.held_since = event.time("held_since");
        }
        _ => {
            fold.expect(state.held_since.is_some() && event.time("held_since") == state.held_since);
            state.held_since = None;
        }
    }
}

/// A step along the verification axis, by the table of the design.
fn review(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    let from = state.verification.clone();
    let to = match (event.name.as_str(), from.as_str()) {
        ("OrgSubmitted", "IN_SETUP") => "PENDING",
        // A deployment that verifies nothing says so at the creation.
        ("OrgVerified", "PENDING") => "VERIFIED",
        ("OrgVerified", "IN_SETUP") if event.version == 2 => "VERIFIED",
        ("OrgRejected", "PENDING") => "REJECTED",
        ("OrgWaitlisted", "IN_SETUP" | "PENDING") => "WAITLISTED",
        ("OrgReopened", "REJECTED" | "WAITLISTED" | "PENDING") => "IN_SETUP",
        ("OrgReviewRestarted", "VERIFIED") => "PENDING",
        ("OrgBlocked", from) if from != "BLOCKED" => "BLOCKED",
        ("OrgUnblocked", "BLOCKED") => &state.before_block,
        ("OrgSubmitted" | "OrgVerified" | "OrgRejected" | "OrgWaitlisted" | "OrgReopened", _)
        | ("OrgReviewRestarted" | "OrgBlocked" | "OrgUnblocked", _) => "no such step",
        _ => return fold.unknown(),
    };
    fold.expect(event.text("verification") == to && event.text("previous_verification") == from);
    if event.name == "OrgBlocked" {
        state.before_block = from;
    }
    state.verification = event.text("verification").to_owned();
    state.once_verified |= state.verification == "VERIFIED";
    state.verification_reason = event.optional("reason");
}

fn rows(model: &Model) -> Rows {
    let row = |o: &Organization| {
        let mut row = o.place.row(json!({
            "slug": o.slug, "name": o.name, "external_id": o.external_id, "verification": o.verification,
            "verification_reason": o.verification_reason, "before_block": o.before_block,
            "once_verified": o.once_verified, "lifecycle": o.lifecycle, "before_deletion": o.before_deletion,
            "deleted_by_operator": o.deleted_by_operator, "purge_at": o.purge_at, "plan": o.plan,
            "created_at": o.created_at,
        }));
        row.as_object_mut().map(|columns| columns.remove("organization_id"));
        row
    };
    model.organizations.iter().filter(|(_, o)| !o.purged).map(|(id, o)| (id.clone(), row(o))).collect()
}

fn settings_rows(model: &Model) -> Rows {
    let mut rows = Rows::new();
    for (id, organization) in model.organizations.iter().filter(|(_, organization)| !organization.purged) {
        for (namespace, (value, offset)) in &organization.settings {
            let row = json!({"value": value, "partition": organization.place.partition, "offset": offset});
            rows.insert(format!("{id} {namespace}"), row);
        }
    }
    rows
}

/// The text of an event that a step of the organization's own belongs to, for other files of this folder.
fn named(event: &Event, field: &str) -> String {
    event.text(field).to_owned()
}

//! The fold: what each event makes of the state, and whether it fits the state that it finds. Events say what was
//! before; one that says otherwise was decided on something old.

use serde_json::Value;

use super::event::Event;
use super::findings::Findings;
use super::model::{Claim, Endpoint, Face, GlobalChange, Invitation, Model, Organization, Project, User};

const FITS: &str = "an event fits the state that it changes";

/// Applies an event.
pub fn apply(model: &mut Model, event: &Event, findings: &mut Findings) {
    model.heads.insert(event.partition, event.offset);
    match event.kind.as_str() {
        "Organization" => organization(model, event, findings),
        "Membership" => membership(model, event, findings),
        "Invitation" => invitation(model, event, findings),
        "Project" => project(model, event, findings),
        "User" => user(model, event, findings),
        "WebhookEndpoint" => webhook(model, event, findings),
        _ => findings.add("streams are of known kinds", || event.place()),
    }
    if event.kind == "Organization"
        && let Some(organization) = model.organizations.get_mut(&event.stream)
    {
        organization.offset = event.offset;
    }
}

fn expect(holds: bool, event: &Event, findings: &mut Findings) {
    if !holds {
        findings.add(FITS, || format!("{}: {}", event.place(), event.body));
    }
}

fn face(model: &mut Model, event: &Event, state: String, more: String) {
    model.faces.entry(event.stream.clone()).or_default().push(Face { state, more });
}

/// Claims a key of an organization, or releases it.
fn claim_local(model: &mut Model, event: &Event, scope: &'static str, key: &str, take: bool, findings: &mut Findings) {
    let organization = event.organization.clone().unwrap_or_default();
    let key = (scope.to_owned(), format!("{organization}/{key}"));
    let holder = model.claims.get(&key).map(|claim| claim.holder.clone());
    let taken = holder.as_ref().is_some_and(|holder| *holder != event.stream);
    if take && taken {
        let found = || format!("{}: {} is held by {holder:?}", event.place(), key.1);
        findings.add(
            if scope == "project_slug" { "a project's slug is unique" } else { "an address has one open invitation" },
            found,
        );
    }
    if take {
        let until = event.time("expires_at");
        let claim =
            Claim { holder: event.stream.clone(), organization: Some(organization), partition: event.partition, until };
        model.claims.insert(key, claim);
    } else {
        expect(holder.as_ref() == Some(&event.stream), event, findings);
        model.claims.remove(&key);
    }
}

/// Notes a change of a key that is unique over all partitions; these are judged in the order of transactions later.
fn claim_global(model: &mut Model, event: &Event, scope: &'static str, key: &str, take: bool) {
    let claim = Claim {
        holder: event.stream.clone(),
        organization: event.organization.clone(),
        partition: event.partition,
        until: None,
    };
    model.global_changes.push(GlobalChange {
        transaction: event.transaction,
        partition: event.partition,
        place: event.place(),
        scope,
        key: key.to_owned(),
        claim: take.then_some(claim),
        holder: event.stream.clone(),
    });
}

fn maximum(value: &Value) -> Option<i64> {
    value.as_i64()
}

fn set_maximum(organization: &mut Organization, name: &str, maximum: Option<i64>) {
    if let Some(limit) = organization.limit_mut(name) {
        (limit.maximum, limit.reached) = (maximum, false);
    }
}

fn organization(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state = model.organizations.remove(&event.stream).unwrap_or_default();
    expect(state.exists != (event.name == "OrgCreated"), event, findings);
    expect(event.organization.as_ref() == Some(&event.stream), event, findings);
    state.version = event.version;
    let optional = |field: &str| event.body[field].as_str().map(str::to_owned);
    match event.name.as_str() {
        "OrgCreated" => {
            create_organization(&mut state, event);
            claim_global(model, event, "organization_slug", event.text("slug"), true);
            if let Some(id) = &state.external_id {
                claim_global(model, event, "external_id", id, true);
            }
        }
        "OrgRenamed" => {
            expect(event.text("previous_name") == state.name, event, findings);
            state.name = event.text("name").to_owned();
        }
        "OrgSlugChanged" => {
            expect(event.text("previous_slug") == state.slug, event, findings);
            state.slug = event.text("slug").to_owned();
            claim_global(model, event, "organization_slug", event.text("previous_slug"), false);
            claim_global(model, event, "organization_slug", event.text("slug"), true);
        }
        "OrgExternalIdChanged" => {
            expect(optional("previous_external_id") == state.external_id, event, findings);
            state.external_id = optional("external_id");
            if let Some(before) = optional("previous_external_id") {
                claim_global(model, event, "external_id", &before, false);
            }
            if let Some(id) = &state.external_id {
                claim_global(model, event, "external_id", id, true);
            }
        }
        "OrgSettingsUpdated" => settings(&mut state, event, findings),
        "OrgDeactivated" => state.lifecycle = "INACTIVE".to_owned(),
        "OrgActivated" => state.lifecycle = "ACTIVE".to_owned(),
        "OrgDeleted" => {
            expect(
                event.text("previous_lifecycle") == state.lifecycle && state.lifecycle != "DELETED",
                event,
                findings,
            );
            state.before_deletion = std::mem::replace(&mut state.lifecycle, "DELETED".to_owned());
            state.deleted_by_operator = event.body["by_operator"] == Value::Bool(true);
            state.purge_at = event.time("purge_at");
            state.owners_floor = 0;
        }
        "OrgRestored" => {
            expect(event.text("lifecycle") == state.before_deletion && state.lifecycle == "DELETED", event, findings);
            state.lifecycle = event.text("lifecycle").to_owned();
            (state.deleted_by_operator, state.purge_at, state.owners_floor) = (false, None, 1);
        }
        "OrgPurged" => {
            expect(event.text("slug") == state.slug && optional("external_id") == state.external_id, event, findings);
            expect(!state.purged, event, findings);
            state.purged = true;
            claim_global(model, event, "organization_slug", event.text("slug"), false);
            if let Some(id) = &state.external_id {
                claim_global(model, event, "external_id", id, false);
            }
        }
        "OrgLimitSet" | "OrgPlanChanged" => limits(&mut state, event, findings),
        "LimitReached" => {
            if let Some(limit) = state.limit_mut(event.text("limit")) {
                limit.reached = true;
            }
        }
        "OrgContactChanged" => {}
        _ => review(&mut state, event, findings),
    }
    let shown = format!("{} {}", state.verification, state.lifecycle);
    face(model, event, shown, state.slug.clone());
    model.organizations.insert(event.stream.clone(), state);
}

fn create_organization(state: &mut Organization, event: &Event) {
    let limits = event.body["limits"].as_object().cloned().unwrap_or_default();
    *state = Organization {
        exists: true,
        name: event.text("name").to_owned(),
        slug: event.text("slug").to_owned(),
        external_id: event.body["external_id"].as_str().map(str::to_owned),
        verification: "IN_SETUP".to_owned(),
        before_block: "IN_SETUP".to_owned(),
        lifecycle: "ACTIVE".to_owned(),
        before_deletion: "ACTIVE".to_owned(),
        plan: event.text("plan").to_owned(),
        plan_limits: limits.iter().map(|(name, value)| (name.clone(), maximum(value))).collect(),
        owners_floor: 1,
        created_at: event.time("created_at"),
        version: event.version,
        partition: event.partition,
        ..Organization::default()
    };
    for name in ["members", "projects"] {
        set_maximum(state, name, limits.get(name).and_then(maximum));
    }
}

fn settings(state: &mut Organization, event: &Event, findings: &mut Findings) {
    let namespace = event.text("namespace");
    let before = state.settings.get(namespace).map_or(&Value::Null, |(value, _)| value);
    expect(event.body["previous_value"] == *before, event, findings);
    match &event.body["value"] {
        Value::Null => drop(state.settings.remove(namespace)),
        value => drop(state.settings.insert(namespace.to_owned(), (value.clone(), event.offset))),
    }
}

fn limits(state: &mut Organization, event: &Event, findings: &mut Findings) {
    if event.name == "OrgLimitSet" {
        let name = event.text("limit").to_owned();
        let to = maximum(&event.body["maximum"]);
        expect(maximum(&event.body["previous_maximum"]) == state.limit(&name).and_then(|l| l.maximum), event, findings);
        if event.body["from_plan"] == Value::Bool(true) {
            expect(to == state.plan_limits.get(&name).copied().flatten(), event, findings);
            state.overrides.remove(&name);
        } else {
            state.overrides.insert(name.clone(), to);
        }
        return set_maximum(state, &name, to);
    }
    expect(event.text("previous_plan") == state.plan, event, findings);
    state.plan = event.text("plan").to_owned();
    let limits = event.body["limits"].as_object().cloned().unwrap_or_default();
    state.plan_limits = limits.iter().map(|(name, value)| (name.clone(), maximum(value))).collect();
    for name in ["members", "projects"] {
        let to = maximum(&event.body["maximums"][name]);
        let planned = state.plan_limits.get(name).copied().flatten();
        expect(to == state.overrides.get(name).copied().unwrap_or(planned), event, findings);
        set_maximum(state, name, to);
    }
}

/// A step along the verification axis, by the table of the design.
fn review(state: &mut Organization, event: &Event, findings: &mut Findings) {
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
        _ => "no such step",
    };
    expect(event.text("verification") == to && event.text("previous_verification") == from, event, findings);
    if event.name == "OrgBlocked" {
        state.before_block = from;
    }
    state.verification = event.text("verification").to_owned();
    state.once_verified |= state.verification == "VERIFIED";
    state.verification_reason = event.body["reason"].as_str().map(str::to_owned);
}

/// Counts more or fewer of something in the event's organization. Fewer is room: the next refusal is worth a record.
fn count(model: &mut Model, event: &Event, members: i64, owners: i64, projects: i64) {
    let Some(organization) = event.organization.as_ref().and_then(|id| model.organizations.get_mut(id)) else { return };
    organization.used.members += members;
    organization.used.owners += owners;
    organization.used.projects += projects;
    organization.members_limit.reached &= members >= 0;
    organization.projects_limit.reached &= projects >= 0;
}

fn webhook(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state = model.endpoints.remove(&event.stream).unwrap_or_default();
    expect((state.version == 0) == (event.name == "WebhookCreated") && !state.deleted, event, findings);
    state.version = event.version;
    let path = |url: &str| url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
    let organization = event.organization.as_ref().and_then(|id| model.organizations.get_mut(id));
    match event.name.as_str() {
        "WebhookCreated" => {
            state = Endpoint {
                organization: event.organization.clone().unwrap_or_default(),
                path: path(event.text("url")),
                in_order: event.text("ordering") == "PER_SUBJECT",
                enabled: true,
                deleted: false,
                created: event.audit.unwrap_or_default(),
                version: event.version,
            };
            organization.into_iter().for_each(|organization| organization.used.webhooks += 1);
        }
        "WebhookDisabled" => {
            expect(state.enabled, event, findings);
            state.enabled = false;
        }
        "WebhookEnabled" => {
            expect(!state.enabled, event, findings);
            state.enabled = true;
        }
        "WebhookDeleted" => {
            state.deleted = true;
            organization.into_iter().for_each(|organization| organization.used.webhooks -= 1);
        }
        _ => {}
    }
    model.endpoints.insert(event.stream.clone(), state);
}

fn owners(roles: &[String]) -> i64 {
    i64::from(roles.iter().any(|role| role == "owner"))
}

fn membership(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state = model.members.remove(&event.stream).unwrap_or_default();
    let roles = event.texts("roles");
    let user = event.text("user_id").to_owned();
    expect(state.version == 0 || state.user == user, event, findings);
    (state.version, state.offset) = (event.version, event.offset);
    match event.name.as_str() {
        "MemberJoined" => {
            expect(state.state != "ACTIVE" && state.state != "SUSPENDED", event, findings);
            if state.created_at.is_none() {
                state.created_at = event.time("joined_at");
                state.organization = event.organization.clone().unwrap_or_default();
                state.user.clone_from(&user);
                state.partition = event.partition;
                let key = (state.organization.clone(), user);
                let other = model.membership_of.insert(key, event.stream.clone());
                if other.is_some() {
                    findings.add("a user has one membership in an organization", || event.place());
                }
            }
            state.joined_at = event.time("joined_at");
            state.source = event.text("source").to_owned();
            state.state = "ACTIVE".to_owned();
            let seat = i64::from(event.body["invitation_id"].is_null());
            // A seat that was kept goes over: the invitation gives it up when it is settled.
            count(model, event, seat, owners(&roles), 0);
            state.roles = roles;
        }
        "MemberRolesChanged" => {
            expect(state.is_active() && event.texts("previous_roles") == state.roles, event, findings);
            count(model, event, 0, owners(&roles) - owners(&state.roles), 0);
            state.roles = roles;
        }
        "MemberSuspended" => {
            expect(state.is_active() && roles == state.roles, event, findings);
            state.state = "SUSPENDED".to_owned();
            count(model, event, -1, -owners(&roles), 0);
        }
        "MemberReinstated" => {
            expect(state.state == "SUSPENDED" && roles == state.roles, event, findings);
            state.state = "ACTIVE".to_owned();
            count(model, event, 1, owners(&roles), 0);
        }
        "MemberRemoved" | "MemberLeft" => {
            let before = event.text("previous_state");
            expect(before == state.state && before != "REMOVED" && roles == state.roles, event, findings);
            if state.is_active() {
                count(model, event, -1, -owners(&roles), 0);
            }
            state.state = "REMOVED".to_owned();
            state.ended = Some(event.offset);
        }
        _ => findings.add("events are of known kinds", || event.place()),
    }
    face(model, event, state.state.clone(), state.roles.join(","));
    model.members.insert(event.stream.clone(), state);
}

fn invitation(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state: Invitation = model.invitations.remove(&event.stream).unwrap_or_default();
    let address = event.text("email_claim").to_owned();
    let opens = event.name == "MemberInvited";
    expect(
        if opens { state.version == 0 } else { state.state == "PENDING" && state.address == address },
        event,
        findings,
    );
    if !opens && state.state != "PENDING" {
        findings.add("an invitation ends once", || format!("{}: it was {}", event.place(), state.state));
    }
    (state.version, state.offset) = (event.version, event.offset);
    match event.name.as_str() {
        "MemberInvited" => {
            state.organization = event.organization.clone().unwrap_or_default();
            state.partition = event.partition;
            state.address.clone_from(&address);
            state.roles = event.texts("roles");
            state.invited_by = event.text("invited_by").to_owned();
            state.made = event.offset;
            (state.expires_at, state.created_at) = (event.time("expires_at"), event.time("created_at"));
            state.state = "PENDING".to_owned();
            claim_local(model, event, "open_invitation", &address, true, findings);
            count(model, event, 1, 0, 0);
        }
        "InvitationResent" => {
            expect(event.time("previous_expires_at") == state.expires_at, event, findings);
            state.expires_at = event.time("expires_at");
            claim_local(model, event, "open_invitation", &address, true, findings);
        }
        settled => {
            state.state = match settled {
                "InvitationAccepted" => "ACCEPTED",
                "InvitationDeclined" => "DECLINED",
                "InvitationRevoked" => "REVOKED",
                _ => "EXPIRED",
            }
            .to_owned();
            state.accepted_by = (settled == "InvitationAccepted").then(|| event.text("user_id").to_owned());
            claim_local(model, event, "open_invitation", &address, false, findings);
            let goes_over = settled == "InvitationAccepted" && event.body["seat_freed"] == Value::Bool(false);
            count(model, event, if goes_over { 0 } else { -1 }, 0, 0);
        }
    }
    face(model, event, state.state.clone(), state.roles.join(","));
    model.invitations.insert(event.stream.clone(), state);
}

fn project(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state: Project = model.projects.remove(&event.stream).unwrap_or_default();
    expect((state.version == 0) == (event.name == "ProjectCreated") && !state.purged, event, findings);
    (state.version, state.offset) = (event.version, event.offset);
    let slug = event.text("slug").to_owned();
    let live = state.state == "ACTIVE" || state.state == "ARCHIVED";
    match event.name.as_str() {
        "ProjectCreated" => {
            state.organization = event.organization.clone().unwrap_or_default();
            state.partition = event.partition;
            state.name = event.text("name").to_owned();
            state.slug.clone_from(&slug);
            state.metadata = event.body["metadata"].clone();
            state.created_at = event.time("created_at");
            (state.state, state.before_deletion) = ("ACTIVE".to_owned(), "ACTIVE".to_owned());
            claim_local(model, event, "project_slug", &slug, true, findings);
            count(model, event, 0, 0, 1);
        }
        "ProjectRenamed" => {
            expect(live && event.text("previous_name") == state.name, event, findings);
            state.name = event.text("name").to_owned();
        }
        "ProjectSlugChanged" => {
            expect(live && event.text("previous_slug") == state.slug, event, findings);
            claim_local(model, event, "project_slug", event.text("previous_slug"), false, findings);
            claim_local(model, event, "project_slug", &slug, true, findings);
            state.slug = slug;
        }
        "ProjectMetadataChanged" => {
            expect(live && event.body["previous_metadata"] == state.metadata, event, findings);
            state.metadata = event.body["metadata"].clone();
        }
        "ProjectArchived" => {
            expect(state.state == "ACTIVE", event, findings);
            state.state = "ARCHIVED".to_owned();
        }
        "ProjectUnarchived" => {
            expect(state.state == "ARCHIVED", event, findings);
            state.state = "ACTIVE".to_owned();
        }
        "ProjectDeleted" => {
            let before = event.text("previous_project_state");
            expect(live && before == state.state && slug == state.slug, event, findings);
            state.before_deletion = std::mem::replace(&mut state.state, "DELETED".to_owned());
            state.purge_at = event.time("purge_at");
            claim_local(model, event, "project_slug", &slug, false, findings);
            count(model, event, 0, 0, -1);
        }
        "ProjectRestored" => {
            let fits = state.state == "DELETED" && event.text("project_state") == state.before_deletion;
            expect(fits && slug == state.slug, event, findings);
            state.state = event.text("project_state").to_owned();
            state.purge_at = None;
            claim_local(model, event, "project_slug", &slug, true, findings);
            count(model, event, 0, 0, 1);
        }
        "ProjectPurged" => {
            expect(state.state == "DELETED" && slug == state.slug, event, findings);
            state.purged = true;
        }
        _ => findings.add("events are of known kinds", || event.place()),
    }
    face(model, event, state.state.clone(), state.slug.clone());
    model.projects.insert(event.stream.clone(), state);
}

fn user(model: &mut Model, event: &Event, findings: &mut Findings) {
    let mut state: User = model.users.remove(&event.stream).unwrap_or_default();
    expect((state.version == 0) == (event.name == "UserRegistered"), event, findings);
    if event.name == "UserRegistered" {
        (state.created_at, state.partition) = (Some(event.at), event.partition);
        claim_global(model, event, "identity", event.text("identity_claim"), true);
    }
    (state.version, state.offset) = (event.version, event.offset);
    model.users.insert(event.stream.clone(), state);
}

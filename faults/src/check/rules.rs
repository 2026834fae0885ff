//! The rules, held against every event of the log in turn: not only what is left at the end.
//!
//! A command is judged as a whole, by the state before its first event: who acts, what the organization's status
//! allows, whether each event fits the state that it changes (it names the old value), and after its last event
//! whether seats and owners are as they must be.

use serde_json::Value;

use super::event::Event;
use super::findings::Findings;
use super::fold;
use super::log::groups;
use super::model::{Model, Organization, Used};

/// Who may do what inside an organization: the roles that are enough.
const RUN: &[&str] = &["owner", "admin"];
const WORK: &[&str] = &["owner", "admin", "member"];
const OWN: &[&str] = &["owner"];

/// What a deployment of this kind leaves to the checker to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// Whether clocks of services were set during the run: then what time does is not compared with times.
    pub clocks_were_set: bool,
}

/// Folds the whole log, and holds each command against the rules.
pub fn check(events: &[Event], surroundings: Surroundings, findings: &mut Findings) -> Model {
    let mut model = Model::default();
    for group in groups(events) {
        let before = Before::of(&model, group);
        for event in group {
            judge(&model, group, event, surroundings, findings);
            fold::apply(&mut model, event, findings);
        }
        before.compare(&model, group, findings);
    }
    model
}

/// What a command is measured by.
struct Before {
    organization: Option<String>,
    used: Used,
}

impl Before {
    fn of(model: &Model, group: &[Event]) -> Self {
        let organization = group.first().and_then(|event| event.organization.clone());
        let used = organization.as_ref().and_then(|id| model.organizations.get(id)).map(|o| o.used).unwrap_or_default();
        Self { organization, used }
    }

    fn compare(&self, model: &Model, group: &[Event], findings: &mut Findings) {
        let (Some(id), Some(event)) = (&self.organization, group.last()) else { return };
        let Some(organization) = model.organizations.get(id) else { return };
        let after = organization.used;
        let seats = [
            ("members", self.used.members, after.members, organization.members_limit.maximum),
            ("projects", self.used.projects, after.projects, organization.projects_limit.maximum),
        ];
        for (name, before, after, maximum) in seats {
            if maximum.is_some_and(|maximum| after > before && after > maximum) {
                let found = || format!("{}: {after} {name} of at most {maximum:?}", event.place());
                findings.add("nothing grows beyond its maximum", found);
            }
        }
        if organization.lifecycle != "DELETED" && after.owners < 1 {
            findings.add("a living organization has an owner", || event.place());
        }
        accepted_whole(model, group, findings);
    }
}

/// Who accepts is in, by the same command; and nobody is in by an invitation that was not accepted.
fn accepted_whole(model: &Model, group: &[Event], findings: &mut Findings) {
    let joined = |invitation: &str| {
        group.iter().any(|event| event.name == "MemberJoined" && event.text("invitation_id") == invitation)
    };
    for event in group {
        if event.name == "InvitationAccepted" {
            let member = model.members.get(event.text("membership_id"));
            let wanted = model.invitations.get(&event.stream).map(|invitation| invitation.roles.clone());
            let roles = wanted.unwrap_or_default();
            let is_in = member.is_some_and(|m| m.is_active() && roles.iter().all(|role| m.roles.contains(role)));
            if !is_in || joined(&event.stream) == (event.body["seat_freed"] == Value::Bool(true)) {
                findings.add("who accepts is in, by the same command", || event.place());
            }
        }
        let invitation = event.text("invitation_id");
        if event.name == "MemberJoined" && !invitation.is_empty() {
            let accepted = |other: &Event| other.name == "InvitationAccepted" && other.stream == invitation;
            if !group.iter().any(accepted) {
                findings.add("nobody is in by an invitation that was not accepted", || event.place());
            }
        }
    }
    if group.iter().any(|event| event.name == "OrgCreated") && !group.iter().any(|event| event.name == "MemberJoined") {
        findings.add("an organization is created with its owner", || group[0].place());
    }
}

fn judge(model: &Model, group: &[Event], event: &Event, surroundings: Surroundings, findings: &mut Findings) {
    let Some(id) = &event.organization else { return };
    if event.name == "OrgCreated" {
        return;
    }
    let Some(organization) = model.organizations.get(id) else {
        return findings.add("everything belongs to an organization that exists", || event.place());
    };
    if organization.purged
        && !matches!(event.name.as_str(), "InvitationExpired" | "InvitationDeclined" | "ProjectPurged")
    {
        findings.add("nothing is done in a purged organization", || event.place());
    }
    // A creation is one decision: what its other events need is in its first.
    if group.iter().any(|other| other.name == "OrgCreated") {
        return;
    }
    if !status_allows(organization, group, event) {
        let found = || format!("{}: {} {}", event.place(), organization.lifecycle, organization.verification);
        findings.add("an organization's status allows what is done", found);
    }
    if !actor_may(model, id, group, event) {
        findings.add("who acts may do it, at that moment", || format!("{} by {}", event.place(), event.actor));
    }
    if event.name == "LimitReached" {
        limit_reached(organization, event, findings);
    }
    if event.name == "InvitationAccepted" {
        still_given(model, id, event, findings);
    }
    if !surroundings.clocks_were_set {
        in_time(model, organization, event, findings);
    }
}

/// By the table of capabilities: the lifecycle wins over the verification.
fn status_allows(organization: &Organization, group: &[Event], event: &Event) -> bool {
    let active = organization.lifecycle == "ACTIVE";
    let deleted = organization.lifecycle == "DELETED";
    let at = |wanted: &[&str]| active && wanted.contains(&organization.verification.as_str());
    let accepting = group.iter().any(|other| other.name == "InvitationAccepted");
    let operator = event.actor.starts_with("operator:");
    match event.name.as_str() {
        "OrgRenamed" | "OrgSlugChanged" | "OrgContactChanged" | "OrgSettingsUpdated" => {
            at(&["IN_SETUP", "PENDING", "VERIFIED", "REJECTED"])
        }
        "OrgSubmitted" => at(&["IN_SETUP"]),
        "OrgDeleted" => !deleted && (!active || organization.verification != "BLOCKED" || operator),
        "OrgRestored" => deleted && (operator || !organization.deleted_by_operator),
        "OrgPurged" => deleted,
        "OrgDeactivated" => active,
        "OrgActivated" => organization.lifecycle == "INACTIVE",
        "MemberInvited" | "InvitationResent" | "InvitationAccepted" | "MemberJoined" | "MemberReinstated" => {
            at(&["IN_SETUP", "PENDING", "VERIFIED"])
        }
        "MemberRolesChanged" => !deleted && (!accepting || at(&["IN_SETUP", "PENDING", "VERIFIED"])),
        "MemberSuspended" | "MemberRemoved" | "MemberLeft" | "InvitationRevoked" => !deleted,
        "ProjectCreated" | "WebhookCreated" => at(&["VERIFIED"]),
        // What the service itself decides, it decides by how receivers answer.
        "WebhookDisabled" | "WebhookFailing" => !deleted || event.actor == "system",
        "WebhookDeleted" => !deleted,
        "InvitationDeclined" | "InvitationExpired" | "ProjectPurged" | "LimitReached" => true,
        name if name.starts_with("Project") || name.starts_with("Webhook") => at(&["PENDING", "VERIFIED", "REJECTED"]),
        _ => !deleted,
    }
}

/// Whether the actor is what he has to be at this point of the log.
fn actor_may(model: &Model, organization: &str, group: &[Event], event: &Event) -> bool {
    let Some((plane, user)) = event.actor.split_once(':') else {
        let own =
            ["InvitationExpired", "OrgPurged", "ProjectPurged", "LimitReached", "WebhookDisabled", "WebhookFailing"];
        return event.actor == "system" && own.contains(&event.name.as_str());
    };
    if plane == "operator" {
        return !matches!(event.name.as_str(), "MemberLeft" | "InvitationAccepted" | "InvitationDeclined");
    }
    let membership = model.membership_of.get(&(organization.to_owned(), user.to_owned()));
    let member = membership.and_then(|id| model.members.get(id));
    let is_any = |roles: &[&str]| member.is_some_and(|member| member.is_any(roles));
    let touches_owner = |roles: &[String]| roles.iter().any(|role| role == "owner");
    let own = event.text("user_id") == user;
    let accepting = group.iter().any(|other| other.name == "InvitationAccepted");
    match event.name.as_str() {
        "LimitReached" => true,
        "InvitationAccepted" | "InvitationDeclined" => own,
        "MemberLeft" => own && member.is_some_and(|member| member.state != "REMOVED"),
        "MemberJoined" | "MemberRolesChanged" if accepting => own,
        "MemberRolesChanged" => {
            let owners = touches_owner(&event.texts("roles")) || touches_owner(&event.texts("previous_roles"));
            is_any(if owners { OWN } else { RUN })
        }
        "MemberJoined" | "MemberSuspended" | "MemberReinstated" | "MemberRemoved" | "MemberInvited" => {
            is_any(if touches_owner(&event.texts("roles")) { OWN } else { RUN })
        }
        "InvitationResent" => {
            let invitation = model.invitations.get(&event.stream);
            is_any(if invitation.is_some_and(|i| touches_owner(&i.roles)) { OWN } else { RUN })
        }
        // A change of a membership ends what is open by that member or to them, in the same command: that the actor may
        // change the membership was judged there, and may have taken the actor's own roles.
        "InvitationRevoked"
            if group.iter().any(|other| {
                ["MemberRemoved", "MemberLeft", "MemberSuspended", "MemberRolesChanged", "MemberJoined"]
                    .contains(&&*other.name)
            }) =>
        {
            true
        }
        "InvitationRevoked" | "ProjectDeleted" | "ProjectRestored" => is_any(RUN),
        "OrgRenamed" | "OrgSlugChanged" | "OrgContactChanged" | "OrgSettingsUpdated" | "OrgSubmitted" => is_any(RUN),
        "OrgDeleted" | "OrgRestored" => is_any(OWN),
        name if name.starts_with("Project") => is_any(WORK),
        name if name.starts_with("Webhook") => is_any(RUN),
        _ => false,
    }
}

/// What is taken could still be given at that moment, and is newer than the end of the last membership.
fn still_given(model: &Model, organization: &str, event: &Event, findings: &mut Findings) {
    let Some(invitation) = model.invitations.get(&event.stream) else { return };
    let member = |user: &str| {
        let membership = model.membership_of.get(&(organization.to_owned(), user.to_owned()));
        membership.and_then(|id| model.members.get(id))
    };
    if let Some(("user", inviter)) = invitation.invited_by.split_once(':') {
        let enough = if invitation.roles.iter().any(|role| role == "owner") { OWN } else { RUN };
        if !member(inviter).is_some_and(|member| member.is_any(enough)) {
            let found = || format!("{}: {} gives it no more", event.place(), invitation.invited_by);
            findings.add("what is taken could still be given", found);
        }
    }
    if member(event.text("user_id")).and_then(|member| member.ended).is_some_and(|ended| ended > invitation.made) {
        findings.add("no invitation outlives the end of a membership", || event.place());
    }
}

/// A `LimitReached` says how it was, and comes once between two moments of room.
fn limit_reached(organization: &Organization, event: &Event, findings: &mut Findings) {
    let name = event.text("limit");
    let Some(limit) = organization.limit(name) else {
        return findings.add("LimitReached is about a limit", || event.place());
    };
    let used = if name == "members" { organization.used.members } else { organization.used.projects };
    let number = |field: &str| event.body[field].as_i64();
    let (said, asked) = (number("used").unwrap_or_default(), number("requested").unwrap_or_default());
    let true_then = number("maximum") == limit.maximum && said == used && asked > 0;
    if !true_then || limit.maximum.is_none_or(|maximum| used + asked <= maximum) {
        let found = || format!("{}: {} but {used} of {:?}", event.place(), event.body, limit.maximum);
        findings.add("LimitReached says what is true then", found);
    }
    if limit.reached {
        findings.add("LimitReached is recorded once for each time that room ran out", || event.place());
    }
}

/// What time does, it does not do early.
fn in_time(model: &Model, organization: &Organization, event: &Event, findings: &mut Findings) {
    let due = match event.name.as_str() {
        "OrgPurged" => organization.purge_at,
        "ProjectPurged" => model.projects.get(&event.stream).and_then(|project| project.purge_at),
        "InvitationExpired" => model.invitations.get(&event.stream).and_then(|invitation| invitation.expires_at),
        _ => return,
    };
    if due.is_none_or(|due| due > event.at) {
        findings.add("nothing runs out before its time", || format!("{} at {}, due {due:?}", event.place(), event.at));
    }
}

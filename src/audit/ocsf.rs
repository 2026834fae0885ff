//! Events as lines of the Open Cybersecurity Schema Framework, version 1.3.0: <https://schema.ocsf.io/1.3.0>.
//!
//! Each aggregate says what an event of it does ([`aggregates::Change`]); `Meaning` makes a class and an activity of that.
//! `tests/ocsf` checks a line of every event against the published schema.

use std::net::IpAddr;

use aggregates::membership::MembershipEvent;
use aggregates::organization::OrganizationEvent;
use aggregates::{Change, Event, Recorded};
use serde_json::{Map, Value, json};

use super::data::data;
use super::tables::action;
use crate::log::StoredEvent;

/// The version of the schema.
const VERSION: &str = "1.3.0";
/// What `type_id` says where the schema has no word of its own: `type` has it then.
const OTHER: u8 = 99;

/// What is done, in a class's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity(u8, &'static str);

const UNKNOWN: Activity = Activity(0, "Unknown");

/// An activity that the class has no number for.
const fn other(name: &'static str) -> Activity {
    Activity(OTHER, name)
}

/// What Account Change (3001) calls a change.
fn of_account(change: Change) -> Activity {
    match change {
        Change::Create => Activity(1, "Create"),
        Change::Enable | Change::Activate | Change::Resume => Activity(2, "Enable"),
        Change::Disable | Change::Deactivate | Change::Suspend => Activity(5, "Disable"),
        Change::Delete => Activity(6, "Delete"),
        Change::Update => other("Update"),
        Change::Other(name) => other(name),
    }
}

/// What Entity Management (3004) calls it.
fn of_entity(change: Change) -> Activity {
    match change {
        Change::Create => Activity(1, "Create"),
        Change::Update => Activity(3, "Update"),
        Change::Delete => Activity(4, "Delete"),
        Change::Enable => Activity(8, "Enable"),
        Change::Disable => Activity(9, "Disable"),
        Change::Activate => Activity(10, "Activate"),
        Change::Deactivate => Activity(11, "Deactivate"),
        Change::Suspend => Activity(12, "Suspend"),
        Change::Resume => Activity(13, "Resume"),
        Change::Other(name) => other(name),
    }
}

/// Those of User Access Management (3005), and the same of Group Management (3006), which has more.
mod access {
    use super::Activity;
    pub(super) const ASSIGN: Activity = Activity(1, "Assign Privileges");
    pub(super) const REVOKE: Activity = Activity(2, "Revoke Privileges");
    pub(super) const GROUP_DELETE: Activity = Activity(5, "Delete");
    pub(super) const GROUP_CREATE: Activity = Activity(6, "Create");
}

/// What an event is in the schema.
enum Meaning<'a> {
    /// Account Change, 3001: of a user, or of a user's membership with its roles.
    Account { activity: Activity, user: &'a str, roles: Option<&'a [String]> },
    /// User Access Management, 3005: a member has other roles.
    Access { activity: Activity, user: &'a str, roles: Vec<&'a str> },
    /// Group Management, 3006: a role is what the schema calls a group, and its permissions are the privileges.
    Role { activity: Activity, role: &'a str, description: &'a str, all: &'a [String], changed: Vec<&'a str> },
    /// Entity Management, 3004: anything else.
    Entity { activity: Activity },
}

/// What was assigned; or, where nothing was, what was revoked.
fn difference<'a>(now: &'a [String], before: &'a [String]) -> (Activity, Vec<&'a str>) {
    let but = |these: &'a [String], those: &[String]| {
        these.iter().filter(|name| !those.contains(name)).map(String::as_str).collect::<Vec<_>>()
    };
    let (assigned, revoked) = (but(now, before), but(before, now));
    match (assigned.is_empty(), revoked.is_empty()) {
        (false, _) => (access::ASSIGN, assigned),
        (true, false) => (access::REVOKE, revoked),
        (true, true) => (other("Update"), now.iter().map(String::as_str).collect()),
    }
}

impl<'a> Meaning<'a> {
    fn of(recorded: &'a Recorded) -> Self {
        use MembershipEvent as M;
        use OrganizationEvent as O;
        let Some(change) = recorded.event.change() else { return Self::Entity { activity: UNKNOWN } };
        match &recorded.event {
            Event::Organization(O::RoleDefined { role, description, permissions, .. }) => {
                Self::role(access::GROUP_CREATE, role, description, permissions)
            }
            Event::Organization(O::RoleChanged { role, description, permissions, previous_permissions, .. }) => {
                let (activity, changed) = difference(permissions, previous_permissions);
                Self::Role { activity, role, description, all: permissions, changed }
            }
            Event::Organization(O::RoleRemoved { role, description, permissions, .. }) => {
                Self::role(access::GROUP_DELETE, role, description, permissions)
            }
            Event::Membership(M::MemberRolesChanged { user_id, roles, previous_roles, .. }) => {
                let (activity, roles) = difference(roles, previous_roles);
                Self::Access { activity, user: user_id.as_ref(), roles }
            }
            Event::Membership(event) => Self::of_member(of_account(change), event),
            Event::User(_) => Self::Account { activity: of_account(change), user: recorded.stream.id(), roles: None },
            // Whatever else there is, the schema calls an entity.
            _ => Self::Entity { activity: of_entity(change) },
        }
    }

    fn of_member(activity: Activity, event: &'a MembershipEvent) -> Self {
        use MembershipEvent as E;
        let (user, roles) = match event {
            E::MemberBound { user_id } => (user_id, None),
            E::MemberJoined { user_id, roles, .. }
            | E::MemberRolesChanged { user_id, roles, .. }
            | E::MemberSuspended { user_id, roles, .. }
            | E::MemberReinstated { user_id, roles, .. }
            | E::MemberRemoved { user_id, roles, .. }
            | E::MemberLeft { user_id, roles, .. } => (user_id, Some(roles.as_slice())),
        };
        Self::Account { activity, user: user.as_ref(), roles }
    }

    fn role(activity: Activity, role: &'a str, description: &'a str, all: &'a [String]) -> Self {
        let changed = all.iter().map(String::as_str).collect();
        Self::Role { activity, role, description, all, changed }
    }

    fn class(&self) -> (u32, &'static str) {
        match self {
            Self::Account { .. } => (3001, "Account Change"),
            Self::Entity { .. } => (3004, "Entity Management"),
            Self::Access { .. } => (3005, "User Access Management"),
            Self::Role { .. } => (3006, "Group Management"),
        }
    }

    fn activity(&self) -> Activity {
        match self {
            Self::Account { activity, .. }
            | Self::Entity { activity }
            | Self::Access { activity, .. }
            | Self::Role { activity, .. } => *activity,
        }
    }
}

/// An event as a line. One that cannot be read any more is Entity Management with an unknown activity, without what is
/// its own.
pub fn line(row: &StoredEvent, read: Option<&Recorded>) -> String {
    let meaning = read.map_or(Meaning::Entity { activity: UNKNOWN }, Meaning::of);
    let (class, class_name) = meaning.class();
    let Activity(activity, activity_name) = meaning.activity();
    let refused =
        read.is_some_and(|read| matches!(read.event, Event::Organization(OrganizationEvent::LimitReached { .. })));
    // An account change always has an actor; elsewhere the attribute belongs to a profile, which has to be declared.
    let profiles = (class != 3001).then(|| json!(["host"]));
    let origin = read.map(|recorded| &recorded.origin);
    let mut line = json!({
        "category_uid": 3,
        "category_name": "Identity & Access Management",
        "class_uid": class,
        "class_name": class_name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class * 100 + u32::from(activity),
        "type_name": format!("{class_name}: {activity_name}"),
        "severity_id": 1,
        "severity": "Informational",
        "status_id": if refused { 2 } else { 1 },
        "status": if refused { "Failure" } else { "Success" },
        "time": row.recorded_at.timestamp_millis(),
        "message": action(row, read),
        "metadata": {
            "version": VERSION,
            "profiles": profiles,
            "product": {"name": "tenancy", "vendor_name": "tenancy", "version": env!("CARGO_PKG_VERSION")},
            "uid": row.event_id,
            "event_code": row.event_type,
            "sequence": row.audit_sequence,
            "correlation_uid": row.correlation_id,
            "tenant_uid": row.organization_id,
        },
        "actor": {"user": principal(&row.actor)},
        "src_endpoint": origin.and_then(|origin| origin.ip.as_deref()).map(endpoint),
        "http_request": {"uid": row.request_id, "user_agent": origin.and_then(|origin| origin.user_agent.clone())},
        "unmapped": {
            "subject": {"type": row.aggregate_type, "uid": row.aggregate_id, "version": row.sequence.to_string()},
            "on_behalf_of": row.on_behalf_of.as_deref().map(principal),
            "causation_uid": row.causation_id,
            "data": read.map(|recorded| Value::Object(data(recorded))),
        },
    });
    if let Value::Object(line) = &mut line {
        line.extend(own(row, &meaning));
    }
    without_nulls(&mut line);
    line.to_string() + "\n"
}

/// What only this class has.
fn own(row: &StoredEvent, meaning: &Meaning<'_>) -> Map<String, Value> {
    let own = match meaning {
        Meaning::Account { user, roles, .. } => json!({"user": account(row, user, *roles)}),
        Meaning::Access { user, roles, .. } => {
            json!({"user": account(row, user, None), "privileges": roles, "resource": tenant(row)})
        }
        Meaning::Role { role, description, all, changed, .. } => json!({
            "group": {"name": role, "type": "Role", "desc": description, "privileges": all},
            "privileges": changed,
            "resource": tenant(row),
        }),
        Meaning::Entity { .. } => {
            let type_id = if row.aggregate_type == "Organization" { 4 } else { OTHER };
            let (kind, version) = (&row.aggregate_type, row.sequence.to_string());
            json!({"entity": {"type": kind, "type_id": type_id, "uid": row.aggregate_id, "version": version}})
        }
    };
    match own {
        Value::Object(own) => own,
        _ => Map::new(),
    }
}

/// The user that an event is about; with the membership, where it is about that.
fn account(row: &StoredEvent, user: &str, roles: Option<&[String]>) -> Value {
    let membership = (row.aggregate_id != user)
        .then(|| json!({"uid": row.aggregate_id, "type": row.aggregate_type, "type_id": OTHER}));
    let groups: Option<Vec<Value>> =
        roles.map(|roles| roles.iter().map(|role| json!({"name": role, "type": "Role"})).collect());
    let organization = row.organization_id.as_ref().map(|id| json!({"uid": id}));
    json!({"uid": user, "type": "User", "type_id": 1, "org": organization, "account": membership, "groups": groups})
}

/// The organization as what is accessed.
fn tenant(row: &StoredEvent) -> Option<Value> {
    row.organization_id.as_ref().map(|id| json!({"uid": id, "type": "Organization"}))
}

/// A principal as a user of the schema: the id without what kind of principal it is, which `type` says.
fn principal(text: &str) -> Value {
    match text.split_once(':') {
        Some(("user", id)) => json!({"uid": id, "type": "User", "type_id": 1}),
        Some(("operator", id)) => json!({"uid": id, "type": "Admin", "type_id": 2}),
        Some(("token", id)) => json!({"uid": id, "type": "API Token", "type_id": OTHER}),
        None if text == "system" => json!({"name": "system", "type": "System", "type_id": 3}),
        _ => json!({"name": text, "type": "Unknown", "type_id": 0}),
    }
}

fn endpoint(address: &str) -> Value {
    match address.parse::<IpAddr>() {
        Ok(ip) => json!({"ip": ip}),
        Err(_) => json!({"name": address}),
    }
}

/// Leaves out members that are null, and objects that are empty then: the schema knows no nulls.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| {
                let was_empty = member.as_object().is_some_and(Map::is_empty);
                without_nulls(member);
                !member.is_null() && (was_empty || !member.as_object().is_some_and(Map::is_empty))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

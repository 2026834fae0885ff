//! A report as headings and tables, for people.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Access, Accesses, Change, Happened, Report, Rows};

/// A section of a report.
pub(super) struct Section {
    pub title: &'static str,
    /// What somebody has to know to read it.
    pub note: Option<String>,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// What is left out.
    pub more: Option<String>,
    /// What it says where it has no rows.
    pub empty: &'static str,
}

/// The longest value of a changed field that people are shown; JSON has all of it.
const VALUE_CHARS_MAX: usize = 200;

/// A moment for people.
pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// What the report is about: names and values.
pub(super) fn head(report: &Report) -> Vec<(&'static str, String)> {
    let (organization, period) = (&report.organization, &report.period);
    let since = period.since.map_or_else(|| "the beginning".to_owned(), moment);
    let pruned = if organization.pruned { "; the content of its events is gone" } else { "" };
    let mut head = vec![
        ("organization", format!("{} ({})", organization.name, organization.slug)),
        ("id", organization.id.clone()),
        ("status", format!("{}, {}{pruned}", organization.verification, organization.lifecycle)),
        ("plan", organization.plan.clone()),
        ("created", moment(organization.created_at)),
        ("period", format!("from {since} to {}", moment(period.until))),
        ("events", format!("{} in the period, the last one is event {}", period.events, period.audit_sequence)),
        ("report made", moment(report.made_at)),
    ];
    if let Some(since) = organization.legal_hold_since {
        head.insert(4, ("legal hold", format!("stands since {}", moment(since))));
    }
    head
}

/// The sections, in their order.
pub(super) fn sections(report: &Report) -> Vec<Section> {
    let records =
        format!("From the access trail, which has records since {}.", report.access_records_since.format("%Y-%m-%d"));
    let mut sections = access(&report.access, report.period.until);
    sections.extend([
        happened("Changes of roles", &report.role_changes, "No role was changed."),
        happened("Suspensions, removals, reinstatements", &report.standing, "None."),
        happened("Tokens and webhook endpoints", &report.tokens_and_webhooks, "None came, changed or went."),
        happened("Acts of operators", &report.operator_acts, "No operator did anything to the organization."),
        accesses("Refusals", &report.refusals, &records, "Nothing was refused."),
        happened("Erasures, deletions and purges", &report.erasures, "None."),
        happened("Legal holds", &report.legal_holds, "None was set or released."),
        accesses("Exports of the audit trail", &report.exports, &records, "None."),
        accesses("Reads of the audit trail, and reads by operators", &report.reads, &records, "None."),
    ]);
    sections
}

/// The proofs: names and values.
pub(super) fn proofs(report: &Report) -> Vec<(&'static str, String)> {
    let proofs = &report.proofs;
    let mut lines = match (proofs.tree_size, &proofs.root_hash, proofs.signed_at) {
        (Some(size), Some(root), Some(at)) => {
            vec![("newest checkpoint", format!("{size} events, signed {}", moment(at))), ("root", root.clone())]
        }
        _ => vec![("newest checkpoint", "nothing is sealed yet".to_owned())],
    };
    let failure = proofs.failure.as_ref().map(|failure| format!("FAILED: {failure}"));
    lines.push(("tree", failure.unwrap_or_else(|| "has not failed".to_owned())));
    lines.extend(proofs.keys.iter().map(|key| ("signed by", key.clone())));
    lines
}

fn access(access: &Access, until: DateTime<Utc>) -> Vec<Section> {
    let yes_or = |without: &Option<String>| without.clone().unwrap_or_else(|| "yes".to_owned());
    let list = |list: &[String]| list.join(", ");
    let section = |title, columns: &[&'static str], rows: Vec<Vec<String>>, more: u64, empty| Section {
        title,
        note: None,
        columns: columns.to_vec(),
        rows,
        more: (more > 0).then(|| format!("and {more} more, which came later")),
        empty,
    };
    let members = access.members.rows.iter().map(|member| {
        let given = format!("{} by {}", moment(member.roles_since), member.roles_by.label());
        let (user, roles) = (&member.user, list(&member.roles));
        vec![user.label(), user.id.clone(), roles, moment(member.since), given, yes_or(&member.without_access)]
    });
    let roles =
        access.own_roles.iter().map(|role| vec![role.name.clone(), list(&role.permissions), role.description.clone()]);
    let tokens = access.tokens.rows.iter().map(|token| {
        let expires = token.expires_at.map_or_else(|| "never".to_owned(), moment);
        let name = format!("{} ({})", token.name, token.hint);
        let (person, permissions) = (token.responsible.label(), list(&token.permissions));
        let access = yes_or(&token.without_access);
        vec![name, token.id.clone(), person, moment(token.since), expires, access, permissions]
    });
    let webhooks = access.webhooks.rows.iter().map(|webhook| {
        let changed = format!("{} by {}", moment(webhook.changed_at), webhook.changed_by.label());
        let sent = format!("{} ({})", list(&webhook.events), webhook.content);
        vec![
            webhook.url.clone(),
            webhook.id.clone(),
            sent,
            moment(webhook.since),
            changed,
            yes_or(&webhook.without_access),
        ]
    });
    let invitations = access.invitations.rows.iter().map(|invited| {
        let address = invited.email.clone().unwrap_or_else(|| "(erased)".to_owned());
        let (roles, by) = (list(&invited.roles), invited.by.label());
        vec![address, invited.id.clone(), roles, moment(invited.since), by, moment(invited.expires_at)]
    });
    let offer = access.ownership_offer.iter();
    let offer = offer.map(|offer| vec![offer.to.label(), offer.by.label(), moment(offer.since)]);
    let mut sections = vec![
        section(
            "Members",
            &["member", "id", "roles", "member since", "roles since", "access"],
            members.collect(),
            access.members.more,
            "Nobody is a member.",
        ),
        section("Roles of the organization's own", &["role", "permits", "for"], roles.collect(), 0, "None."),
        section(
            "API tokens",
            &["token", "id", "answered for by", "since", "ends", "access", "permissions, in the whole organization"],
            tokens.collect(),
            access.tokens.more,
            "There is no living token.",
        ),
        section(
            "Webhook endpoints, which receive data",
            &["address", "id", "events", "since", "as it is since", "is sent"],
            webhooks.collect(),
            access.webhooks.more,
            "Nothing is sent anywhere.",
        ),
        section(
            "Open invitations",
            &["address", "id", "roles", "since", "by", "ends"],
            invitations.collect(),
            access.invitations.more,
            "None is open.",
        ),
        section("Offer of ownership", &["to", "by", "since"], offer.collect(), 0, "None is open."),
    ];
    sections[0].note = Some(format!("As of {}.", moment(until)));
    sections
}

fn earlier(more: u64) -> Option<String> {
    (more > 0).then(|| format!("and {more} earlier ones: a later --since, or an earlier --until, shows them"))
}

fn happened(title: &'static str, rows: &Rows<Happened>, empty: &'static str) -> Section {
    let row = |row: &Happened| {
        let number = row.audit_sequence.map_or_else(|| "–".to_owned(), |number| number.to_string());
        let behalf = row.on_behalf_of.as_ref().map_or(String::new(), |party| format!(" for {}", party.label()));
        let reason = match (&row.reason, row.reason_erased) {
            (Some(reason), _) => reason.clone(),
            (None, true) => "(erased)".to_owned(),
            (None, false) => String::new(),
        };
        let about = match row.subject.kind.as_str() {
            "user" | "operator" | "token" => row.subject.label(),
            "organization" => "the organization".to_owned(),
            kind => format!("{kind} {}", row.subject.label()),
        };
        let changes = row.changes.iter().map(change).collect::<Vec<_>>().join("; ");
        vec![number, moment(row.at), row.action.clone(), row.actor.label() + &behalf, about, changes, reason]
    };
    Section {
        title,
        note: None,
        columns: vec!["event", "at", "action", "by", "whom or what", "what", "why"],
        rows: rows.rows.iter().map(row).collect(),
        more: earlier(rows.more),
        empty,
    }
}

fn accesses(title: &'static str, rows: &Rows<Accesses>, note: &str, empty: &'static str) -> Section {
    let row = |row: &Accesses| {
        let (first, last) = (moment(row.first), moment(row.last));
        vec![row.kind.clone(), row.operation.clone(), row.actor.label(), row.times.to_string(), first, last]
    };
    Section {
        title,
        note: Some(note.to_owned()),
        columns: vec!["kind", "operation", "by", "times", "first", "last"],
        rows: rows.rows.iter().map(row).collect(),
        more: (rows.more > 0).then(|| format!("and {} more", rows.more)),
        empty,
    }
}

fn change(Change { field, from, to }: &Change) -> String {
    match from {
        Some(from) => format!("{field}: {} → {}", value(from), value(to)),
        None => format!("{field}: {}", value(to)),
    }
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

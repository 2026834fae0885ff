//! An officer's report of an organization: who has access at the end of a period, and what happened in it.
//!
//! [`read`](read::read) folds the trail up to the end of the period, a page at a time, and keeps of each kind of event the
//! newest [`ROWS_MAX`]. Access is what the fold says, so it is as it was then. Refusals, reads and exports come from the
//! access trail. A report serializes as it is ([`Report`] is the documented shape), and is written for people by way of
//! `tables`: as [`text`] and as [`html`].

pub mod html;
mod read;
mod tables;
#[cfg(test)]
mod tests;
pub mod text;
mod topics;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::names::Party;
pub use read::{Record, Records, Wanted, read};

/// What the first member of a report says.
pub const FORMAT: &str = "tenancy-audit-report/v1";
/// The most rows of a section that says what happened: the newest ones.
pub const ROWS_MAX: usize = 500;
/// The most rows of a section that says who has access: the oldest ones.
pub const ACCESS_ROWS_MAX: usize = 5_000;

/// The report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// About which organization.
    pub organization: About,
    /// About which time.
    pub period: Period,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// The access that there is at the end of the period.
    pub access: Access,
    /// Who got and lost roles, offers of ownership, and what the organization's own roles permit.
    pub role_changes: Rows<Happened>,
    /// Suspensions, removals, reinstatements; also of users, by operators.
    pub standing: Rows<Happened>,
    /// API tokens and webhook endpoints that came, changed and went.
    pub tokens_and_webhooks: Rows<Happened>,
    /// What operators did to the organization.
    pub operator_acts: Rows<Happened>,
    /// What was refused, by operation and caller.
    pub refusals: Rows<Accesses>,
    /// Erasures of people; deletions, restorations and purges.
    pub erasures: Rows<Happened>,
    /// Legal holds that were set and released.
    pub legal_holds: Rows<Happened>,
    /// Exports of the audit trail, each.
    pub exports: Rows<Accesses>,
    /// Reads of the audit trail, and operators' reads of the organization, by operation and caller.
    pub reads: Rows<Accesses>,
    /// From when on there are records of refusals, reads and exports; those of before are forgotten.
    pub access_records_since: DateTime<Utc>,
    /// How all of this can be checked.
    pub proofs: Proofs,
}

/// The rows of a section, and how many more there are.
#[derive(Debug, Clone, Serialize)]
pub struct Rows<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// How many were left out.
    pub more: u64,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: vec![], more: 0 }
    }
}

impl<T> Rows<T> {
    /// The first `max` of these.
    fn first(mut all: Vec<T>, max: usize) -> Self {
        let more = all.len().saturating_sub(max) as u64;
        all.truncate(max);
        Self { rows: all, more }
    }

    /// The last `max` of these, where `more` are left out already.
    fn last(mut all: Vec<T>, max: usize, more: u64) -> Self {
        let out = all.len().saturating_sub(max);
        all.drain(..out);
        Self { rows: all, more: more + out as u64 }
    }
}

/// The organization at the end of the period.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
    /// Its verification.
    pub verification: String,
    /// Its lifecycle; `PURGED` when it is gone for good.
    pub lifecycle: String,
    /// Its plan.
    pub plan: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Since when a legal hold stands.
    pub legal_hold_since: Option<DateTime<Utc>>,
    /// Whether the time is over for which the trail of the purged organization was kept.
    pub pruned: bool,
}

/// The time that a report is about: from `since` (the beginning, without) up to and with `until`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Period {
    /// From when on.
    pub since: Option<DateTime<Utc>>,
    /// Until when; access is as it was then.
    pub until: DateTime<Utc>,
    /// The audit sequence of the last event until then.
    pub audit_sequence: u64,
    /// How many events of the organization are in the period.
    pub events: u64,
}

/// The principals and receivers that have access.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The members, in the order in which they joined; also those who are kept out for a while.
    pub members: Rows<Member>,
    /// The roles that the organization defined itself.
    pub own_roles: Vec<OwnRole>,
    /// The living API tokens.
    pub tokens: Rows<Token>,
    /// The webhook endpoints, which are sent data.
    pub webhooks: Rows<Webhook>,
    /// The open invitations.
    pub invitations: Rows<Invited>,
    /// The open offer of ownership.
    pub ownership_offer: Option<Offer>,
}

/// A member.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user.
    pub user: Party,
    /// The roles.
    pub roles: Vec<String>,
    /// Since when the user is a member.
    pub since: DateTime<Utc>,
    /// Since when with these roles, and by whom.
    pub roles_since: DateTime<Utc>,
    /// By whom.
    pub roles_by: Party,
    /// How the member came in.
    pub source: String,
    /// Why the member has no access although they are one; `null` where they have.
    pub without_access: Option<String>,
}

/// A role of the organization's own.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnRole {
    /// Its name.
    pub name: String,
    /// For whom it is.
    pub description: String,
    /// What it permits.
    pub permissions: Vec<String>,
}

/// An API token.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What of the secret is shown, by which it is recognized.
    pub hint: String,
    /// What it may do, in the whole organization.
    pub permissions: Vec<String>,
    /// The user who answers for it.
    pub responsible: Party,
    /// The creator.
    pub created_by: Party,
    /// When it was created.
    pub since: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// Why it is refused although it is living; `null` where it is not.
    pub without_access: Option<String>,
}

/// A webhook endpoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Where data goes.
    pub url: String,
    /// For what it is.
    pub description: Option<String>,
    /// Which events.
    pub events: Vec<String>,
    /// Whether whole events are sent (`FULL`) or only that there are some (`THIN`).
    pub content: String,
    /// When it was created.
    pub since: DateTime<Utc>,
    /// Since when it is as it is, and by whom.
    pub changed_at: DateTime<Utc>,
    /// By whom.
    pub changed_by: Party,
    /// Why it is sent nothing; `null` where it is.
    pub without_access: Option<String>,
}

/// An open invitation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Invited {
    /// Its id.
    pub id: String,
    /// The invited address; none where erased.
    pub email: Option<String>,
    /// The roles that the person will have.
    pub roles: Vec<String>,
    /// The inviter.
    pub by: Party,
    /// When.
    pub since: DateTime<Utc>,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
}

/// The open offer of ownership.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The recipient.
    pub to: Party,
    /// The actor who offers.
    pub by: Party,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happened {
    /// Its audit sequence; `null` of what happened to a user, which is not in the organization's trail.
    pub audit_sequence: Option<u64>,
    /// When.
    pub at: DateTime<Utc>,
    /// What: the action, as in the audit trail.
    pub action: String,
    /// The actor.
    pub actor: Party,
    /// For whom, where that is somebody else.
    pub on_behalf_of: Option<Party>,
    /// To whom or what it happened.
    pub subject: Party,
    /// What was changed, or what belongs to it.
    pub changes: Vec<Change>,
    /// Why, where a reason was given and can be read.
    pub reason: Option<String>,
    /// Whether a reason was given that cannot be read any more.
    pub reason_erased: bool,
}

/// A field of what happened.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field, as in the audit trail's data.
    pub field: String,
    /// Its value before; absent where the event has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value from then on.
    pub to: Value,
}

/// Records of the access trail that are alike.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accesses {
    /// What kind: `REFUSED`, `OPERATOR_READ`, `AUDIT_READ`, `AUDIT_EXPORT`.
    pub kind: String,
    /// By which operation.
    pub operation: String,
    /// The caller.
    pub actor: Party,
    /// How often.
    pub times: u64,
    /// When first.
    pub first: DateTime<Utc>,
    /// When last, but for repetitions within a minute.
    pub last: DateTime<Utc>,
}

/// How a report can be checked.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proofs {
    /// How many events the newest checkpoint covers; none while nothing is sealed.
    pub tree_size: Option<u64>,
    /// The root of its tree, in base64.
    pub root_hash: Option<String>,
    /// When it was signed.
    pub signed_at: Option<DateTime<Utc>>,
    /// Why nothing follows it, or what standing verification found; `null` if all is well.
    pub failure: Option<String>,
    /// Name and id of each key that signs.
    pub keys: Vec<String>,
    /// The commands that check it.
    pub commands: Vec<String>,
}

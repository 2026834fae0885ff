//! The log is read for ever: for each event one golden file holds what was stored once, and is never changed.
//!
//! `BLESS=1 cargo test` writes the files of new events (and of new versions); it never touches one that is there.
//! When an event's shape changes, it gets a new version and an upcaster, and the file of its old version stays.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use aggregates::api_token::ApiTokenEvent;
use aggregates::event::{FieldDescriptor, Kind};
use aggregates::ids::{ApiTokenId, EventId, Id, ProjectId, WebhookEndpointId};
use aggregates::invitation::InvitationEvent;
use aggregates::membership::{MembershipEvent, MembershipSource, MembershipState};
use aggregates::organization::{Limits, OrganizationEvent};
use aggregates::project::{ProjectEvent, ProjectState};
use aggregates::status::{Lifecycle, Verification};
use aggregates::user::{UserEvent, UserState};
use aggregates::webhook::{WebhookContent, WebhookEndpointEvent, WebhookOrdering};
use aggregates::{
    Actor, ApiToken, Declared, Descriptor, Effect, Event, Invitation, Membership, Organization, Personal, Project,
    Scope, Snapshot, StreamId, User, WebhookEndpoint, descriptors, upcasters,
};
use common::{at, digest, invitation, membership, organization, roles, user};
use cqrs_es::persist::{EventUpcaster, SemanticVersionEventUpcaster};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Fields that events were given after they were first stored: absent where they say what their absence means.
const LATER: [&str; 4] = ["scope", "named_in", "named_in_more", "first_erased_at"];

// ---------------------------------------------------------------- samples

fn of_organization(text: &str) -> Option<Personal> {
    Some(Personal::new(organization().as_ref(), text))
}

fn of_ada(text: &str) -> Option<Personal> {
    Some(Personal::new(user("ada").as_ref(), text))
}

fn of_invitee(text: &str) -> Personal {
    Personal::new(invitation("1").as_ref(), text)
}

fn limits() -> Limits {
    BTreeMap::from([("members".to_owned(), Some(25)), ("projects".to_owned(), None)])
}

fn why() -> Option<String> {
    Some("Their papers are in order.".to_owned())
}

/// One event of each kind, with nothing left out.
fn samples() -> Vec<(StreamId, Event)> {
    let project = ProjectId::derived(&["website"]);
    let mut samples: Vec<(StreamId, Event)> = vec![];
    samples.extend(of_organizations().into_iter().map(|event| (organization().into(), event.into())));
    samples.extend(of_memberships().into_iter().map(|event| (membership("ada").into(), event.into())));
    samples.extend(of_invitations().into_iter().map(|event| (invitation("1").into(), event.into())));
    samples.extend(of_projects().into_iter().map(|event| (project.clone().into(), event.into())));
    let token = ApiTokenId::derived(&["deploy"]);
    samples.extend(of_api_tokens().into_iter().map(|event| (token.clone().into(), event.into())));
    let webhook = WebhookEndpointId::derived(&["books"]);
    samples.extend(of_webhooks().into_iter().map(|event| (webhook.clone().into(), event.into())));
    samples.extend(of_users().into_iter().map(|event| (user("ada").into(), event.into())));
    samples
}

fn of_organizations() -> Vec<OrganizationEvent> {
    use OrganizationEvent as E;
    let mut events = vec![
        E::OrgCreated {
            name: "Acme Works".into(),
            slug: "acme".into(),
            contact_email: of_organization("office@acme.example"),
            external_id: Some("crm-7".into()),
            plan: "basic".into(),
            limits: limits(),
            created_at: at(0),
            reason: why(),
        },
        E::OrgRenamed { name: "Acme".into(), previous_name: "Acme Works".into(), reason: why() },
        E::OrgSlugChanged { slug: "acme-works".into(), previous_slug: "acme".into(), reason: why() },
        E::OrgContactChanged {
            contact_email: of_organization("hello@acme.example"),
            previous_contact_email: of_organization("office@acme.example"),
            reason: why(),
        },
        E::OrgExternalIdChanged {
            external_id: Some("crm-8".into()),
            previous_external_id: Some("crm-7".into()),
            reason: why(),
        },
        E::OrgSettingsUpdated {
            namespace: "branding".into(),
            value: Some(json!({"colors": ["red", 7, true, null], "logo": {"url": "https://acme.example/logo.svg"}})),
            previous_value: Some(json!({"colors": []})),
            reason: why(),
        },
    ];
    events.extend(of_reviews());
    events.extend([
        E::OrgDeactivated { reason: why() },
        E::OrgActivated { reason: why() },
        E::OrgDeleted { previous_lifecycle: Lifecycle::Inactive, purge_at: at(720), by_operator: true, reason: why() },
        E::OrgRestored { lifecycle: Lifecycle::Inactive, reason: why() },
        E::OrgPurged { slug: "acme".into(), external_id: Some("crm-7".into()) },
        E::OrgPruned { kept_days: 400, created_at: at(0) },
        E::OrgLegalHoldSet { held_since: at(24), reason: why() },
        E::OrgLegalHoldReleased { held_since: at(24), reason: why() },
        E::OrgLimitSet {
            limit: "members".into(),
            maximum: Some(50),
            previous_maximum: Some(25),
            from_plan: false,
            reason: why(),
        },
        E::OrgPlanChanged {
            plan: "big".into(),
            previous_plan: "basic".into(),
            limits: limits(),
            maximums: BTreeMap::from([("members".to_owned(), Some(50)), ("projects".to_owned(), None)]),
            reason: why(),
        },
        E::LimitReached { limit: "members".into(), maximum: Some(25), used: 25, requested: 1 },
        E::RoleDefined {
            role: "reader".into(),
            description: "Sees projects.".into(),
            permissions: vec!["organization:read".into(), "project:read".into()],
            reason: why(),
        },
        E::RoleChanged {
            role: "reader".into(),
            description: "Sees projects and members.".into(),
            previous_description: "Sees projects.".into(),
            permissions: vec!["organization:read".into(), "member:read".into(), "project:read".into()],
            previous_permissions: vec!["organization:read".into(), "project:read".into()],
            reason: why(),
        },
        E::RoleRemoved {
            role: "reader".into(),
            description: "Sees projects and members.".into(),
            permissions: vec!["organization:read".into(), "member:read".into(), "project:read".into()],
            replaced_with: Some("guest".into()),
            reason: why(),
        },
    ]);
    events.extend(of_ownership());
    events
}

fn of_ownership() -> [OrganizationEvent; 3] {
    use OrganizationEvent as E;
    let (membership_id, user_id, offered_by) = (membership("ada"), user("ada"), Actor::User(user("owner")));
    let reason = of_ada("Ada leads the office.");
    [
        E::OwnershipOffered {
            membership_id: membership_id.clone(),
            user_id: user_id.clone(),
            offered_by: offered_by.clone(),
            offered_at: at(3),
            reason: reason.clone(),
        },
        E::OwnershipAccepted {
            membership_id: membership_id.clone(),
            user_id: user_id.clone(),
            offered_by: offered_by.clone(),
            reason: reason.clone(),
        },
        E::OwnershipOfferWithdrawn { membership_id, user_id, offered_by, reason },
    ]
}

fn of_reviews() -> [OrganizationEvent; 8] {
    use OrganizationEvent as E;
    use Verification::{Blocked, InSetup, Pending, Rejected, Verified, Waitlisted};
    let reason = why;
    [
        E::OrgSubmitted { verification: Pending, previous_verification: InSetup, reason: reason() },
        E::OrgVerified { verification: Verified, previous_verification: Pending, reason: reason() },
        E::OrgRejected { verification: Rejected, previous_verification: Pending, reason: reason() },
        E::OrgWaitlisted { verification: Waitlisted, previous_verification: InSetup, reason: reason() },
        E::OrgReopened { verification: InSetup, previous_verification: Waitlisted, reason: reason() },
        E::OrgReviewRestarted { verification: Pending, previous_verification: Verified, reason: reason() },
        E::OrgBlocked { verification: Blocked, previous_verification: Verified, reason: reason() },
        E::OrgUnblocked { verification: Verified, previous_verification: Blocked, reason: reason() },
    ]
}

fn of_memberships() -> Vec<MembershipEvent> {
    use MembershipEvent as E;
    let user_id = user("ada");
    let reason = of_ada("Ada moves to another team.");
    vec![
        E::MemberJoined {
            scope: Default::default(),
            user_id: user_id.clone(),
            roles: roles(&["admin", "guest"]),
            source: MembershipSource::Invitation,
            invitation_id: Some(invitation("1")),
            joined_at: at(1),
            reason: reason.clone(),
        },
        E::MemberBound { user_id: user_id.clone() },
        E::MemberRolesChanged {
            scope: Default::default(),
            user_id: user_id.clone(),
            roles: roles(&["member"]),
            previous_roles: roles(&["admin", "guest"]),
            reason: reason.clone(),
        },
        E::MemberSuspended { user_id: user_id.clone(), roles: roles(&["member"]), reason: reason.clone() },
        E::MemberReinstated { user_id: user_id.clone(), roles: roles(&["member"]), reason: reason.clone() },
        E::MemberRemoved {
            user_id: user_id.clone(),
            roles: roles(&["member"]),
            previous_state: MembershipState::Suspended,
            reason: reason.clone(),
        },
        E::MemberLeft { user_id, roles: roles(&["member"]), previous_state: MembershipState::Active, reason },
    ]
}

fn of_invitations() -> Vec<InvitationEvent> {
    use InvitationEvent as E;
    let email_claim = digest("ada@example.com");
    vec![
        E::MemberInvited {
            scope: Default::default(),
            email: of_invitee("ada@example.com"),
            email_claim: email_claim.clone(),
            token_digest: digest("token"),
            roles: roles(&["admin", "guest"]),
            invited_by: Actor::User(user("owner")),
            expires_at: at(168),
            created_at: at(0),
            reason: Some(of_invitee("Ada is to lead the office.")),
        },
        E::InvitationResent {
            email_claim: email_claim.clone(),
            token_digest: digest("new token"),
            expires_at: at(169),
            previous_expires_at: at(168),
            reason: Some(of_invitee("Ada was on holiday.")),
        },
        E::InvitationRolesChanged {
            scope: Default::default(),
            roles: vec!["guest".into()],
            previous_roles: vec!["reader".into()],
            reason: Some(Personal::new(invitation("1").as_ref(), "the role ended")),
        },
        E::InvitationAccepted {
            email_claim: email_claim.clone(),
            user_id: user("ada"),
            membership_id: membership("ada"),
            seat_freed: true,
        },
        E::InvitationDeclined { email_claim: email_claim.clone(), user_id: user("ada") },
        E::InvitationRevoked { email_claim: email_claim.clone(), reason: Some(of_invitee("Ada takes another post.")) },
        E::InvitationExpired { email_claim: email_claim.clone(), expires_at: at(168) },
        E::InviteeErased {
            email_claim,
            reason: Some(Personal::new(user("bob").as_ref(), "asked for it")),
            named_in: None,
            named_in_more: None,
            first_erased_at: None,
        },
    ]
}

fn of_projects() -> Vec<ProjectEvent> {
    use ProjectEvent as E;
    vec![
        E::ProjectCreated {
            name: "Website".into(),
            slug: "web".into(),
            metadata: json!({"repository": "acme/web", "stars": 7}),
            created_at: at(2),
            reason: why(),
        },
        E::ProjectRenamed { name: "Site".into(), previous_name: "Website".into(), reason: why() },
        E::ProjectSlugChanged { slug: "site".into(), previous_slug: "web".into(), reason: why() },
        E::ProjectMetadataChanged {
            metadata: json!({"stars": 8}),
            previous_metadata: json!({"stars": 7}),
            reason: why(),
        },
        E::ProjectArchived { reason: why() },
        E::ProjectUnarchived { reason: why() },
        E::ProjectDeleted {
            slug: "site".into(),
            previous_project_state: ProjectState::Archived,
            purge_at: at(720),
            reason: why(),
        },
        E::ProjectRestored { slug: "site".into(), project_state: ProjectState::Archived, reason: why() },
        E::ProjectPurged { slug: "site".into() },
    ]
}

fn of_users() -> Vec<UserEvent> {
    vec![
        UserEvent::UserRegistered {
            issuer: "https://id.example".into(),
            subject: Personal::new(user("ada").as_ref(), "4711"),
            identity_claim: digest("https://id.example 4711"),
            email: of_ada("ada@example.com"),
            display_name: of_ada("Ada Lovelace"),
        },
        UserEvent::UserProfileChanged {
            email: of_ada("ada@new.example"),
            previous_email: of_ada("ada@example.com"),
            display_name: of_ada("Ada King"),
            previous_display_name: of_ada("Ada Lovelace"),
        },
        UserEvent::UserHeld { user_state: UserState::Pending },
        UserEvent::UserApproved { user_state: UserState::Active, reason: of_ada("known to us") },
        UserEvent::UserRevoked {
            user_state: UserState::Revoked,
            previous_user_state: UserState::Active,
            reason: of_ada("left the company"),
        },
        UserEvent::UserReinstated { user_state: UserState::Active, reason: of_ada("came back") },
        UserEvent::UserErased {
            user_state: UserState::Erased,
            previous_user_state: UserState::Active,
            identity_claim: digest("https://id.example 4711"),
            email_claims: vec![digest("ada@example.com"), digest("ada@new.example")],
            reason: Some(Personal::new(user("bob").as_ref(), "asked for it")),
            named_in: None,
            named_in_more: None,
            first_erased_at: None,
        },
    ]
}

fn of_api_tokens() -> Vec<ApiTokenEvent> {
    let secret_digest = digest("tnt_secret");
    vec![
        ApiTokenEvent::TokenCreated {
            name: "Deploy".into(),
            hint: "tnt_…Ab1x".into(),
            secret_digest: secret_digest.clone(),
            permissions: vec!["organization:read".into(), "project:create".into()],
            created_by: Actor::Token(ApiTokenId::derived(&["first"])),
            responsible: Actor::User(user("ada")),
            token_expires_at: Some(at(24)),
            created_at: at(0),
            reason: why(),
        },
        ApiTokenEvent::TokenRevoked {
            secret_digest: secret_digest.clone(),
            revoked_at: at(1),
            reason: of_ada("a laptop was stolen"),
        },
        ApiTokenEvent::TokenExpired { secret_digest, expires_at: at(24) },
    ]
}

fn of_webhooks() -> Vec<WebhookEndpointEvent> {
    use WebhookEndpointEvent as E;
    vec![
        E::WebhookCreated {
            url: "https://books.example/hook".into(),
            about: Some("Feeds the books.".into()),
            event_patterns: vec!["org.*".into(), "member.invited".into()],
            ordering: WebhookOrdering::Parallel,
            content: WebhookContent::Full,
            rate_per_second: Some(50),
            secret_number: 1,
            created_at: at(0),
            reason: why(),
        },
        E::WebhookChanged {
            url: "https://books.example/new".into(),
            previous_url: "https://books.example/hook".into(),
            about: Some("Feeds the new books.".into()),
            previous_about: Some("Feeds the books.".into()),
            event_patterns: vec!["*".into()],
            previous_event_patterns: vec!["org.*".into(), "member.invited".into()],
            ordering: WebhookOrdering::PerSubject,
            previous_ordering: WebhookOrdering::Parallel,
            content: WebhookContent::Thin,
            previous_content: WebhookContent::Full,
            rate_per_second: Some(10),
            previous_rate_per_second: Some(50),
            reason: why(),
        },
        E::WebhookSecretRotated { secret_number: 2, previous_secret_until: at(25), reason: why() },
        E::WebhookFailing { failing_since: at(2), disabled_from: at(74) },
        E::WebhookDisabled { automatic: true, reason: why() },
        E::WebhookEnabled { reason: why() },
        E::WebhookTested { reason: why() },
        E::WebhookRedelivered { redelivered_event_id: EventId::derived(&["earlier"]), reason: why() },
        E::WebhookReplayed {
            replayed_after: 7,
            replayed_until: 70,
            event_patterns: vec!["member.*".into()],
            failed_only: true,
            reason: why(),
        },
        E::WebhookDeleted { url: "https://books.example/new".into(), reason: why() },
    ]
}

// ---------------------------------------------------------------- golden files

/// A golden file: an event as it stands in the log, and with its personal data opened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    event_version: String,
    stored: Value,
    opened: Value,
}

impl Golden {
    fn of(stream: &StreamId, event: &Event) -> Self {
        Self {
            aggregate_type: stream.aggregate_type().to_owned(),
            aggregate_id: stream.id().to_owned(),
            event_type: event.descriptor().name.to_owned(),
            event_version: event.descriptor().version.to_owned(),
            stored: serde_json::to_value(sealed(event.clone())).unwrap(),
            opened: serde_json::to_value(event).unwrap(),
        }
    }

    fn read(&self, payload: &Value) -> Event {
        let stream = StreamId::from_stored(&self.aggregate_type, &self.aggregate_id).unwrap();
        Event::from_stored(&stream, &self.event_type, &self.event_version, &payload.to_string(), &upcasters()).unwrap()
    }

    fn is_of_today(&self) -> bool {
        descriptors().any(|event| event.name == self.event_type && event.version == self.event_version)
    }
}

/// What stands for the cipher of the log: the same key every time, and nothing that a reader would recognise.
fn sealed(mut event: Event) -> Event {
    event.visit_personal(&mut |_, personal| {
        personal.seal(|value| Some(value.bytes().map(|byte| format!("{:02x}", !byte)).collect()));
    });
    event
}

fn opened(mut event: Event) -> Event {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).ok().map(|byte| !byte);
    event.visit_personal(&mut |_, personal| {
        personal.open(|text| {
            let bytes = (0..text.len() / 2).map(|n| byte(&text[2 * n..2 * n + 2])).collect::<Option<_>>()?;
            String::from_utf8(bytes).ok()
        });
    });
    event
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

fn file_name(event_type: &str, event_version: &str) -> String {
    format!("{event_type}-{event_version}.json")
}

/// The sample of this event with its stream.
fn sample(name: &str) -> Option<(StreamId, Event)> {
    samples().into_iter().find(|(_, event)| event.descriptor().name == name)
}

/// All golden files by name; missing ones are written first when the run blesses.
fn golden() -> BTreeMap<String, Golden> {
    if std::env::var_os("BLESS").is_some() {
        for event in descriptors() {
            let path = folder().join(file_name(event.name, event.version));
            if let Some((stream, sample)) = sample(event.name)
                && !path.exists()
            {
                let text = serde_json::to_string_pretty(&Golden::of(&stream, &sample)).unwrap();
                // Written aside and moved, because several tests bless at once.
                let aside = folder().join(format!(".{:?}-{}", std::thread::current().id(), event.name));
                fs::write(&aside, text + "\n").unwrap();
                fs::rename(&aside, &path).unwrap();
            }
        }
    }
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let golden = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, golden)
        })
        .collect()
}

#[test]
fn every_event_has_a_sample_and_a_golden_file() {
    let golden = golden();
    for event in descriptors() {
        assert!(sample(event.name).is_some(), "{} has no sample: add one to samples()", event.name);
        let name = file_name(event.name, event.version);
        assert!(golden.contains_key(&name), "{name} is missing: `BLESS=1 cargo test` writes it");
    }
    assert_eq!(samples().len(), descriptors().count(), "one sample an event");
}

#[test]
fn the_samples_leave_nothing_out() {
    for (_, event) in samples() {
        let (stored, declared) = (serde_json::to_value(&event).unwrap(), event.descriptor());
        for field in declared.fields.iter().filter(|field| !LATER.contains(&field.name)) {
            assert!(!stored[declared.name][field.name].is_null(), "{} of {} is left out", field.name, declared.name);
        }
    }
}

#[test]
fn every_golden_file_is_named_after_what_it_holds() {
    for (name, golden) in golden() {
        assert_eq!(name, file_name(&golden.event_type, &golden.event_version));
        assert!(descriptors().any(|event| event.name == golden.event_type), "{name}: a stored name never goes away");
    }
}

#[test]
fn whatever_was_ever_stored_is_read() {
    for (name, golden) in golden() {
        for payload in [&golden.stored, &golden.opened] {
            let event = golden.read(payload);
            assert_eq!(event.descriptor().name, golden.event_type, "{name}");
        }
        assert_eq!(opened(golden.read(&golden.stored)), golden.read(&golden.opened), "{name}");
    }
}

#[test]
fn what_is_stored_today_is_read_as_it_was_meant() {
    for (name, golden) in golden().into_iter().filter(|(_, golden)| golden.is_of_today()) {
        let (stream, sample) = sample(&golden.event_type).unwrap();
        assert_eq!((stream.aggregate_type(), stream.id()), (&*golden.aggregate_type, &*golden.aggregate_id), "{name}");
        assert_eq!(golden.read(&golden.opened), sample, "{name}");
        assert_eq!(opened(golden.read(&golden.stored)), sample, "{name}");
    }
}

#[test]
fn events_are_stored_as_the_golden_files_say() {
    for (name, golden) in golden().into_iter().filter(|(_, golden)| golden.is_of_today()) {
        let (_, sample) = sample(&golden.event_type).unwrap();
        assert_eq!(serde_json::to_value(sealed(sample.clone())).unwrap(), golden.stored, "{name}");
        assert_eq!(serde_json::to_value(&sample).unwrap(), golden.opened, "{name}");
    }
}

#[test]
fn roles_without_a_scope_hold_in_the_whole_organization_and_are_stored_as_ever() {
    let golden = golden();
    for name in ["MemberJoined-1.0.json", "MemberRolesChanged-1.0.json", "MemberInvited-1.0.json"] {
        let golden = &golden[name];
        let stored = &golden.stored[&golden.event_type];
        assert!(!stored["roles"].is_null() && stored.get("scope").is_none(), "{name}");
        let mut scoped = golden.stored.clone();
        scoped[&golden.event_type]["scope"] = json!("ORGANIZATION");
        assert_eq!(golden.read(&scoped), golden.read(&golden.stored), "{name}");
        let again = serde_json::to_value(golden.read(&scoped)).unwrap();
        assert_eq!(again, golden.stored, "{name}");
        // A scope that this program does not know is no organization's.
        scoped[&golden.event_type]["scope"] = json!("ELSEWHERE");
        let stream = StreamId::from_stored(&golden.aggregate_type, &golden.aggregate_id).unwrap();
        let read = Event::from_stored(&stream, &golden.event_type, "1.0", &scoped.to_string(), &upcasters());
        assert!(read.is_err(), "{name}");
    }
}

#[test]
fn what_an_erasure_says_besides_is_left_out_unless_it_is_said() {
    for name in ["UserErased", "InviteeErased"] {
        let golden = &golden()[&file_name(name, "1.0")];
        let mut said = golden.stored.clone();
        said[name]["named_in"] = json!([EventId::derived(&["1"])]);
        said[name]["named_in_more"] = json!(false);
        said[name]["first_erased_at"] = json!(at(3));
        assert_eq!(serde_json::to_value(golden.read(&said)).unwrap(), said);
        assert_eq!(serde_json::to_value(golden.read(&golden.stored)).unwrap(), golden.stored);
    }
}

#[test]
fn the_plain_reason_of_a_revoked_token_is_read_as_one_of_the_token() {
    let golden = &golden()["TokenRevoked-1.0.json"];
    let (mut read, stored) = (golden.read(&golden.stored), &golden.stored["TokenRevoked"]["reason"]);
    let mut seen = 0;
    read.visit_personal(&mut |_, reason| {
        seen += 1;
        assert_eq!((reason.of(), reason.value()), (golden.aggregate_id.as_str(), stored.as_str()));
    });
    assert_eq!(seen, 1);
}

#[test]
fn nothing_personal_is_readable_in_what_is_stored() {
    for (_, mut event) in samples() {
        let stored = serde_json::to_string(&sealed(event.clone())).unwrap();
        event.visit_personal(&mut |field, personal| {
            let value = personal.value().unwrap();
            assert!(!stored.contains(value), "{field} is readable in {stored}");
        });
    }
}

#[test]
fn an_erased_datum_is_read_as_erased() {
    for (stream, mut event) in samples() {
        event.visit_personal(&mut |_, personal| personal.seal(|_| None));
        let (text, declared) = (serde_json::to_string(&event).unwrap(), event.descriptor());
        let mut read = Event::from_stored(&stream, declared.name, declared.version, &text, &upcasters()).unwrap();
        assert_eq!(read, event);
        read.visit_personal(&mut |_, personal| assert_eq!(personal.value(), None));
    }
}

#[test]
fn what_cannot_be_read_says_which_event_and_why() {
    let stream = organization().into();
    let error = Event::from_stored(&stream, "OrgRenamed", "1.0", r#"{"OrgRenamed":{"name":"A"}}"#, &[]).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("cannot read OrgRenamed 1.0 of Organization: "), "{message}");
    assert!(message.contains("previous_name"), "{message}");
}

// ---------------------------------------------------------------- declarations

/// All fields of all events.
fn fields() -> impl Iterator<Item = (&'static Descriptor, &'static FieldDescriptor)> {
    descriptors().flat_map(|event| event.fields.iter().map(move |field| (event, field)))
}

fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let (first, rest) = word.split_at(1);
        camel += &if camel.is_empty() { first.to_owned() } else { first.to_uppercase() };
        camel += rest;
    }
    camel
}

#[test]
fn a_declaration_lists_exactly_what_is_stored() {
    for (_, event) in samples() {
        let stored = serde_json::to_value(&event).unwrap();
        let body = stored.as_object().unwrap();
        assert_eq!(body.keys().collect::<Vec<_>>(), [event.descriptor().name]);
        let keys: BTreeSet<_> = body[event.descriptor().name].as_object().unwrap().keys().map(String::as_str).collect();
        let declared = event.descriptor().fields.iter().map(|field| field.name);
        assert_eq!(keys, declared.filter(|name| !LATER.contains(name)).collect());
    }
}

#[test]
fn a_declaration_belongs_to_its_event() {
    use cqrs_es::DomainEvent;
    for (_, event) in samples() {
        let (name, version) = match &event {
            Event::Organization(event) => (event.event_type(), event.event_version()),
            Event::Membership(event) => (event.event_type(), event.event_version()),
            Event::Invitation(event) => (event.event_type(), event.event_version()),
            Event::Project(event) => (event.event_type(), event.event_version()),
            Event::User(event) => (event.event_type(), event.event_version()),
            Event::ApiToken(event) => (event.event_type(), event.event_version()),
            Event::WebhookEndpoint(event) => (event.event_type(), event.event_version()),
            Event::Pruned => continue,
        };
        assert_eq!((name.as_str(), version.as_str()), (event.descriptor().name, event.descriptor().version));
    }
}

#[test]
fn actions_and_enum_values_follow_from_the_name() {
    let rule = [
        ("OrgVerified", "org.verified", "ORG_VERIFIED", "OrgVerifiedEvent"),
        ("MemberRolesChanged", "member.roles_changed", "MEMBER_ROLES_CHANGED", "MemberRolesChangedEvent"),
        ("OrgExternalIdChanged", "org.external_id_changed", "ORG_EXTERNAL_ID_CHANGED", "OrgExternalIdChangedEvent"),
        ("LimitReached", "limit.reached", "LIMIT_REACHED", "LimitReachedEvent"),
    ];
    for (name, action, value, object) in rule {
        let event = descriptors().find(|event| event.name == name).unwrap();
        assert_eq!((event.action().as_str(), event.enum_value().as_str()), (action, value));
        assert_eq!(event.object_type(), object);
    }
}

#[test]
fn the_name_follows_from_the_action_and_from_the_enum_value() {
    let title = |word: &str| word[..1].to_uppercase() + &word[1..].to_lowercase();
    for event in descriptors() {
        let action = event.action();
        assert_eq!(action.matches('.').count(), 1, "{action}");
        assert_eq!(action.split(['.', '_']).map(title).collect::<String>(), event.name);
        assert_eq!(event.enum_value().split('_').map(title).collect::<String>(), event.name);
        assert_eq!(event.enum_value(), action.replace('.', "_").to_uppercase());
    }
}

#[test]
fn no_two_events_share_a_name_or_an_action() {
    let events = descriptors().count();
    assert_eq!(descriptors().map(|event| event.name).collect::<BTreeSet<_>>().len(), events);
    assert_eq!(descriptors().map(Descriptor::action).collect::<BTreeSet<_>>().len(), events);
    assert_eq!(descriptors().map(Descriptor::enum_value).collect::<BTreeSet<_>>().len(), events);
}

#[test]
fn a_field_name_means_one_type_over_all_events() {
    let mut kinds: BTreeMap<&str, (&str, Kind)> = BTreeMap::new();
    for (event, field) in fields() {
        let (first, kind) = *kinds.entry(field.name).or_insert((event.name, field.kind));
        assert_eq!(kind, field.kind, "{} differs between {first} and {}", field.name, event.name);
    }
}

#[test]
fn no_field_clashes_with_those_of_the_audit() {
    let audit = [
        "id",
        "action",
        "organizationId",
        "subjectId",
        "sequence",
        "auditSequence",
        "position",
        "recordedAt",
        "actor",
        "onBehalfOf",
        "ip",
        "userAgent",
        "requestId",
        "correlationId",
        "causationId",
        "data",
    ];
    for (event, field) in fields() {
        assert!(!audit.contains(&camel_case(field.name).as_str()), "{} of {}", field.name, event.name);
        assert!(!field.name.starts_with("__"), "{} of {}", field.name, event.name);
    }
    assert_eq!(camel_case("organization_id"), "organizationId");
}

#[test]
fn names_and_versions_are_well_formed() {
    for event in descriptors() {
        assert!(event.name.starts_with(|c: char| c.is_ascii_uppercase()), "{}", event.name);
        assert!(event.name.chars().all(|c| c.is_ascii_alphabetic()), "{}", event.name);
        assert!(event.version.split('.').all(|part| part.parse::<u32>().is_ok()), "{}", event.version);
        assert!(!event.description.is_empty(), "{} is described", event.name);
    }
    for (event, field) in fields() {
        assert!(field.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{} of {}", field.name, event.name);
        assert!(!field.description.is_empty(), "{} of {} is described", field.name, event.name);
    }
}

// ---------------------------------------------------------------- personal data

/// The fields that are personal, by event.
fn personal_fields() -> BTreeSet<(&'static str, &'static str)> {
    let mut personal = BTreeSet::new();
    for (_, mut event) in samples() {
        let name = event.descriptor().name;
        event.visit_personal(&mut |field, _| {
            personal.insert((name, field));
        });
    }
    personal
}

/// Texts that say nothing of a person. A new field of text is personal, or is added here after a thought.
const NOBODYS: [&str; 33] = [
    "hint",
    "created_by",
    "responsible",
    "name",
    "previous_name",
    "slug",
    "previous_slug",
    "external_id",
    "previous_external_id",
    "plan",
    "previous_plan",
    "namespace",
    "limit",
    "reason",
    "roles",
    "previous_roles",
    "invited_by",
    "offered_by",
    "issuer",
    "source",
    "role",
    "replaced_with",
    "description",
    "previous_description",
    "permissions",
    "previous_permissions",
    "scope",
    "url",
    "previous_url",
    "about",
    "previous_about",
    "event_patterns",
    "previous_event_patterns",
];

#[test]
fn every_text_is_personal_or_known_to_be_nobodys() {
    let personal = personal_fields();
    for (event, field) in fields().filter(|(_, field)| field.kind.name == "String" && !field.kind.hidden) {
        let known = personal.contains(&(event.name, field.name)) || NOBODYS.contains(&field.name);
        assert!(known, "{} of {} may say something of a person: make it Personal", field.name, event.name);
    }
}

#[test]
fn whatever_names_a_person_is_personal() {
    let personal = personal_fields();
    for (event, field) in fields().filter(|(_, field)| field.kind.name == "String" && !field.kind.hidden) {
        let names = ["email", "display_name", "subject"].iter().any(|part| field.name.contains(part));
        let of_a_person = ["Member", "Invitation", "User"].iter().any(|kind| event.name.starts_with(kind));
        if names || (of_a_person && field.name == "reason") {
            assert!(personal.contains(&(event.name, field.name)), "{} of {}", field.name, event.name);
        }
    }
}

#[test]
fn whatever_is_personal_may_be_missing() {
    let personal = personal_fields();
    assert!(personal.len() >= 20, "the samples hold all personal data: {personal:?}");
    for (event, field) in fields().filter(|(event, field)| personal.contains(&(event.name, field.name))) {
        let kind = Kind { name: "String", list: false, nullable: true, hidden: false };
        assert_eq!(field.kind, kind, "{} of {}", field.name, event.name);
    }
}

#[test]
fn keyed_hashes_and_nothing_else_are_hidden() {
    for (event, field) in fields() {
        let hash = field.name.ends_with("_claim") || field.name.ends_with("_claims") || field.name.ends_with("_digest");
        assert_eq!(field.kind.hidden, hash, "{} of {}", field.name, event.name);
    }
}

#[test]
fn personal_data_belong_to_the_person_that_the_event_is_about() {
    for (stream, mut event) in samples() {
        let owner = match &stream {
            // Why somebody was erased outlives the person.
            StreamId::User(_) if event.destroys_key() => user("bob").to_string(),
            StreamId::Invitation(_) if event.destroys_key() => user("bob").to_string(),
            StreamId::Membership(_) | StreamId::User(_) => user("ada").to_string(),
            // The one who gets the ownership.
            StreamId::Organization(_) if event.descriptor().name.starts_with("Ownership") => user("ada").to_string(),
            // The user who answers for it.
            StreamId::ApiToken(_) => user("ada").to_string(),
            StreamId::Organization(_)
            | StreamId::Invitation(_)
            | StreamId::Project(_)
            | StreamId::WebhookEndpoint(_) => stream.id().to_owned(),
        };
        event.visit_personal(&mut |field, personal| assert_eq!(personal.of(), owner, "{field}"));
    }
}

// ---------------------------------------------------------------- snapshots

/// Whether the state after each of `events`, sealed, shows nothing personal, and opens to what it was.
fn keeps_to_itself<A: Snapshot + PartialEq + std::fmt::Debug>(events: Vec<A::Event>, personal: &[&str])
where
    A::Event: Declared,
{
    let mut state = A::default();
    let mut seen = BTreeSet::new();
    for mut event in events {
        state.apply(event.clone());
        let mut kept = serde_json::to_value(&state).unwrap();
        let mut sealed: A = serde_json::from_value(kept.clone()).unwrap();
        sealed.visit_personal(&mut |field, personal| {
            seen.insert(field);
            personal.seal(|value| Some(value.bytes().map(|byte| format!("{:02x}", !byte)).collect()));
        });
        kept = serde_json::to_value(&sealed).unwrap();
        event.visit_personal(&mut |field, personal| {
            let value = personal.value().unwrap();
            assert!(!kept.to_string().contains(value), "{field} is readable in {kept}");
        });
        let mut read: A = serde_json::from_value(kept).unwrap();
        let byte = |text: &str, n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok().map(|byte| !byte);
        read.visit_personal(&mut |_, personal| {
            personal.open(|text| {
                String::from_utf8((0..text.len() / 2).map(|n| byte(text, n)).collect::<Option<_>>()?).ok()
            });
        });
        assert_eq!(read, state);
    }
    assert_eq!(seen, personal.iter().copied().collect(), "the personal fields of {}", A::TYPE);
}

#[test]
fn nothing_personal_is_readable_in_a_sealed_snapshot() {
    keeps_to_itself::<Organization>(of_organizations(), &["contact_email"]);
    keeps_to_itself::<Membership>(of_memberships(), &[]);
    keeps_to_itself::<Invitation>(of_invitations(), &["email"]);
    keeps_to_itself::<Project>(of_projects(), &[]);
    keeps_to_itself::<User>(of_users(), &["email", "display_name"]);
    keeps_to_itself::<ApiToken>(of_api_tokens(), &[]);
    keeps_to_itself::<WebhookEndpoint>(of_webhooks(), &[]);
}

// ---------------------------------------------------------------- older shapes

/// Names were called titles up to version 0.8, and had no name before up to 0.9.
fn old_upcasters() -> Vec<Box<dyn EventUpcaster>> {
    let titles = |mut payload: Value| {
        let title = payload["OrgRenamed"]["title"].take();
        payload["OrgRenamed"] = json!({"name": title});
        payload
    };
    let previous = |mut payload: Value| {
        payload["OrgRenamed"]["previous_name"] = json!("unknown");
        payload
    };
    vec![
        Box::new(SemanticVersionEventUpcaster::new("OrgRenamed", "0.9", Box::new(titles))),
        Box::new(SemanticVersionEventUpcaster::new("OrgRenamed", "1.0", Box::new(previous))),
    ]
}

fn read_renamed(version: &str, payload: &Value) -> Result<Event, String> {
    let stream = organization().into();
    Event::from_stored(&stream, "OrgRenamed", version, &payload.to_string(), &old_upcasters())
        .map_err(|error| error.to_string())
}

fn renamed(name: &str, previous_name: &str) -> Event {
    OrganizationEvent::OrgRenamed { name: name.into(), previous_name: previous_name.into(), reason: None }.into()
}

#[test]
fn an_upcaster_brings_an_old_shape_up_to_date() {
    let old = json!({"OrgRenamed": {"name": "Acme"}});
    assert_eq!(read_renamed("0.9", &old), Ok(renamed("Acme", "unknown")));
    assert!(Event::from_stored(&organization().into(), "OrgRenamed", "0.9", &old.to_string(), &[]).is_err());
}

#[test]
fn upcasters_follow_one_another() {
    assert_eq!(read_renamed("0.8", &json!({"OrgRenamed": {"title": "Acme"}})), Ok(renamed("Acme", "unknown")));
}

#[test]
fn an_upcaster_leaves_the_shape_of_today_alone() {
    let today = json!({"OrgRenamed": {"name": "Acme", "previous_name": "Bolt"}});
    assert_eq!(read_renamed("1.0", &today), Ok(renamed("Acme", "Bolt")));
}

#[test]
fn an_upcaster_leaves_other_events_alone() {
    let stream = organization().into();
    let (_, event) = sample("OrgSlugChanged").unwrap();
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(Event::from_stored(&stream, "OrgSlugChanged", "0.1", &text, &old_upcasters()).unwrap(), event);
}

// ---------------------------------------------------------------- the list of aggregates

#[test]
fn every_claim_is_in_a_registered_scope() {
    for (stream, event) in samples() {
        let name = event.descriptor().name;
        for effect in event.effects() {
            if let Effect::Claim { scope, .. } | Effect::Release { scope, .. } = effect {
                assert_eq!(
                    Scope::named(scope.as_str()),
                    Some(scope),
                    "{name} claims in {}, which no CLAIMS of {} names",
                    scope.as_str(),
                    stream.aggregate_type()
                );
            }
        }
    }
}

#[test]
fn no_two_aggregates_have_a_name_in_common() {
    let prefixes = aggregates::ids::PREFIXES.iter().map(|prefix| (*prefix).to_owned());
    let events = descriptors().map(|event| event.name.to_owned());
    let limits = aggregates::limits().map(|limit| limit.name.to_owned());
    let scopes = aggregates::resource::scopes().map(|scope| scope.as_str().to_owned());
    for names in [prefixes.collect::<Vec<_>>(), events.collect(), limits.collect(), scopes.collect()] {
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }
}

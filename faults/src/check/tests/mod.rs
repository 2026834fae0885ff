//! A small good history passes, and each class of corruption is noticed. Rows are fed in; no database is needed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

mod complete;
mod kinds;

use super::event::Event;
use super::findings::Findings;
use super::model::Model;
use super::tables::Found;
use super::{Surroundings, global, log, outcomes, rules, tables, watchers};
use crate::history::{Attempt, Command, Followed, Outcome, Read, Shown};
use crate::kinds::KINDS;

/// A log that is written event by event.
#[derive(Default)]
struct Log {
    events: Vec<Event>,
    commands: i64,
}

const ADA: &str = "user:usr_ada";
const BEA: &str = "user:usr_bea";
const OPS: &str = "operator:usr_ops";

fn start() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl Log {
    /// Begins a command; what follows belongs to it.
    fn command(&mut self) -> &mut Self {
        self.commands += 1;
        self
    }

    fn add(&mut self, actor: &str, organization: &str, stream: &str, name: &str, body: Value) -> &mut Self {
        let partition = i16::from(organization == "org_b");
        let organization = Some(organization.to_owned()).filter(|id| !id.is_empty());
        let count = |wanted: &dyn Fn(&&Event) -> bool| self.events.iter().filter(wanted).count() as i64 + 1;
        let prefix = stream.split_once('_').unwrap().0;
        let kind = KINDS.iter().find(|kind| kind.prefix == prefix).unwrap().name;
        let event = Event {
            partition,
            offset: count(&|event| event.partition == partition),
            kind: kind.to_owned(),
            stream: stream.to_owned(),
            version: count(&|event| event.stream == stream),
            name: name.to_owned(),
            body,
            audit: organization.as_ref().map(|id| count(&|event| event.organization.as_ref() == Some(id))),
            organization,
            id: format!("evt_{}", self.events.len()),
            command: format!("command-{}", self.commands),
            actor: actor.to_owned(),
            request: Some(format!("r{}", self.commands)),
            cause: None,
            at: start() + TimeDelta::minutes(self.commands),
            transaction: 100 + self.commands,
        };
        self.events.push(event);
        self
    }

    fn create(&mut self, organization: &str, slug: &str, user: &str) -> &mut Self {
        let body = json!({"name": slug, "slug": slug, "plan": "free", "limits": {"members": 2, "projects": 1},
                          "external_id": null, "created_at": "2026-01-01T00:00:00Z"});
        let actor = format!("user:{user}");
        self.command().add(&actor, organization, organization, "OrgCreated", body);
        self.add(
            &actor,
            organization,
            &format!("mem_{organization}_{user}"),
            "MemberJoined",
            joined(user, "owner", None),
        )
    }

    fn verify(&mut self, organization: &str, user: &str) -> &mut Self {
        let step = |to: &str, from: &str| json!({"verification": to, "previous_verification": from, "reason": null});
        self.command().add(user, organization, organization, "OrgSubmitted", step("PENDING", "IN_SETUP"));
        self.command().add(OPS, organization, organization, "OrgVerified", step("VERIFIED", "PENDING"))
    }

    fn project(&mut self, id: &str, slug: &str) -> &mut Self {
        let body = json!({"name": slug, "slug": slug, "metadata": {}, "created_at": "2026-01-01T00:00:00Z"});
        self.command().add(ADA, "org_a", id, "ProjectCreated", body)
    }

    fn delete_project(&mut self, id: &str, slug: &str) -> &mut Self {
        let body = json!({"slug": slug, "previous_project_state": "ACTIVE", "purge_at": "2026-02-01T00:00:00Z"});
        self.command().add(ADA, "org_a", id, "ProjectDeleted", body)
    }

    fn limit_reached(&mut self, limit: &str, used: i64) -> &mut Self {
        let maximum = if limit == "members" { 2 } else { 1 };
        let body = json!({"limit": limit, "maximum": maximum, "used": used, "requested": 1});
        self.command().add(ADA, "org_a", "org_a", "LimitReached", body)
    }

    fn invite(&mut self, id: &str, address: &str) -> &mut Self {
        let body = json!({"email_claim": address, "roles": ["member"], "invited_by": ADA,
                          "expires_at": "2026-01-08T00:00:00Z", "created_at": "2026-01-01T00:00:00Z"});
        self.command().add(ADA, "org_a", id, "MemberInvited", body)
    }

    fn accept(&mut self, id: &str, address: &str) -> &mut Self {
        let body = json!({"email_claim": address, "user_id": "usr_bea", "membership_id": "mem_org_a_usr_bea",
                          "seat_freed": false});
        self.command().add(BEA, "org_a", id, "InvitationAccepted", body);
        self.add(BEA, "org_a", "mem_org_a_usr_bea", "MemberJoined", joined("usr_bea", "member", Some(id)))
    }

    fn register(&mut self, user: &str) -> &mut Self {
        let body = json!({"issuer": "here", "identity_claim": format!("identity of {user}")});
        self.command().add(&format!("user:{user}"), "", user, "UserRegistered", body)
    }

    fn settings(&mut self, organization: &str, actor: &str, namespace: &str, value: Value) -> &mut Self {
        let body = json!({"namespace": namespace, "value": value, "previous_value": null});
        self.command().add(actor, organization, organization, "OrgSettingsUpdated", body)
    }

    fn token(&mut self, id: &str, by: &str, permissions: &[&str]) -> &mut Self {
        let body = json!({"name": "deploy", "hint": "tnt_", "secret_digest": format!("secret of {id}"),
                          "permissions": permissions, "created_by": by, "responsible": ADA, "token_expires_at": null,
                          "created_at": "2026-01-01T00:00:00Z"});
        self.command().add(by, "org_a", id, "TokenCreated", body)
    }

    fn endpoint(&mut self, id: &str) -> &mut Self {
        let body = json!({"url": "https://receiver.test/a/b", "about": null, "event_patterns": ["*"],
                          "ordering": "PARALLEL", "content": "FULL", "rate_per_second": null, "secret_number": 1,
                          "created_at": "2026-01-01T00:00:00Z"});
        self.command().add(ADA, "org_a", id, "WebhookCreated", body)
    }

    fn rename(&mut self, organization: &str, actor: &str, to: &str, from: &str) -> &mut Self {
        let body = json!({"slug": to, "previous_slug": from});
        self.command().add(actor, organization, organization, "OrgSlugChanged", body)
    }

    /// Nothing wrong in it.
    fn good() -> Self {
        let mut log = Self::default();
        log.create("org_a", "one", "usr_ada").create("org_b", "two", "usr_cyd");
        log.verify("org_a", ADA);
        log.project("prj_1", "web").limit_reached("projects", 1).delete_project("prj_1", "web").project("prj_2", "web");
        log.limit_reached("projects", 1);
        log.invite("inv_1", "digest").limit_reached("members", 2).accept("inv_1", "digest");
        log.register("usr_ada").settings("org_a", ADA, "colours", json!({"sky": "blue"}));
        log.token("tok_1", ADA, &["organization:read", "project:create"]).endpoint("whk_1");
        log.rename("org_a", ADA, "three", "one").rename("org_b", "user:usr_cyd", "one", "two");
        log
    }

    fn last(&mut self) -> &mut Event {
        self.events.last_mut().unwrap()
    }

    fn find(&mut self, name: &str) -> &mut Event {
        self.events.iter_mut().find(|event| event.name == name).unwrap()
    }

    /// As the database gives it: by partition and offset.
    fn judged(mut self) -> (Model, Findings) {
        self.events.sort_by_key(|event| (event.partition, event.offset));
        let mut findings = Findings::default();
        log::check(&self.events, &mut findings);
        let mut model = rules::check(&self.events, Surroundings::default(), &mut findings);
        global::check(&mut model, &mut findings);
        (model, findings)
    }
}

fn joined(user: &str, role: &str, invitation: Option<&str>) -> Value {
    json!({"user_id": user, "roles": [role], "source": "FOUNDER", "invitation_id": invitation,
           "joined_at": "2026-01-01T00:00:00Z"})
}

fn left(user: &str, role: &str) -> Value {
    json!({"user_id": user, "roles": [role], "previous_state": "ACTIVE"})
}

/// What is noticed of a log that was good before `spoil`.
fn noticed(spoil: impl FnOnce(&mut Log)) -> Vec<&'static str> {
    let mut log = Log::good();
    spoil(&mut log);
    log.judged().1.checks()
}

#[track_caller]
fn is_noticed(check: &str, spoil: impl FnOnce(&mut Log)) {
    let noticed = noticed(spoil);
    assert!(noticed.contains(&check), "{check}: noticed only {noticed:?}");
}

#[test]
fn a_good_log_passes() {
    let (model, findings) = Log::good().judged();
    assert!(findings.is_empty(), "{}", findings.describe());
    let organization = &model.organizations["org_a"];
    assert_eq!(["members", "projects", "owners"].map(|name| organization.used(name)), [2, 1, 1]);
    assert!(organization.tallies["members"].reached && organization.tallies["projects"].reached);
    assert_eq!(model.claims[&("organization_slug".to_owned(), "one".to_owned())].holder, "org_b");
}

#[test]
fn a_log_of_another_form_is_noticed() {
    is_noticed("offsets are dense in a partition", |log| log.last().offset += 1);
    is_noticed("versions are dense in a stream", |log| log.last().version += 1);
    is_noticed("audit sequences are dense in an organization", |log| *log.last().audit.as_mut().unwrap() -= 1);
    is_noticed("recorded_at never goes back in a partition", |log| log.last().at = start());
    is_noticed("a partition is written by one transaction after the other", |log| log.last().transaction = 1);
    is_noticed("an event is there once", |log| log.last().id = "evt_0".into());
    is_noticed("an organization is in one partition", |log| log.last().organization = Some("org_a".into()));
    is_noticed("a command's events are in one place, once", |log| log.last().command = "command-1".into());
    is_noticed("a command's events are of one transaction, time, actor and request", |log| {
        log.find("MemberJoined").request = None;
    });
    is_noticed("a stream is of one kind, organization and partition", |log| log.last().kind = "Project".into());
}

#[test]
fn what_an_invitation_gives_could_be_given_when_it_is_taken() {
    is_noticed("what is taken could still be given", |log| {
        log.find("MemberInvited").body["invited_by"] = json!("user:usr_nobody");
    });
    is_noticed("no invitation outlives the end of a membership", |log| {
        log.invite("inv_9", "other");
        log.command().add(BEA, "org_a", "mem_org_a_usr_bea", "MemberLeft", left("usr_bea", "member"));
        log.accept("inv_9", "other");
    });
}

#[test]
fn seats_owners_and_invitations_are_counted_at_every_event() {
    is_noticed("nothing grows beyond its maximum", |log| {
        log.invite("inv_2", "other");
    });
    is_noticed("nothing grows beyond its maximum", |log| {
        log.project("prj_3", "other");
    });
    // It is noticed although the end of the log is good again.
    is_noticed("nothing grows beyond its maximum", |log| {
        log.project("prj_3", "other").delete_project("prj_3", "other");
    });
    is_noticed("a living organization has an owner", |log| {
        log.command().add(ADA, "org_a", "mem_org_a_usr_ada", "MemberLeft", left("usr_ada", "owner"));
    });
    is_noticed("an invitation ends once", |log| {
        log.command().add(ADA, "org_a", "inv_1", "InvitationRevoked", json!({"email_claim": "digest"}));
    });
    is_noticed("who accepts is in, by the same command", |log| {
        log.find("InvitationAccepted").body["seat_freed"] = json!(true)
    });
    is_noticed("nobody is in by an invitation that was not accepted", |log| {
        log.find("MemberJoined").body["invitation_id"] = json!("inv_9");
    });
}

#[test]
fn limit_reached_is_true_and_comes_once() {
    let once = "LimitReached is recorded once for each time that room ran out";
    is_noticed(once, |log| {
        log.limit_reached("projects", 1);
    });
    is_noticed("LimitReached says what is true then", |log| log.find("LimitReached").body["used"] = json!(0));
    // There was room in between.
    let noticed = noticed(|log| {
        log.delete_project("prj_2", "web").project("prj_3", "web").limit_reached("projects", 1);
    });
    assert_eq!(noticed, Vec::<&str>::new());
}

#[test]
fn keys_have_one_holder() {
    is_noticed("a slug, external id or identity has one holder", |log| {
        log.rename("org_a", ADA, "one", "three");
    });
    is_noticed("a slug, external id or identity has one holder", |log| {
        log.create("org_c", "three", "usr_dan");
    });
    is_noticed("a project's slug is unique", |log| {
        log.project("prj_3", "web");
    });
    is_noticed("an address has one open invitation", |log| {
        log.invite("inv_2", "other").invite("inv_3", "other");
    });
    // In one transaction, two partitions: some order of the two has to obey the rule, and here one does.
    let noticed = noticed(|log| {
        log.rename("org_a", ADA, "four", "three").rename("org_b", "user:usr_cyd", "three", "one");
        let both = log.last().transaction;
        log.events.iter_mut().rev().take(2).for_each(|event| event.transaction = both);
    });
    assert_eq!(noticed, Vec::<&str>::new());
}

#[test]
fn who_acts_may_do_it_and_the_status_allows_it() {
    is_noticed("who acts may do it, at that moment", |log| {
        log.command().add(ADA, "org_a", "mem_org_a_usr_bea", "MemberRemoved", left("usr_bea", "member"));
        log.delete_project("prj_2", "web").command().add(BEA, "org_a", "prj_2", "ProjectArchived", json!({}));
    });
    is_noticed("who acts may do it, at that moment", |log| log.find("OrgVerified").actor = ADA.into());
    is_noticed("an organization's status allows what is done", |log| {
        let step = json!({"verification": "BLOCKED", "previous_verification": "VERIFIED"});
        log.command()
            .add(OPS, "org_a", "org_a", "OrgBlocked", step)
            .delete_project("prj_2", "web")
            .project("prj_4", "x");
    });
    is_noticed("an event fits the state that it changes", |log| {
        log.rename("org_a", ADA, "five", "one");
    });
    is_noticed("an event fits the state that it changes", |log| {
        let step = json!({"verification": "REJECTED", "previous_verification": "VERIFIED"});
        log.command().add(OPS, "org_a", "org_a", "OrgRejected", step);
    });
    is_noticed("nothing runs out before its time", |log| {
        let body = json!({"email_claim": "new", "expires_at": "2026-01-08T00:00:00Z"});
        log.invite("inv_2", "new").command().add("system", "org_a", "inv_2", "InvitationExpired", body);
    });
}

#[test]
fn tables_equal_the_fold() {
    let (model, _) = Log::good().judged();
    let good: BTreeMap<&str, tables::Rows> = tables::all().map(|table| (table.name, (table.rows)(&model))).collect();
    let judged = |tables: &BTreeMap<&'static str, tables::Rows>| {
        let mut findings = Findings::default();
        tables::check(&model, &Found { tables: tables.clone(), ..Found::default() }, &mut findings);
        findings.checks()
    };
    assert_eq!(judged(&good), Vec::<&str>::new());
    for table in tables::all() {
        let (name, check) = (table.name, table.check);
        let Some(key) = good[name].keys().next().cloned() else { panic!("the good log makes no {name}") };
        let mut missing = good.clone();
        missing.get_mut(name).unwrap().remove(&key);
        assert_eq!(judged(&missing), [check]);
        let mut wrong = good.clone();
        wrong.get_mut(name).unwrap().get_mut(&key).unwrap()["partition"] = json!(9);
        assert_eq!(judged(&wrong), [check]);
        let mut more = good.clone();
        more.get_mut(name).unwrap().insert("zzz".into(), json!({}));
        assert_eq!(judged(&more), [check]);
    }
}

fn told(request: &str, outcome: Outcome) -> Attempt {
    Attempt { request_id: request.into(), replica: 0, began_ms: 0, ended_ms: 1, outcome }
}

fn acknowledged(events: &[&str], position: &str, replayed: bool) -> Outcome {
    let events = events.iter().map(|id| (*id).to_owned()).collect();
    Outcome::Acknowledged { events, position: Some(position.into()), replayed, entities: vec![] }
}

/// What is noticed of one command with these tries; the good log's first command is `r1`, with evt_0 and evt_1.
fn told_of(key: Option<&str>, kept: &[&str], attempts: Vec<Attempt>) -> Vec<&'static str> {
    let events = Log::good().events;
    let key = key.map(str::to_owned);
    let mut outcomes = outcomes::Kept::new();
    if !kept.is_empty() {
        let ids = kept.iter().map(|id| (*id).to_owned()).collect();
        outcomes.insert(("usr_ada".into(), "createOrganization".into(), key.clone().unwrap_or_default()), ids);
    }
    let operation = "createOrganization".to_owned();
    let command = Command { id: 1, operation, caller: "usr_ada".into(), key, input: json!({}), attempts };
    let mut findings = Findings::default();
    outcomes::check(&[command], &events, &outcomes, &mut findings);
    outcomes::check_kept(&events, &outcomes, &mut findings);
    findings.checks()
}

/// "1.0-2": partition 0 up to offset 2.
const AT_2: &str = "MS4wLTI";
/// "1.0-1"
const AT_1: &str = "MS4wLTE";

#[test]
fn what_clients_were_told_is_what_is_there() {
    let whole = || acknowledged(&["evt_0", "evt_1"], AT_2, false);
    let unknown = || Outcome::Unknown { why: "no answer".into() };
    let refused = |code: &str| Outcome::Refused { code: code.into() };
    let none = Vec::<&str>::new();
    assert_eq!(outcomes::offsets(AT_2), Some(vec![(0, 2)]));
    assert_eq!(told_of(None, &[], vec![told("r1", whole())]), none);
    assert_eq!(told_of(None, &[], vec![told("r1", unknown())]), none);
    assert_eq!(told_of(None, &[], vec![told("r99", unknown())]), none);
    assert_eq!(told_of(None, &[], vec![told("r99", refused("CONFLICT"))]), none);
    assert_eq!(told_of(None, &[], vec![told("r1", refused("CONFLICT"))]), ["a refused command leaves nothing"]);
    let lost = told_of(None, &[], vec![told("r1", acknowledged(&["evt_77"], AT_2, false))]);
    assert!(lost.contains(&"what was acknowledged is in the log"), "{lost:?}");
    let early = told_of(None, &[], vec![told("r1", acknowledged(&["evt_0", "evt_1"], AT_1, false))]);
    assert_eq!(early, ["a position covers what it was given for"]);
    // r3 is the submission of an organization: no creation.
    assert_eq!(
        told_of(None, &[], vec![told("r3", unknown())]),
        ["an unknown command is wholly there or wholly absent"]
    );
    // r6 is a LimitReached.
    assert_eq!(told_of(None, &[], vec![told("r6", refused("LIMIT_REACHED"))]), none);
    assert_eq!(
        told_of(None, &[], vec![told("r6", refused("CONFLICT"))]),
        ["only a refusal by a limit records LimitReached"]
    );
}

#[test]
fn events_of_nobody_are_noticed() {
    let events = Log::good().events;
    let mut findings = Findings::default();
    outcomes::check_origins(&[], &events, &mut findings);
    assert_eq!(findings.checks(), ["every event is of a request that was sent, or of the service itself"]);
}

#[test]
fn a_key_has_one_outcome() {
    let whole = || told("r1", acknowledged(&["evt_0", "evt_1"], AT_2, false));
    let replay = || told("r99", acknowledged(&["evt_0", "evt_1"], AT_2, true));
    let unknown = |request| told(request, Outcome::Unknown { why: "no answer".into() });
    let kept = ["evt_0", "evt_1"];
    let none = Vec::<&str>::new();
    assert_eq!(told_of(Some("k"), &kept, vec![whole(), replay()]), none);
    assert_eq!(told_of(Some("k"), &kept, vec![unknown("r1"), replay()]), none);
    assert_eq!(told_of(Some("k"), &[], vec![unknown("r99")]), none);
    assert_eq!(told_of(Some("k"), &[], vec![whole()]), ["an accepted command's outcome is kept by its key"]);
    let doubled =
        told_of(Some("k"), &kept, vec![unknown("r1"), told("r2", acknowledged(&["evt_2", "evt_3"], AT_2, false))]);
    assert!(doubled.contains(&"a key has one outcome"), "{doubled:?}");
    let again = told_of(Some("k"), &kept, vec![whole(), told("r99", acknowledged(&["evt_0", "evt_1"], AT_2, false))]);
    assert!(again.contains(&"a repetition by key is a replay"), "{again:?}");
    let half = told_of(Some("k"), &["evt_0"], vec![unknown("r99")]);
    assert!(half.contains(&"a kept outcome names the events of one whole command"), "{half:?}");
}

#[test]
fn followers_and_readers_saw_what_was() {
    let mut events = Log::good().events;
    events.sort_by_key(|event| (event.partition, event.offset));
    let seen: Vec<(i64, String)> =
        events.iter().filter(|e| e.partition == 0).map(|e| (e.offset, e.id.clone())).collect();
    let follow = |events_seen: Vec<(i64, String)>, end| {
        let who = "a reader".to_owned();
        let followed = Followed { who, partition: Some(0), organization: None, events: events_seen, end };
        let mut findings = Findings::default();
        watchers::followers(&[followed], &events, &mut findings);
        findings.is_empty()
    };
    let without = |place: usize| {
        let mut seen = seen.clone();
        seen.remove(place);
        seen
    };
    let mut swapped = seen.clone();
    swapped.swap(2, 3);
    let doubled = [&seen[..2], &seen[1..]].concat();
    let beyond = [seen.clone(), vec![(99, "evt_99".to_owned())]].concat();
    assert!(follow(seen.clone(), seen.len() as i64) && follow(seen[..3].to_vec(), 0));
    let wrong = [without(1), swapped, doubled, beyond];
    assert!(wrong.into_iter().all(|seen| !follow(seen, 0)) && !follow(without(seen.len() - 1), seen.len() as i64));

    let (model, _) = Log::good().judged();
    let read = |entity: &str, version, shown: Option<(i64, &str, &str)>, whole| {
        let shown = shown.map(|(version, state, more)| Shown { version, state: state.into(), more: more.into() });
        let read = Read { command: 1, replica: 0, entity: entity.into(), version, shown, whole };
        let mut findings = Findings::default();
        watchers::reads(&[read], &model, &mut findings);
        findings.is_empty()
    };
    assert!(read("prj_2", 1, Some((1, "ACTIVE", "web")), true) && read("prj_1", 1, None, true));
    assert!(read("prj_2", 1, None, false) && !read("prj_2", 1, None, true));
    assert!(
        !read("prj_1", 2, Some((1, "ACTIVE", "web")), true) && !read("prj_2", 1, Some((1, "ARCHIVED", "web")), true)
    );
}

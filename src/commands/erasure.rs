//! Erasing people, legal holds, and what follows a purge.
//!
//! One append records an erasure and destroys the person's key: from then on nothing of the person opens. What is left
//! to do lies in other partitions (ending memberships, erasing what was sent to their addresses), so it is a process:
//! the same commit leaves a tombstone, and every sweep looks at it until everything is done. A crash only delays that.
//!
//! A user who joins at the same moment, on another replica, was let in by a look that came before the erasure; so a
//! tombstone is finished only when a look a minute later finds nothing to do any more.
//!
//! Where a person is, read models say, and a key that is destroyed does not come back. So nobody is erased, and no
//! tombstone is finished, while they may leave something out.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aggregates::ids::{Id, InvitationId, MembershipId, OrganizationId, UserId};
use aggregates::invitation::InvitationCommand;
use aggregates::membership::{Grantor, MembershipCommand, MembershipState};
use aggregates::organization::OrganizationCommand;
use aggregates::personal::readable;
use aggregates::status::Lifecycle;
use aggregates::user::{UserCommand, UserEvent, UserState};
use aggregates::{
    Actor, Digest, Event, Invitation, Membership, Organization, Origin, Personal, Recorded, Refusal, StreamId, User,
};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use projections::Projection;
use serde::Serialize;
use uuid::Uuid;

use super::departures::Ended;
use super::invitations::email_claim;
use super::roles::wait_for_read_models;
use super::standing::{Insider, Standing};
use super::work::{Entity, Stop, Work};
use super::{
    Caller, Commands, Conditions, Fault, Person, Principal, Receipt, UseCase, departures, ownership, system_origin,
};
use crate::erased::{self, ErasedList};
use crate::log::{Draft, Loaded, Log, LogError, Outcome, TRUSTED_FOR, Unfinished};

/// In how many organizations somebody may be who is erased.
const PLACES_MAX: i64 = 10_000;
/// How many places a refusal names.
const NAMED_MAX: usize = 10;
/// How many memberships and invitations one look ends.
const ENDED_MAX: i64 = 500;
/// How many addresses of a person are remembered.
const ADDRESSES_MAX: usize = 100;
/// After so long, a command that began before an erasure has ended.
const SETTLED_AFTER: chrono::Duration = chrono::Duration::seconds(60);
/// How long the caller of an erasure waits for what follows it; what takes longer is done behind it.
const FOLLOW_MAX: Duration = Duration::from_secs(4);
/// What says where something of a person is.
const PLACES: [Projection; 4] =
    [Projection::Organizations, Projection::Members, Projection::Invitations, Projection::ApiTokens];
/// How many answers of receivers of webhooks are looked at by one statement.
const ANSWERS_MAX: i64 = 2_000;
/// How often one step of an erasure is decided again when others change the same thing.
const STEP_TRIES_MAX: usize = 50;

/// Erases a user, or whom an invitation was for.
#[derive(Debug, Serialize)]
pub struct EraseSubject {
    /// The user.
    pub user: Option<UserId>,
    /// The invitation.
    pub invitation: Option<InvitationId>,
    /// Why.
    pub reason: String,
}

impl UseCase for EraseSubject {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.require_operator(&self.reason)?;
        match (&self.user, &self.invitation) {
            (Some(user), _) => erase_user(work, user, &self.reason).await,
            (None, Some(invitation)) => erase_invitee(work, invitation, &self.reason).await,
            (None, None) => Err(Fault::NotFound.into()),
        }
    }
}

async fn erase_user(work: &mut Work<'_>, id: &UserId, reason: &str) -> Result<(), Stop> {
    let before = work.load::<User>(id).await?;
    if before.version == 0 {
        return Err(Fault::NotFound.into());
    }
    let operator = work.caller.principal.person()?.user.clone();
    if before.state.state != UserState::Erased {
        if *id == operator {
            // The reason would go with the key, and nobody could say why.
            return Err(Refusal::InvalidState("nobody erases their own user: ask another operator".into()).into());
        }
        let known = known_of(work.log().history(&id.clone().into()).await?, before.version);
        let email_claims = claims_of(work.log().keys(), &known.addresses);
        must_not_be_needed(work, Some(id), &email_claims).await?;
        let because = Some((operator, without(reason, &known)));
        let events = before.state.decide(UserCommand::Erase { email_claims, because })?;
        let after = work.record(id, &before, events);
        work.entities = vec![Entity::new(id.clone(), after)];
        return Ok(());
    }
    work.entities = vec![Entity::new(id.clone(), before)];
    Ok(())
}

async fn erase_invitee(work: &mut Work<'_>, id: &InvitationId, reason: &str) -> Result<(), Stop> {
    let before = work.load::<Invitation>(id).await?;
    let (Some(organization), Some(claim)) = (before.organization.clone(), before.state.email_claim.clone()) else {
        return Err(Fault::NotFound.into());
    };
    work.organization = Some(organization.clone());
    if !work.load::<Organization>(&organization).await?.state.is_present() {
        return Err(Fault::NotFound.into());
    }
    if before.state.erased {
        work.entities = vec![Entity::new(id.clone(), before)];
        return Ok(());
    }
    must_not_be_needed(work, None, &[claim]).await?;
    let addresses = readable(&before.state.email).map(str::to_owned).into_iter().collect();
    let known = Known { addresses, others: vec![] };
    let because = Some((work.caller.principal.person()?.user.clone(), without(reason, &known)));
    let events = before.state.decide(InvitationCommand::Erase { because, at: work.now })?;
    let after = work.record(id, &before, events);
    work.entities = vec![Entity::new(id.clone(), after)];
    Ok(())
}

/// What can be read of a person.
#[derive(Default)]
struct Known {
    addresses: Vec<String>,
    /// Names, and the ids at issuers.
    others: Vec<String>,
}

/// What the log says of a user, up to this version.
fn known_of(history: Vec<Recorded>, version: u64) -> Known {
    let mut known = Known::default();
    let mut add = |list: fn(&mut Known) -> &mut Vec<String>, personal: Option<&Personal>| {
        let list = list(&mut known);
        if let Some(text) = personal.and_then(Personal::value)
            && list.len() < ADDRESSES_MAX
            && !list.iter().any(|known| known == text)
        {
            list.push(text.to_owned());
        }
    };
    for recorded in history.iter().filter(|recorded| recorded.sequence <= version).rev() {
        let Event::User(event) = &recorded.event else { continue };
        match event {
            UserEvent::UserRegistered { subject, email, display_name, .. } => {
                add(|known| &mut known.addresses, email.as_ref());
                add(|known| &mut known.others, display_name.as_ref());
                add(|known| &mut known.others, Some(subject));
            }
            UserEvent::UserProfileChanged { email, display_name, .. } => {
                add(|known| &mut known.addresses, email.as_ref());
                add(|known| &mut known.others, display_name.as_ref());
            }
            UserEvent::UserHeld { .. }
            | UserEvent::UserApproved { .. }
            | UserEvent::UserRevoked { .. }
            | UserEvent::UserReinstated { .. }
            | UserEvent::UserErased { .. } => {}
        }
    }
    known
}

fn claims_of(keys: &crate::log::KeyRing, addresses: &[String]) -> Vec<Digest> {
    addresses.iter().map(|address| email_claim(keys, address)).collect()
}

/// The reason without what it says of the person: it is the only text about them that stays.
fn without(reason: &str, known: &Known) -> String {
    let mut reason = reason.to_owned();
    for text in known.addresses.iter().chain(&known.others).filter(|text| text.chars().count() > 2) {
        let wanted = text.to_ascii_lowercase();
        while let Some(at) = reason.to_ascii_lowercase().find(&wanted) {
            reason.replace_range(at..at + wanted.len(), "…");
        }
    }
    reason
}

/// Waits a moment until the read models show where everybody is by what the log holds now, and says whether they do. Whom
/// a parked stream is about nobody knows, so one is enough that they do not.
async fn all_is_shown(log: &Log) -> Result<bool, LogError> {
    let heads = log.heads_now(&[]).await?;
    wait_for_read_models(log, &[]).await?;
    let partitions: Vec<i16> = heads.keys().copied().collect();
    for projection in PLACES {
        let shown = projections::complete(log.pool(), projection, &partitions).await?;
        if heads.iter().any(|(partition, head)| shown.get(partition).copied().unwrap_or_default() < *head) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses while a legal hold stands where the person is, was or was invited, and while they are the last owner of an
/// organization that lives. The command relies on those organizations: a hold at the same time is a conflict.
async fn must_not_be_needed(work: &mut Work<'_>, user: Option<&UserId>, claims: &[Digest]) -> Result<(), Stop> {
    if !all_is_shown(work.log()).await? {
        let message = "the read models do not show everything, so it is not known where the person is needed: try again \
            in a moment; if that does not help, `tenancy projections status` says what is parked";
        return Err(Fault::Unavailable(message).into());
    }
    let claims: Vec<&str> = claims.iter().map(|claim| claim.0.as_str()).collect();
    let places = sqlx::query_scalar!(
        r#"SELECT organization_id AS "id!" FROM members WHERE user_id = $1
           UNION SELECT organization_id FROM invitations WHERE email_claim = ANY($2)
           UNION SELECT organization_id FROM invitations WHERE accepted_by = $1
           ORDER BY 1 LIMIT $3"#,
        user.map(AsRef::as_ref),
        &claims as &[&str],
        PLACES_MAX
    )
    .fetch_all(work.log().pool())
    .await
    .map_err(LogError::from)?;
    let ids: Vec<OrganizationId> = places.iter().filter_map(|id| id.parse().ok()).collect();
    work.log().warm(&ids.iter().cloned().map(StreamId::from).collect::<Vec<_>>()).await?;
    let mut organizations = vec![];
    for id in ids {
        let organization = work.load::<Organization>(&id).await?;
        if organization.state.is_present() {
            organizations.push((id, organization));
        }
    }
    let named = |found: Vec<&(OrganizationId, Loaded<Organization>)>| {
        let names = found.iter().take(NAMED_MAX).map(|(id, known)| format!("{id} ({})", known.state.slug));
        let more = found.len().saturating_sub(NAMED_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        (!found.is_empty()).then(|| names.chain(more).collect::<Vec<_>>().join(", "))
    };
    let held = named(organizations.iter().filter(|(_, known)| known.state.legal_hold.is_some()).collect());
    let owned = match user {
        Some(user) => named(last_owned(work, user, &organizations).await?),
        None => None,
    };
    let held = held.map(|names| format!("a legal hold stands on {names}: release it first"));
    let owned = owned
        .map(|names| format!("the person is the last owner of {names}: let somebody else own it, or delete it, first"));
    let why: Vec<String> = held.into_iter().chain(owned).collect();
    if why.is_empty() { Ok(()) } else { Err(Refusal::InvalidState(why.join("; ")).into()) }
}

async fn last_owned<'a>(
    work: &Work<'_>,
    user: &UserId,
    organizations: &'a [(OrganizationId, Loaded<Organization>)],
) -> Result<Vec<&'a (OrganizationId, Loaded<Organization>)>, LogError> {
    let living = organizations.iter().filter(|(_, known)| known.state.status.lifecycle != Lifecycle::Deleted);
    let living: Vec<_> = living.collect();
    let memberships: Vec<StreamId> = living.iter().map(|(id, _)| MembershipId::of(id, user).into()).collect();
    if memberships.is_empty() {
        return Ok(vec![]);
    }
    let now = work.log().current(&memberships).await?;
    let owned: Vec<_> = living
        .into_iter()
        .filter(|(id, _)| now.get::<Membership>(&MembershipId::of(id, user)).state.is_active_owner())
        .collect();
    let tallies = work.log().tallies(&owned.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()).await?;
    let owners = |id: &OrganizationId| {
        let tallies = tallies.get(id).into_iter().flatten();
        tallies.filter(|(name, _)| name == aggregates::guard::OWNERS).map(|(_, tally)| tally.used).sum::<i64>()
    };
    Ok(owned.into_iter().filter(|(id, _)| owners(id) <= 1).collect())
}

/// Holds on to an organization, or lets go of it.
#[derive(Debug, Serialize)]
pub struct HoldOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// Whether it is held from now on.
    pub hold: bool,
    /// Why.
    pub reason: String,
}

impl UseCase for HoldOrganization {
    const OPERATION: &'static str = "setLegalHold";

    fn operation(&self) -> &'static str {
        if self.hold { "setLegalHold" } else { "releaseLegalHold" }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        standing.require_operator(work, &self.reason)?;
        let reason = self.reason.clone();
        super::organizations::finish(
            work,
            standing,
            match self.hold {
                true => OrganizationCommand::SetLegalHold { reason, at: work.now },
                false => OrganizationCommand::ReleaseLegalHold { reason },
            },
        )
    }
}

/// Ends a membership of somebody who was erased, with what ends when a member is removed.
#[derive(Debug, Serialize)]
struct EndMembership {
    organization: OrganizationId,
    user: UserId,
}

impl UseCase for EndMembership {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let id = MembershipId::of(&self.organization, &self.user);
        work.log().warm(&[self.organization.clone().into(), id.clone().into()]).await?;
        let organization = work.load::<Organization>(&self.organization).await?;
        let before = work.load::<Membership>(&id).await?;
        if before.state.state == MembershipState::Removed || !organization.state.is_present() {
            return Ok(());
        }
        let by = Grantor::unbounded().knowing(&organization.state.roles);
        let events = before.state.decide(MembershipCommand::Remove { reason: None, by })?;
        let after = work.record(&id, &before, events);
        let insider = Insider::Member(before);
        let standing = Standing { organization, id: self.organization.clone(), insider, operator: true };
        ownership::end_void_offer(work, &standing.id, &standing.organization, Some(&self.user), &after.state)?;
        let ended = Ended { by_member: Some("who invited was erased"), to_member: "the invited person was erased" };
        departures::revoke_invitations(work, &standing, Some(&self.user), ended).await?;
        departures::revoke_tokens(work, &standing, Some(&self.user), "who answers for it was erased").await
    }
}

/// Clears the contact address of an organization where it is one of somebody who was erased.
#[derive(Debug, Serialize)]
struct ClearContact {
    organization: OrganizationId,
    user: UserId,
    email_claims: Vec<Digest>,
}

impl UseCase for ClearContact {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let before = work.load::<Organization>(&self.organization).await?;
        let keys = work.log().keys();
        let is_theirs = before.state.contact_email.as_ref().is_some_and(|contact| {
            let claim = contact.value().map(|address| email_claim(keys, address));
            let known = claim.is_some_and(|claim| self.email_claims.iter().any(|own| own.matches(&claim)));
            known || contact.of() == self.user.as_ref()
        });
        if is_theirs && before.state.is_present() {
            let events = before.state.decide(OrganizationCommand::ClearContact)?;
            work.record(&self.organization, &before, events);
        }
        Ok(())
    }
}

/// Records an erasure anew of which the log says nothing: the database was restored, and the person is on the list.
#[derive(Debug, Serialize)]
struct EraseUserAgain {
    user: UserId,
}

impl UseCase for EraseUserAgain {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<User>(&self.user).await?;
        if before.version > 0 {
            let known = known_of(work.log().history(&self.user.clone().into()).await?, before.version);
            let email_claims = claims_of(work.log().keys(), &known.addresses);
            let events = before.state.decide(UserCommand::Erase { email_claims, because: None })?;
            work.record(&self.user, &before, events);
        }
        Ok(())
    }
}

/// Erases what an invitation says of its invitee, unless its organization is held: what is held stays, also where the
/// hold came after the erasure. A person erased before a database was restored is erased in spite of a hold.
#[derive(Debug, Serialize)]
struct EraseInvitee {
    invitation: InvitationId,
    again: bool,
}

impl UseCase for EraseInvitee {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<Invitation>(&self.invitation).await?;
        let Some(organization) = before.organization.clone() else { return Ok(()) };
        work.organization = Some(organization.clone());
        let events = before.state.decide(InvitationCommand::Erase { because: None, at: work.now })?;
        if !events.is_empty()
            && !self.again
            && work.load::<Organization>(&organization).await?.state.legal_hold.is_some()
        {
            return Err(Refusal::InvalidState("a legal hold stands on the organization".into()).into());
        }
        work.record(&self.invitation, &before, events);
        Ok(())
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There was nothing to do.
    Nothing,
    /// It was done.
    Done,
    /// Something is in its way for the time being.
    Blocked,
}

impl Commands {
    /// Whether this user was erased, as far as this replica has heard.
    pub async fn is_erased(&self, user: &UserId) -> Result<bool, Fault> {
        Ok(self.log().load::<User>(user).await?.state.state == UserState::Erased)
    }

    /// Erases, and answers when no replica opens anything of the person any more.
    pub async fn erase(&self, caller: &Caller, case: &EraseSubject, conditions: Conditions) -> Result<Receipt, Fault> {
        let receipt = self.execute(caller, case, conditions).await?;
        let subject = case.user.as_ref().map(AsRef::as_ref).or(case.invitation.as_ref().map(AsRef::as_ref));
        let (Some(subject), true) = (subject, receipt.rejections.is_empty()) else { return Ok(receipt) };
        // That it is on the list is part of it: a restored database must not bring the person back.
        self.keep_list().await?;
        let follow = async {
            let unfinished = Unfinished { subject: subject.to_owned(), erased_at: Utc::now() };
            self.carry_on(&unfinished).await?;
            wait_for_read_models(self.log(), &[]).await?;
            Ok::<_, Fault>(())
        };
        let (followed, ()) = tokio::join!(tokio::time::timeout(FOLLOW_MAX, follow), tokio::time::sleep(TRUSTED_FOR));
        match followed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, subject, "what follows an erasure waits to be carried on"),
            Err(_) => tracing::info!(subject, "what follows an erasure is carried on behind it"),
        }
        Ok(receipt)
    }

    /// Carries on with what erasures and purges have left to do.
    pub async fn carry_on_erasures(&self) -> Result<(), Fault> {
        self.keep_list().await?;
        for unfinished in self.log().take_unfinished().await? {
            // One that cannot be carried on must not keep the others from it.
            match self.carry_on(&unfinished).await {
                Ok(true) => self.log().finish(&unfinished.subject).await?,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, subject = unfinished.subject, "an erasure could not be carried on");
                }
            }
        }
        Ok(())
    }

    /// Does what is to be done, and says whether there will be no more.
    async fn carry_on(&self, unfinished: &Unfinished) -> Result<bool, Fault> {
        let left = match StreamId::from_id(&unfinished.subject) {
            Some(StreamId::User(id)) => self.end_user(&id).await?,
            Some(StreamId::Invitation(id)) => self.end_invitee(&id).await?,
            Some(StreamId::Organization(id)) => {
                self.log().forget_invitees(&id).await?;
                return Ok(true);
            }
            // No person is what another kind of stream is about.
            Some(_) | None => return Ok(true),
        };
        Ok(left == Step::Nothing && unfinished.erased_at + SETTLED_AFTER < Utc::now())
    }

    async fn end_user(&self, id: &UserId) -> Result<Step, Fault> {
        let history = self.log().history(&id.clone().into()).await?;
        let erasure = history.into_iter().rev().find_map(|recorded| match &recorded.event {
            Event::User(UserEvent::UserErased { email_claims, .. }) => Some((email_claims.clone(), recorded)),
            _ => None,
        });
        let Some((claims, cause)) = erasure else {
            // The key was destroyed alone, and what follows goes by the record.
            return self.settle(None, &EraseUserAgain { user: id.clone() }).await;
        };
        let all_is_shown = all_is_shown(self.log()).await?;
        self.log().forget_outcomes(id.as_ref()).await?;
        self.forget_tokens(id).await?;
        let memberships = sqlx::query!(
            "SELECT organization_id, state FROM members WHERE user_id = $1 ORDER BY state, id LIMIT $2",
            id.as_ref(),
            PLACES_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        let mut contacts = self.contacts(&claims).await?;
        let mut steps = vec![if all_is_shown { Step::Nothing } else { Step::Blocked }];
        for row in memberships {
            let Ok(organization) = row.organization_id.parse::<OrganizationId>() else { continue };
            contacts.insert(organization.clone());
            if row.state != "REMOVED" {
                steps.push(self.step(&cause, &EndMembership { organization, user: id.clone() }).await);
            }
        }
        let places: Vec<&str> = contacts.iter().map(AsRef::as_ref).collect();
        steps.push(self.forget_answers_of(&places).await);
        for organization in contacts {
            let contact = ClearContact { organization, user: id.clone(), email_claims: claims.clone() };
            steps.push(self.step(&cause, &contact).await);
        }
        steps.push(self.end_invitations(&cause, Some(id), &claims).await?);
        Ok(summary(&steps))
    }

    /// Destroys the keys of the API tokens that the user answers for: under them lie the network addresses and programs
    /// of their calls, which are most likely theirs. A token that goes on leaves none from now on.
    async fn forget_tokens(&self, user: &UserId) -> Result<(), LogError> {
        let tokens = sqlx::query_scalar!(
            "SELECT id FROM api_tokens WHERE responsible = $1",
            Actor::User(user.clone()).to_string()
        );
        let tokens = self.log().with_key(&tokens.fetch_all(self.log().pool()).await?).await?;
        if !tokens.is_empty() {
            self.log().destroy_keys(&tokens.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Forgets what receivers of these organizations' webhooks answered: they may have repeated what they were sent. Of
    /// what is under way the lease moves a little, so that its answer is not kept either. A page at a time, for there may
    /// be very many.
    async fn forget_answers(&self, organizations: &[&str]) -> Result<(), LogError> {
        let endpoints = sqlx::query_scalar!(
            "SELECT id FROM webhook_endpoints WHERE organization_id = ANY($1)",
            organizations as &[&str]
        );
        for endpoint in endpoints.fetch_all(self.log().pool()).await? {
            let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
            loop {
                let page = sqlx::query!(
                    "SELECT id, created_at FROM webhook_deliveries WHERE endpoint_id = $1 AND (created_at, id) > ($2, $3)
                     ORDER BY created_at, id LIMIT $4",
                    endpoint,
                    after.0,
                    after.1,
                    ANSWERS_MAX
                );
                let page = page.fetch_all(self.log().pool()).await?;
                let Some(last) = page.last() else { break };
                after = (last.created_at, last.id.clone());
                sqlx::query!(
                    "UPDATE webhook_deliveries d SET attempts = COALESCE((
                         SELECT json_agg(a.value::jsonb - 'responseExcerpt') FROM json_array_elements(d.attempts) a
                     ), '[]'), leased_until = leased_until + interval '1 microsecond'
                     WHERE id = ANY($1)
                       AND (attempts::text LIKE '%\"responseExcerpt\":\"%' OR leased_until IS NOT NULL)",
                    &page.iter().map(|row| row.id.clone()).collect::<Vec<_>>()
                )
                .execute(self.log().pool())
                .await?;
            }
        }
        Ok(())
    }

    /// The same as a step, which keeps no other from being done.
    async fn forget_answers_of(&self, organizations: &[&str]) -> Step {
        match self.forget_answers(organizations).await {
            Ok(()) => Step::Nothing,
            Err(error) => {
                tracing::warn!(%error, "answers to webhooks could not be forgotten, and it will be tried again");
                Step::Blocked
            }
        }
    }

    /// The organizations that can be reached at one of these addresses. Read models hold addresses and not their hashes,
    /// so each is hashed; erasures are rare.
    async fn contacts(&self, claims: &[Digest]) -> Result<BTreeSet<OrganizationId>, LogError> {
        let mut rows = sqlx::query!(
            r#"SELECT id, contact_email AS "contact_email!" FROM organizations WHERE contact_email IS NOT NULL"#
        )
        .fetch(self.log().pool());
        let mut found = BTreeSet::new();
        while let Some(row) = rows.try_next().await? {
            let claim = email_claim(self.log().keys(), &row.contact_email);
            if claims.iter().any(|own| own.matches(&claim)) {
                found.extend(row.id.parse::<OrganizationId>());
            }
        }
        Ok(found)
    }

    async fn end_invitee(&self, id: &InvitationId) -> Result<Step, Fault> {
        let history = self.log().history(&id.clone().into()).await?;
        let Some(cause) = history.into_iter().rev().find(|recorded| recorded.event.destroys_key()) else {
            return self.settle(None, &EraseInvitee { invitation: id.clone(), again: true }).await;
        };
        let claim = self.log().load::<Invitation>(id).await?.state.email_claim.clone();
        let all_is_shown = all_is_shown(self.log()).await?;
        let ended = self.end_invitations(&cause, None, &claim.into_iter().collect::<Vec<_>>()).await?;
        Ok(if all_is_shown { ended } else { Step::Blocked })
    }

    /// Erases what invitations to these addresses say, and those that the user accepted.
    async fn end_invitations(&self, cause: &Recorded, user: Option<&UserId>, claims: &[Digest]) -> Result<Step, Fault> {
        let claims: Vec<&str> = claims.iter().map(|claim| claim.0.as_str()).collect();
        let rows = sqlx::query_scalar!(
            r#"SELECT id AS "id!" FROM invitations WHERE email_claim = ANY($2) AND email IS NOT NULL
               UNION SELECT id FROM invitations WHERE accepted_by = $1 AND email IS NOT NULL
               LIMIT $3"#,
            user.map(AsRef::as_ref),
            &claims as &[&str],
            ENDED_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        let places = sqlx::query_scalar!(
            r#"SELECT organization_id AS "organization_id!" FROM invitations WHERE email_claim = ANY($2)
               UNION SELECT organization_id FROM invitations WHERE accepted_by = $1"#,
            user.map(AsRef::as_ref),
            &claims as &[&str]
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let mut steps = vec![self.forget_answers_of(&places).await];
        for row in rows {
            if let Ok(invitation) = row.parse() {
                steps.push(self.step(cause, &EraseInvitee { invitation, again: false }).await);
            }
        }
        Ok(summary(&steps))
    }

    /// One step. One that fails must not keep the others from being done.
    async fn step<U: UseCase>(&self, cause: &Recorded, case: &U) -> Step {
        self.settle(Some(cause), case).await.unwrap_or_else(|error| {
            tracing::warn!(%error, subject = cause.stream.id(), "a step of an erasure failed, and will be tried again");
            Step::Blocked
        })
    }

    /// Decides and appends one step until nobody is in between. It came about by the erasure, and so by who ordered
    /// that; without one, by the service.
    async fn settle<U: UseCase>(&self, cause: Option<&Recorded>, case: &U) -> Result<Step, Fault> {
        let origin = match cause {
            Some(cause) => Origin {
                actor: cause.origin.actor.clone(),
                request_id: cause.origin.request_id.clone(),
                correlation_id: cause.origin.correlation_id,
                causation_id: Some(cause.id.clone()),
                ..system_origin()
            },
            None => system_origin(),
        };
        let user = match &origin.actor {
            Actor::User(user) | Actor::Operator(user) => user.clone(),
            Actor::Token(_) | Actor::System => UserId::from_uuid(Uuid::nil()),
        };
        let caller = Caller {
            principal: Principal::User(Person { user, email: None, operator: true, organization: None }),
            ip: None,
            user_agent: None,
            request_id: origin.request_id.clone(),
            correlation_id: origin.correlation_id,
            meter: None,
        };
        let (conditions, admitted) = (Conditions::default(), OnceLock::new());
        let mut compared: Vec<StreamId> = vec![];
        for _ in 0..STEP_TRIES_MAX {
            let mut work = Work::new(self, &caller, &conditions, U::OPERATION, Uuid::now_v7(), &admitted);
            let decided = case.decide(&mut work).await;
            let streams = work.streams();
            // That nothing is recorded stands only if everything that it relied upon was compared with the log.
            let is_compared = streams.iter().all(|stream| compared.contains(stream));
            match decided {
                Err(Stop::Fault(fault)) => return Err(fault),
                Err(Stop::Refusal(refusal)) if is_compared => {
                    tracing::debug!(?refusal, "a step of an erasure was refused, and is looked at again");
                    return Ok(Step::Blocked);
                }
                Err(Stop::Refusal(_)) => {}
                Ok(()) => {
                    let writes = work.take_writes();
                    if !writes.is_empty() {
                        let organization = work.organization.clone();
                        let relied = work.relied(&writes);
                        let draft = Draft { organization, relied, held: None, writes, origin: origin.clone() };
                        match self.log().append(self.log().seal(draft).await?).await? {
                            Outcome::Accepted { .. } => return Ok(Step::Done),
                            Outcome::Floor { .. } => {
                                let place = work.organization.as_ref().map(ToString::to_string);
                                tracing::warn!(
                                    organization = place,
                                    "an erased person has become the last owner meanwhile: let somebody else own it"
                                );
                                return Ok(Step::Blocked);
                            }
                            _ => {}
                        }
                    } else if is_compared {
                        return Ok(Step::Nothing);
                    }
                }
            }
            self.log().bring_up_to_date(&streams).await?;
            compared = streams;
        }
        Ok(Step::Blocked)
    }

    /// Brings the list of erased people in the data directory up to the tombstones.
    pub async fn keep_list(&self) -> Result<(), Fault> {
        loop {
            // Some may have been committed after later ones.
            let since = self.list().caught_up_to().map(|newest| newest - chrono::Duration::minutes(10));
            let erased = self.log().erased_since(since.unwrap_or_default()).await?;
            let mut list = self.list();
            let before = list.caught_up_to();
            list.catch_up(erased.iter().map(|erased| (erased.subject.as_str(), erased.erased_at))).map_err(kept)?;
            if list.caught_up_to() == before {
                return Ok(());
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, ErasedList> {
        self.erased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Erases again those on the list of this data directory, and these, whose keys came back with a restored database.
    /// Gives who that were.
    pub async fn erase_again(&self, others: &[String]) -> Result<Vec<String>, Fault> {
        let listed: Vec<String> = self.list().ids().map(str::to_owned).chain(others.iter().cloned()).collect();
        let back = self.log().with_key(&listed).await?;
        for subject in &back {
            tracing::error!(subject, "the key of an erased person had come back: it is destroyed again");
            let recorded = match StreamId::from_id(subject) {
                Some(StreamId::User(user)) => self.settle(None, &EraseUserAgain { user }).await?,
                Some(StreamId::Invitation(invitation)) => {
                    self.settle(None, &EraseInvitee { invitation, again: true }).await?
                }
                // No person is what another kind of stream is about.
                Some(_) | None => Step::Nothing,
            };
            match recorded {
                Step::Done => {}
                Step::Nothing => self.log().destroy_keys(&[subject]).await?,
                // Without the record nobody would know what else is to be ended.
                Step::Blocked => return Err(Fault::Conflict),
            }
        }
        let now = Utc::now();
        self.list().add(others.iter().map(|subject| (subject.as_str(), now))).map_err(kept)?;
        Ok(back)
    }
}

fn kept(error: erased::Error) -> Fault {
    Fault::Log(LogError::Corrupt(error.to_string()))
}

fn summary(steps: &[Step]) -> Step {
    let worst = [Step::Blocked, Step::Done].into_iter().find(|step| steps.contains(step));
    worst.unwrap_or(Step::Nothing)
}

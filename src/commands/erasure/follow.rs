//! The process that follows an erasure, step by step, until nothing is left to do.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::ids::{InvitationId, OrganizationId, UserId};
use aggregates::user::{UserEvent, UserState};
use aggregates::{Actor, Digest, Erasure, Event, Invitation, Origin, Recorded, StreamId, User};
use chrono::Utc;
use futures_util::TryStreamExt;

use super::case::EraseSubject;
use super::steps::{ClearContact, EndMembership, EraseInvitee, EraseUserAgain};
use super::{PLACES_MAX, all_is_shown};
use crate::commands::invitations::email_claim;
use crate::commands::roles::wait_for_read_models;
use crate::commands::{Caller, Commands, Conditions, Fault, Receipt, Rejection, UseCase, authority};
use crate::endpoints;
use crate::erased::{self, Erased, ErasedList};
use crate::log::{LogError, TRUSTED_FOR, Unfinished, personal_place};

/// How many memberships and invitations one look ends.
const ENDED_MAX: i64 = 500;
/// After so long, a command that began before an erasure has ended.
const SETTLED_AFTER: chrono::Duration = chrono::Duration::seconds(60);
/// How long the caller of an erasure waits for what follows it; what takes longer is done behind it.
const FOLLOW_MAX: Duration = Duration::from_secs(4);

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
            let (origin, erasure) = self.recorded_before(id.as_ref()).await?;
            return self.settle(origin, &EraseUserAgain { user: id.clone(), erasure }).await;
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

    /// Forgets what receivers of these organizations' webhooks answered; as a step, which keeps no other from being done.
    async fn forget_answers_of(&self, organizations: &[&str]) -> Step {
        match endpoints::forget_answers(self.log().pool(), organizations).await {
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
        let mut connection = self.log().pool().acquire().await?;
        let mut rows = sqlx::query!(
            r#"SELECT id, contact_email AS "contact_email!" FROM organizations WHERE contact_email IS NOT NULL"#
        )
        .fetch(&mut *connection);
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
            let (origin, erasure) = self.recorded_before(id.as_ref()).await?;
            return self.settle(origin, &EraseInvitee { invitation: id.clone(), again: Some(erasure) }).await;
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
                steps.push(self.step(cause, &EraseInvitee { invitation, again: None }).await);
            }
        }
        Ok(summary(&steps))
    }

    /// One step. One that fails must not keep the others from being done.
    async fn step<U: UseCase + std::fmt::Debug>(&self, cause: &Recorded, case: &U) -> Step {
        self.settle(authority::following(cause), case).await.unwrap_or_else(|error| {
            tracing::warn!(%error, subject = cause.stream.id(), "a step of an erasure failed, and will be tried again");
            Step::Blocked
        })
    }

    /// One step, which came about like this.
    async fn settle<U: UseCase + std::fmt::Debug>(&self, origin: Origin, case: &U) -> Result<Step, Fault> {
        let receipt = match self.act(origin, case).await {
            Err(Fault::Conflict) => return Ok(Step::Blocked),
            receipt => receipt?,
        };
        match receipt.rejections.first() {
            None if receipt.events.is_empty() => Ok(Step::Nothing),
            None => Ok(Step::Done),
            Some(Rejection::LastOwner) => {
                tracing::warn!(?case, "an erased person has become the last owner meanwhile: let somebody else own it");
                Ok(Step::Blocked)
            }
            Some(rejection @ (Rejection::Rule(_) | Rejection::Version { .. } | Rejection::Limit { .. })) => {
                tracing::debug!(?rejection, "a step of an erasure was refused, and is looked at again");
                Ok(Step::Blocked)
            }
        }
    }

    /// Brings the list of erased people in the data directory up to the tombstones.
    pub async fn keep_list(&self) -> Result<(), Fault> {
        loop {
            // Some may have been committed after later ones.
            let since = self.list().caught_up_to().map(|newest| newest - chrono::Duration::minutes(10));
            let erased = self.log().erased_since(since.unwrap_or_default()).await?;
            let mut list = self.list();
            let before = list.caught_up_to();
            list.catch_up(&erased).map_err(kept)?;
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
    pub async fn erase_again(&self, others: &[Erased]) -> Result<Vec<String>, Fault> {
        self.list().add(others).map_err(kept)?;
        let listed: Vec<String> = self.list().ids().map(str::to_owned).collect();
        let back = self.log().with_key(&listed).await?;
        for subject in &back {
            tracing::error!(subject, "the key of an erased person had come back: it is destroyed again");
            let (origin, erasure) = self.recorded_before(subject).await?;
            let recorded = match StreamId::from_id(subject) {
                Some(StreamId::User(user)) => self.settle(origin, &EraseUserAgain { user, erasure }).await?,
                Some(StreamId::Invitation(invitation)) => {
                    self.settle(origin, &EraseInvitee { invitation, again: Some(erasure) }).await?
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
        Ok(back)
    }

    /// What the list has of an erasure of which the log says nothing: the operator is its actor again, with their reason
    /// where that opens.
    async fn recorded_before(&self, subject: &str) -> Result<(Origin, Erasure), LogError> {
        let Some(listed) = self.list().get(subject).cloned() else {
            return Ok((authority::by_itself(), Erasure::default()));
        };
        let first_at = Some(listed.by.as_ref().map_or(listed.at, |by| by.at));
        let Some(by) = listed.by else {
            return Ok((authority::by_itself(), Erasure { first_at, ..Erasure::default() }));
        };
        let because = match (&by.actor, &by.reason) {
            (Actor::Operator(operator), Some(sealed)) => {
                let keys = self.log().keys().find([operator.as_ref() as &str]).await?;
                let place = personal_place(&by.event, "reason");
                keys.open(operator.as_ref(), &place, sealed).map(|reason| (operator.clone(), reason))
            }
            _ => None,
        };
        let origin = Origin { actor: by.actor, ..authority::by_itself() };
        Ok((origin, Erasure { because, first_at, ..Erasure::default() }))
    }
}

fn kept(error: erased::Error) -> Fault {
    Fault::Log(LogError::Corrupt(error.to_string()))
}

fn summary(steps: &[Step]) -> Step {
    let worst = [Step::Blocked, Step::Done].into_iter().find(|step| steps.contains(step));
    worst.unwrap_or(Step::Nothing)
}

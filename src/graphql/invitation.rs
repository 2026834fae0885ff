//! Invitations.

use std::sync::Arc;

use aggregates::ids::{Id, InvitationId};
use aggregates::roles::Permission;
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use super::Organization;
use super::connection::{BY_CREATION, Created, Opaque, PageArguments, cost};
use super::errors::{bad_input, log_fault};
use super::lists::{Holds, List, row};
use super::membership::Membership;
use super::node::{Seeing, Shown};
use super::organization::Profile;
use super::payload::{Answer, payloads, run};
use super::scalars::{InvitationState, Time, int, name, named, stored};
use super::session::{Session, id};
use super::user::{Actor, User, user};
use crate::commands::invitations::{self as cases, By, email_claim};
use crate::commands::{Receipt, nowhere};
use crate::log::Loaded;

/// Which invitations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvitationList {
    /// In this state; else all.
    pub state: Option<String>,
}

impl List for InvitationList {
    type Row = Invitation;
    type Node = Invitation;
    const PREFIX: &'static str = InvitationId::PREFIX;
    const SELECT: &'static [&'static str] = Invitation::SELECT;
    const READ: &'static [Permission] = &[Permission::InvitationRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = EmptyFields;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        // By the clock an open invitation past its time is expired, before that is recorded.
        match self.state.as_deref() {
            Some("PENDING") => query.push(" AND state = 'PENDING' AND expires_at > now()"),
            Some("EXPIRED") => query.push(" AND (state = 'EXPIRED' OR (state = 'PENDING' AND expires_at <= now()))"),
            Some(state) => query.push(" AND state = ").push_bind(state.to_owned()),
            None => query,
        };
    }

    fn holds(&self, rows: &[Self::Row]) -> Holds {
        // One that expires comes into that list without an event, and without having been among the rows.
        if self.state.as_deref() == Some("EXPIRED") {
            return Holds::Unknown;
        }
        let open = rows.iter().filter(|row| row.state == "PENDING");
        open.map(|row| row.expires_at).min().map_or(Holds::UntilEvents, Holds::UntilTime)
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }
}

row! {
    /// An address that was asked to join.
    pub struct Invitation of "invitations" {
        id: String,
        organization_id: String,
        email: Option<String>,
        roles: Vec<String>,
        state: String,
        invited_by: String,
        accepted_by: Option<String>,
        expires_at: DateTime<Utc>,
        version: i64,
        created_at: DateTime<Utc>,
    }
}

impl Shown for Invitation {
    type Of = aggregates::Invitation;

    fn new(id: InvitationId, loaded: &Loaded<aggregates::Invitation>) -> Option<Self> {
        let state = &loaded.state;
        Some(Self {
            id: id.into(),
            organization_id: loaded.organization.clone()?.into(),
            email: aggregates::personal::readable(&state.email).map(str::to_owned),
            roles: state.roles.clone(),
            state: name(state.state),
            invited_by: state.invited_by.to_string(),
            accepted_by: state.accepted_by.clone().map(Into::into),
            expires_at: state.expires_at,
            version: loaded.version.cast_signed(),
            created_at: state.created_at,
        })
    }

    async fn is_visible(session: &Session, id: &InvitationId, loaded: &Loaded<aggregates::Invitation>) -> Seeing {
        let owner = loaded.organization.clone();
        let own = session.caller()?.principal.email().map(|email| email_claim(session.log().keys(), email));
        let own = own.zip(loaded.state.email_claim.as_ref()).is_some_and(|(own, invited)| own.matches(invited));
        let seen = session.see_owner(owner.as_ref(), id.as_ref()).await?;
        let there = session.is_there(&owner.unwrap_or_else(|| nowhere(id.as_ref()))).await?;
        Ok((there && own) || seen.is_some_and(|seen| seen.may(Permission::InvitationRead)))
    }
}

/// The state by the clock.
fn state_now(state: aggregates::invitation::InvitationState, expires_at: DateTime<Utc>) -> InvitationState {
    use aggregates::invitation::InvitationState as S;
    match state {
        S::Pending if expires_at <= Utc::now() => InvitationState::Expired,
        state => state.into(),
    }
}

/// An address that was asked to join, by a token that was shown once.
#[Object]
impl Invitation {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// The organization, where the caller sees it.
    async fn organization(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Organization>> {
        Organization::of(ctx, &self.organization_id).await
    }
    /// The organization's name, also for those who do not see it yet.
    async fn organization_name(&self, ctx: &Context<'_>) -> async_graphql::Result<String> {
        let Ok(id) = self.organization_id.parse() else { return Ok(String::new()) };
        let seen = Session::of(ctx).loaders().seen.load_one(id).await?;
        Ok(seen.map(|seen| seen.organization.state.name.clone()).unwrap_or_default())
    }
    /// The invited address; null where erased.
    async fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }
    /// The roles that the person will have.
    async fn roles(&self) -> &[String] {
        &self.roles
    }
    /// Where it stands; past its time it reads EXPIRED.
    async fn state(&self) -> InvitationState {
        state_now(named(&self.state), self.expires_at)
    }
    /// The actor who invited.
    async fn invited_by(&self, ctx: &Context<'_>) -> async_graphql::Result<Actor> {
        Actor::named(ctx, &self.invited_by.parse().unwrap_or_default()).await
    }
    /// The user who accepted.
    async fn accepted_by(&self) -> Option<User> {
        self.accepted_by.as_deref().map(user)
    }
    /// Until when it can be accepted.
    async fn expires_at(&self) -> Time {
        Time(self.expires_at)
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.created_at)
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version.unsigned_abs())
    }
}

/// What a token shows before anybody signs in.
#[derive(SimpleObject)]
pub struct InvitationPreview {
    /// The name of the organization that invites.
    organization_name: String,
    /// The invited address; null where erased.
    email: Option<String>,
    /// Where it stands.
    state: InvitationState,
    /// Until when it can be accepted.
    expires_at: Time,
}

/// What the holder of a token may know; `None` for a token that is dead or never was.
pub async fn preview(ctx: &Context<'_>, token: &str) -> Result<Option<InvitationPreview>, Error> {
    let log = Session::of(ctx).log();
    let Some(id) = cases::invitation_of_token(token) else { return Ok(None) };
    let invitation = log.current(&[id.clone().into()]).await.map_err(log_fault)?.get::<aggregates::Invitation>(&id);
    let digest = cases::token_digest(log.keys(), token);
    let living = invitation.state.token_digest.as_ref().is_some_and(|living| living.matches(&digest));
    let Some(organization) = invitation.organization.clone().filter(|_| living) else { return Ok(None) };
    let now = log.current(&[organization.clone().into()]).await.map_err(log_fault)?;
    let organization = now.get::<aggregates::Organization>(&organization);
    if !organization.state.is_present() {
        return Ok(None);
    }
    Ok(Some(InvitationPreview {
        organization_name: organization.state.name.clone(),
        email: aggregates::personal::readable(&invitation.state.email).map(str::to_owned),
        state: state_now(invitation.state.state, invitation.state.expires_at),
        expires_at: Time(invitation.state.expires_at),
    }))
}

/// What an organization shows of its invitations.
#[derive(Clone)]
pub struct Invitations(pub Arc<Profile>);

#[Object]
impl Invitations {
    /// Invitations, by creation.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn invitations(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        state: Option<InvitationState>,
    ) -> Option<async_graphql::Result<Connection<Opaque, Invitation>>> {
        let list = InvitationList { state: state.map(stored) };
        Some(self.0.list(ctx, list, PageArguments { first, after, last, before }).await)
    }
}

payloads! {
    /// What became of a command on an invitation.
    InvitationPayload {
        /// The invitation after the command.
        invitation: Option<Invitation> = Invitation::after,
    }
    /// What became of inviting somebody.
    InviteMemberPayload {
        /// The invitation after the command.
        invitation: Option<Invitation> = Invitation::after,
        /// The token, shown this once.
        token: Option<String> = |receipt: &Receipt| receipt.secret.clone(),
    }
    /// What became of accepting an invitation.
    AcceptInvitationPayload {
        /// The invitation after the command.
        invitation: Option<Invitation> = Invitation::after,
        /// The membership after the command.
        membership: Option<Membership> = Membership::after,
    }
}

/// Somebody to invite.
#[derive(InputObject)]
pub struct InviteMemberInput {
    /// To which organization.
    organization_id: ID,
    /// The address.
    email: String,
    /// With which roles.
    roles: Vec<String>,
    /// For how long.
    expires_in_hours: Option<i32>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome, without the token.
    idempotency_key: Option<String>,
}

/// A command on an invitation.
#[derive(InputObject)]
pub struct InvitationCommandInput {
    /// Which invitation.
    invitation_id: ID,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the invitation must have.
    expected_version: Option<i32>,
}

/// An invitation, named by exactly one of token and invitationId; either way the caller's verified address must be
/// the invited one.
#[derive(InputObject)]
pub struct InvitationTokenInput {
    /// The token that was sent.
    token: Option<String>,
    /// The id, as the viewer's own invitations show it.
    invitation_id: Option<ID>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

impl InvitationTokenInput {
    fn by(self) -> Result<(By, Option<String>), Error> {
        let by = match (self.token, self.invitation_id) {
            (Some(token), None) => By::Token(token),
            (None, Some(invitation)) => By::Id(id("invitationId", &invitation)?),
            _ => return Err(bad_input("give exactly one of token and invitationId")),
        };
        Ok((by, self.idempotency_key))
    }
}

/// Commands on invitations.
#[derive(Default)]
pub struct InvitationMutation;

#[Object]
impl InvitationMutation {
    /// Invites an address; returns the token once.
    async fn invite_member(&self, ctx: &Context<'_>, input: InviteMemberInput) -> Answer<InviteMemberPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::InviteMember {
            organization,
            email: input.email,
            roles: input.roles,
            expires_in_hours: input.expires_in_hours.map(i64::from),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Sends an invitation again: new token, new expiry; the old token is dead.
    async fn resend_invitation(&self, ctx: &Context<'_>, input: InvitationCommandInput) -> Answer<InviteMemberPayload> {
        let case = id("invitationId", &input.invitation_id)
            .map(|invitation| cases::ResendInvitation { invitation, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Takes an invitation back.
    async fn revoke_invitation(&self, ctx: &Context<'_>, input: InvitationCommandInput) -> Answer<InvitationPayload> {
        let case = id("invitationId", &input.invitation_id)
            .map(|invitation| cases::RevokeInvitation { invitation, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Joins by an invitation; a repetition by the same person returns the same membership.
    async fn accept_invitation(
        &self,
        ctx: &Context<'_>,
        input: InvitationTokenInput,
    ) -> Answer<AcceptInvitationPayload> {
        match input.by() {
            Ok((by, key)) => run(ctx, key, None, Ok(cases::AcceptInvitation { by })).await,
            Err(error) => run(ctx, None, None, Err::<cases::AcceptInvitation, _>(error)).await,
        }
    }

    /// Turns an invitation down.
    async fn decline_invitation(&self, ctx: &Context<'_>, input: InvitationTokenInput) -> Answer<InvitationPayload> {
        match input.by() {
            Ok((by, key)) => run(ctx, key, None, Ok(cases::DeclineInvitation { by })).await,
            Err(error) => run(ctx, None, None, Err::<cases::DeclineInvitation, _>(error)).await,
        }
    }
}

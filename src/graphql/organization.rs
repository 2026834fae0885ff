//! Organizations.

use aggregates::ids::{Id, OrganizationId};
use aggregates::membership::MembershipSource;
use aggregates::organization::LIMITS;
use aggregates::roles::Permission;
use aggregates::status::{Capability, Lifecycle, Status, Verification};
use async_graphql::connection::Connection;
use async_graphql::{Context, Error, ID, InputObject, Json, MaybeUndefined, Object, OneofObject, SimpleObject};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{FromRow, QueryBuilder};

use super::access_trail::{AccessFilter, AccessRecord};
use super::api_token::{ApiToken, ApiTokenFilter};
use super::audit::{AuditConnection, AuditFilter, trail};
use super::connection::{Created, Opaque, PageArguments, Slice, cost, push_page};
use super::erasure::LegalHold;
use super::errors::{database_fault, forbidden};
use super::invitation::{Invitation, InvitationFilter};
use super::loaders::{ListFilter, ListKey, Seen};
use super::membership::{MemberFilter, Membership};
use super::ownership::OwnershipOffer;
use super::payload::{Answer, payloads, run};
use super::project::{Project, ProjectFilter};
use super::scalars::{
    Document, InvitationState, Long, MembershipState, OrganizationCapability, OrganizationLifecycle,
    OrganizationVerification, ProjectState, Time, int, stored,
};
use super::session::{Session, id};
use super::user::connection;
use super::webhook::{EndpointFilter, WebhookEndpoint};
use crate::commands::home::EnsureHomeOrganization;
use crate::commands::organizations as cases;
use crate::commands::{Entity, Receipt};
use crate::log::Loaded;
use crate::log::ledger::Tally;

/// What an organization may have of something.
#[derive(Debug, Clone, SimpleObject)]
pub struct Limit {
    /// What is counted.
    name: String,
    /// The maximum; null is no limit.
    maximum: Option<Long>,
    /// How much is used.
    used: Long,
}

impl Limit {
    /// What a tally says of it.
    pub fn of(name: &str, tally: Tally) -> Self {
        Self { name: name.to_owned(), maximum: tally.maximum.map(Long), used: Long(tally.used.max(0)) }
    }
}

/// An organization.
#[derive(Debug, Clone)]
pub struct Organization {
    id: OrganizationId,
    slug: String,
    name: String,
    contact_email: Option<String>,
    external_id: Option<String>,
    status: Status,
    verification_reason: Option<String>,
    purge_at: Option<DateTime<Utc>>,
    purged: bool,
    plan: String,
    version: u64,
    created_at: DateTime<Utc>,
}

/// An organization as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub struct OrganizationRow {
    id: String,
    slug: String,
    name: String,
    contact_email: Option<String>,
    external_id: Option<String>,
    verification: String,
    verification_reason: Option<String>,
    once_verified: bool,
    lifecycle: String,
    deleted_by_operator: bool,
    purge_at: Option<DateTime<Utc>>,
    plan: String,
    version: i64,
    created_at: DateTime<Utc>,
}

fn parse<T: for<'de> Deserialize<'de> + Default>(text: &str) -> T {
    serde_json::from_value(Value::String(text.to_owned())).unwrap_or_default()
}

impl From<OrganizationRow> for Organization {
    fn from(row: OrganizationRow) -> Self {
        Self {
            id: row.id.parse().unwrap_or_else(|_| aggregates::ids::Id::from_uuid(uuid::Uuid::nil())),
            slug: row.slug,
            name: row.name,
            contact_email: row.contact_email,
            external_id: row.external_id,
            status: Status {
                verification: parse::<Verification>(&row.verification),
                lifecycle: parse::<Lifecycle>(&row.lifecycle),
                once_verified: row.once_verified,
                deleted_by_operator: row.deleted_by_operator,
            },
            verification_reason: row.verification_reason,
            purge_at: row.purge_at,
            // What is purged has no row.
            purged: false,
            plan: row.plan,
            version: row.version.unsigned_abs(),
            created_at: row.created_at,
        }
    }
}

impl Organization {
    /// From the log's side.
    pub fn new(id: OrganizationId, loaded: &Loaded<aggregates::Organization>) -> Self {
        let state = &loaded.state;
        Self {
            id,
            slug: state.slug.clone(),
            name: state.name.clone(),
            contact_email: aggregates::personal::readable(&state.contact_email).map(str::to_owned),
            external_id: state.external_id.clone(),
            status: state.status,
            verification_reason: state.verification_reason.clone(),
            purge_at: state.purge_at,
            purged: state.purged,
            plan: state.plan.clone(),
            version: loaded.version,
            created_at: state.created_at,
        }
    }

    async fn allowed(&self, ctx: &Context<'_>, permission: Permission) -> Result<(), Error> {
        let seen = Session::of(ctx).see(&self.id).await?;
        if seen.as_ref().is_some_and(|seen: &Seen| seen.may(permission)) {
            if seen.is_some_and(|seen| seen.may_only_as_operator(permission)) {
                Session::of(ctx).note_operator_read(&self.id);
            }
            return Ok(());
        }
        if seen.is_some() {
            Session::of(ctx).note_refusal(Some(&self.id), Some(self.id.as_ref()));
        }
        Err(forbidden(format!("this needs the permission {permission}, which none of your roles has")))
    }

    async fn list<F: ListFilter>(
        &self,
        ctx: &Context<'_>,
        permission: Permission,
        filter: F,
        page: PageArguments,
    ) -> Result<Slice<F::Row>, Error> {
        self.allowed(ctx, permission).await?;
        let page = page.page_of(F::PREFIX, Session::of(ctx).page_size_max())?;
        let key = ListKey { organization: self.id.clone(), filter, page };
        let slice = F::lists(Session::of(ctx).loaders()).load_one(key).await?;
        Ok(slice.unwrap_or(Slice { rows: vec![], has_previous: false, has_next: false }))
    }
}

/// A tenant: its profile, its status, its members and what belongs to it.
#[Object]
impl Organization {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.to_string())
    }
    /// The unique short name.
    async fn slug(&self) -> &str {
        &self.slug
    }
    /// The display name.
    async fn name(&self) -> &str {
        &self.name
    }
    /// Where it can be reached.
    async fn contact_email(&self) -> Option<&str> {
        self.contact_email.as_deref()
    }
    /// Its id in the operators' own systems, unique; operators set it.
    async fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }
    /// Whether somebody has looked at it.
    async fn verification(&self) -> OrganizationVerification {
        self.status.verification.into()
    }
    /// The reason of the last step of verification.
    async fn verification_reason(&self) -> Option<&str> {
        self.verification_reason.as_deref()
    }
    /// Whether it is in use.
    async fn lifecycle(&self) -> OrganizationLifecycle {
        self.status.lifecycle.into()
    }
    /// When the deleted organization is gone for good.
    async fn purge_at(&self) -> Option<Time> {
        self.purge_at.map(Time)
    }
    /// Whether it is gone for good. Then only operators still see what is left: that it was there, and its audit trail.
    async fn purged(&self) -> bool {
        self.purged
    }
    /// The legal hold that stands, for operators.
    async fn legal_hold(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<LegalHold>> {
        let session = Session::of(ctx);
        if !session.is_operator() {
            return None;
        }
        let seen = match session.see(&self.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        seen.organization.state.legal_hold.clone().map(|hold| Ok(hold.into()))
    }
    /// What its status allows now.
    async fn capabilities(&self) -> Vec<OrganizationCapability> {
        if self.purged {
            return vec![];
        }
        self.status.capabilities().into_iter().map(Capability::into).collect()
    }
    /// Its plan.
    async fn plan(&self) -> &str {
        &self.plan
    }
    /// What it may have and what it uses; always holds members, projects, tokens and webhooks.
    async fn limits(&self, ctx: &Context<'_>) -> async_graphql::Result<Vec<Limit>> {
        // What is counted is of now, also where the rest is of an earlier outcome.
        if Session::of(ctx).see(&self.id).await?.is_none() {
            return Err(super::errors::not_found());
        }
        let counted = Session::of(ctx).loaders().tallies.load_one(self.id.clone()).await?.unwrap_or_default();
        let limit = |name: &str| {
            let tally =
                counted.iter().find(|(counted, _)| counted == name).map(|(_, tally)| *tally).unwrap_or_default();
            Limit::of(name, tally)
        };
        Ok(LIMITS.map(limit).to_vec())
    }
    /// The settings document of a namespace.
    async fn settings(&self, ctx: &Context<'_>, namespace: String) -> Option<async_graphql::Result<Document<Value>>> {
        let seen = match Session::of(ctx).see(&self.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        seen.organization.state.settings.get(&namespace).cloned().map(|value| Ok(Document(value)))
    }
    /// The open offer of ownership, for owners and its recipient; operators see it too.
    async fn ownership_offer(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<OwnershipOffer>> {
        let session = Session::of(ctx);
        let seen = match session.see(&self.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        let offer = seen.organization.state.ownership_offer.clone()?;
        let shown = seen.is_owner() || session.is_operator() || session.is(&offer.user_id);
        shown.then(|| Ok(OwnershipOffer(offer)))
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version)
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.created_at)
    }

    /// Members, by when they first came; without a state, those who are not removed.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn members(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        role: Option<String>,
        state: Option<MembershipState>,
    ) -> Option<async_graphql::Result<Connection<Opaque, Membership>>> {
        let filter = MemberFilter { role, state: state.map(stored) };
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::MemberRead, filter, page).await.map(Membership::connection))
    }

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
        let filter = InvitationFilter { state: state.map(stored) };
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::InvitationRead, filter, page).await.map(Invitation::connection))
    }

    /// Projects, by creation; without a state, those that are not deleted.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn projects(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        state: Option<ProjectState>,
    ) -> Option<async_graphql::Result<Connection<Opaque, Project>>> {
        // That its projects are gone while it is deleted is derived, so restoring brings back exactly what was.
        if self.status.lifecycle == Lifecycle::Deleted {
            return Some(self.allowed(ctx, Permission::ProjectRead).await.map(|()| Connection::new(false, false)));
        }
        let filter = ProjectFilter { state: state.map(stored) };
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::ProjectRead, filter, page).await.map(Project::connection))
    }

    /// API tokens, by creation; also those that were revoked or have expired.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn api_tokens(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, ApiToken>>> {
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::TokenRead, ApiTokenFilter, page).await.map(ApiToken::connection))
    }

    /// Webhook endpoints, by creation.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn webhook_endpoints(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, WebhookEndpoint>>> {
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::WebhookRead, EndpointFilter, page).await.map(WebhookEndpoint::connection))
    }

    /// The audit trail, straight from the log; the newest through `last`.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn audit_trail(
        &self,
        ctx: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<AuditConnection>> {
        let page = PageArguments { first, after, last, before };
        Some(match self.allowed(ctx, Permission::AuditRead).await {
            Ok(()) => trail(ctx, Some(&self.id), filter, page).await,
            Err(error) => Err(error),
        })
    }

    /// What was refused here, what operators read, and who read the audit trail; by time, the newest through `last`.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn access_trail(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, AccessRecord>>> {
        let page = PageArguments { first, after, last, before };
        Some(self.list(ctx, Permission::AuditRead, AccessFilter, page).await.map(AccessRecord::connection))
    }
}

/// A page of all organizations, for operators.
pub async fn organizations(
    ctx: &Context<'_>,
    page: PageArguments,
    verification: Option<OrganizationVerification>,
    lifecycle: Option<OrganizationLifecycle>,
    search: Option<String>,
) -> Result<Connection<Opaque, Organization>, Error> {
    let page = page.page_of(OrganizationId::PREFIX, Session::of(ctx).page_size_max())?;
    let mut query = QueryBuilder::new(
        "SELECT id, slug, name, contact_email, external_id, verification, verification_reason, once_verified, lifecycle,
                deleted_by_operator, purge_at, plan, version, created_at FROM organizations WHERE true",
    );
    if let Some(verification) = verification {
        query.push(" AND verification = ").push_bind(stored(verification));
    }
    if let Some(lifecycle) = lifecycle {
        query.push(" AND lifecycle = ").push_bind(stored(lifecycle));
    }
    if let Some(search) = search.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty()) {
        let pattern = format!("%{}%", search.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_"));
        query
            .push(" AND (slug LIKE ")
            .push_bind(pattern.clone())
            .push(" OR lower(name) LIKE ")
            .push_bind(pattern)
            .push(")");
    }
    push_page(&mut query, &page);
    let rows: Vec<OrganizationRow> =
        query.build_query_as().fetch_all(Session::of(ctx).log().operators()).await.map_err(database_fault)?;
    let place = |row: &OrganizationRow| Created { at: row.created_at, id: row.id.clone() };
    Ok(connection(Slice::new(rows, &page), place, Organization::from))
}

pub(super) fn among(entities: &[Entity]) -> Option<Organization> {
    entities.iter().find_map(|entity| match entity {
        Entity::Organization(id, loaded) => Some(Organization::new(id.clone(), loaded)),
        Entity::Membership(..)
        | Entity::Invitation(..)
        | Entity::Project(..)
        | Entity::User(..)
        | Entity::ApiToken(..)
        | Entity::WebhookEndpoint(..) => None,
    })
}

payloads! {
    /// What became of a command on an organization.
    OrganizationPayload {
        /// The organization after the command.
        organization: Option<Organization> = |receipt: &Receipt| among(&receipt.entities),
    }
}

/// A new organization.
#[derive(InputObject)]
pub struct CreateOrganizationInput {
    /// The display name.
    name: String,
    /// The slug: 1–63 of a–z, 0–9, "-", "_", "."; upper case is folded.
    slug: String,
    /// Where it can be reached.
    contact_email: Option<String>,
    /// Operators: its id in their own systems.
    external_id: Option<String>,
    /// Operators: who owns it, if not the caller.
    owner_id: Option<ID>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// Changes of a profile; what is absent stays, null clears.
#[derive(InputObject)]
pub struct UpdateOrganizationInput {
    /// Which organization.
    organization_id: ID,
    /// The display name.
    name: Option<String>,
    /// The slug.
    slug: Option<String>,
    /// Where it can be reached.
    contact_email: MaybeUndefined<String>,
    /// Operators: its id in their own systems.
    external_id: MaybeUndefined<String>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// A settings document.
#[derive(InputObject)]
pub struct UpdateOrganizationSettingsInput {
    /// Which organization.
    organization_id: ID,
    /// Which document.
    namespace: String,
    /// The document; an empty object clears it.
    value: Json<Value>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// A command on an organization.
#[derive(InputObject)]
pub struct OrganizationCommandInput {
    /// Which organization.
    pub organization_id: ID,
    /// Why; operators have to say.
    pub reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// An operator's act on an organization.
#[derive(InputObject)]
pub struct OrganizationReviewInput {
    /// Which organization.
    organization_id: ID,
    /// Why; it stands in the audit trail.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// A user's first organization.
#[derive(InputObject)]
pub struct EnsureHomeOrganizationInput {
    /// How an organization of his own is called; without it, "Home".
    name: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// A limit of one organization.
#[derive(InputObject)]
pub struct SetOrganizationLimitInput {
    /// Which organization.
    organization_id: ID,
    /// Which limit: members, projects or tokens.
    limit: String,
    /// To what.
    value: LimitValue,
    /// Why; it stands in the audit trail.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// The value of a limit.
#[derive(OneofObject)]
pub enum LimitValue {
    /// At most so many.
    Maximum(Long),
    /// No limit (true).
    Unlimited(bool),
    /// What the plan says (true).
    FromPlan(bool),
}

/// Another plan.
#[derive(InputObject)]
pub struct ChangeOrganizationPlanInput {
    /// Which organization.
    organization_id: ID,
    /// The plan.
    plan: String,
    /// Why; it stands in the audit trail.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// Commands on organizations.
#[derive(Default)]
pub struct OrganizationMutation;

async fn review(ctx: &Context<'_>, input: OrganizationReviewInput, act: cases::Act) -> Answer<OrganizationPayload> {
    let case = id("organizationId", &input.organization_id).map(|organization| cases::ReviewOrganization {
        organization,
        act,
        reason: input.reason,
    });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

fn undefined_or<T>(value: MaybeUndefined<T>) -> Option<Option<T>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

#[Object]
impl OrganizationMutation {
    /// Creates an organization; its owner joins in the same commit.
    async fn create_organization(
        &self,
        ctx: &Context<'_>,
        input: CreateOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        let owner = input.owner_id.map(|owner| id("ownerId", &owner)).transpose();
        let case = owner.map(|owner| cases::CreateOrganization {
            name: input.name,
            slug: input.slug,
            contact_email: input.contact_email,
            external_id: input.external_id,
            owner,
            reason: None,
            source: MembershipSource::Founder,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Gives the caller an organization if he has none, as this deployment says: of his own, or as a member of one that
    /// his token or the configuration names. However often it is called, there is one outcome; null where there is none.
    async fn ensure_home_organization(
        &self,
        ctx: &Context<'_>,
        input: EnsureHomeOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        run(ctx, input.idempotency_key, None, Ok(EnsureHomeOrganization { name: input.name })).await
    }

    /// Changes name, slug or contact address; operators also the external id.
    async fn update_organization(
        &self,
        ctx: &Context<'_>,
        input: UpdateOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::UpdateOrganization {
            organization,
            name: input.name,
            slug: input.slug,
            contact_email: undefined_or(input.contact_email),
            external_id: undefined_or(input.external_id),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Writes the settings document of a namespace.
    async fn update_organization_settings(
        &self,
        ctx: &Context<'_>,
        input: UpdateOrganizationSettingsInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::UpdateOrganizationSettings {
            organization,
            namespace: input.namespace,
            value: input.value.0,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Asks for verification.
    async fn submit_organization_for_verification(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::SubmitOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Deletes an organization; it can be restored until purgeAt.
    async fn delete_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::DeleteOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Restores a deleted organization; what an operator deleted, only an operator restores.
    async fn restore_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::RestoreOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Operators: PENDING → VERIFIED.
    async fn verify_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Verify).await
    }

    /// Operators: PENDING → REJECTED.
    async fn reject_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Reject).await
    }

    /// Operators: IN_SETUP, PENDING → WAITLISTED.
    async fn waitlist_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Waitlist).await
    }

    /// Operators: REJECTED, WAITLISTED, PENDING → IN_SETUP.
    async fn reopen_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Reopen).await
    }

    /// Operators: VERIFIED → PENDING; resources stay usable.
    async fn review_organization_again(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::ReviewAgain).await
    }

    /// Operators: any → BLOCKED.
    async fn block_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Block).await
    }

    /// Operators: BLOCKED → the status before the block.
    async fn unblock_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Unblock).await
    }

    /// Operators: ACTIVE → INACTIVE.
    async fn deactivate_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Deactivate).await
    }

    /// Operators: INACTIVE → ACTIVE.
    async fn activate_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Activate).await
    }

    /// Operators: sets a limit of one organization, or gives it back to the plan.
    async fn set_organization_limit(
        &self,
        ctx: &Context<'_>,
        input: SetOrganizationLimitInput,
    ) -> Answer<OrganizationPayload> {
        let value = match input.value {
            LimitValue::Maximum(Long(maximum)) => Ok((Some(maximum.unsigned_abs()), false)),
            LimitValue::Unlimited(true) => Ok((None, false)),
            LimitValue::FromPlan(true) => Ok((None, true)),
            LimitValue::Unlimited(false) | LimitValue::FromPlan(false) => {
                Err(super::errors::bad_input("value: unlimited and fromPlan can only be true; give a maximum instead"))
            }
        };
        let case = value.and_then(|(maximum, from_plan)| {
            let organization = id("organizationId", &input.organization_id)?;
            Ok(cases::SetOrganizationLimit {
                organization,
                limit: input.limit,
                maximum,
                from_plan,
                reason: input.reason,
            })
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Operators: another plan; its limits are written into the event.
    async fn change_organization_plan(
        &self,
        ctx: &Context<'_>,
        input: ChangeOrganizationPlanInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::ChangeOrganizationPlan {
            organization,
            plan: input.plan,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}

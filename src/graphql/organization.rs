//! Organizations.

use std::sync::Arc;

use aggregates::ids::{Id, OrganizationId};
use aggregates::membership::MembershipSource;
use aggregates::roles::Permission;
use aggregates::status::{Capability, Lifecycle, Status, Verification};
use async_graphql::connection::Connection;
use async_graphql::{Context, Error, ID, InputObject, Json, MaybeUndefined, Object, OneofObject, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, QueryBuilder};

use super::Organization;
use super::access_trail::{AccessList, AccessRecord};
use super::audit::{AuditConnection, AuditFilter, trail};
use super::connection::{Created, Opaque, PageArguments, Slice, cost, push_page};
use super::erasure::LegalHold;
use super::errors::database_fault;
use super::lists::{self, List, connection_of};
use super::loaders::Seen;
use super::node::{Seeing, Shown};
use super::ownership::OwnershipOffer;
use super::payload::{Answer, payloads, run};
use super::scalars::{
    Document, Long, OrganizationCapability, OrganizationLifecycle, OrganizationVerification, Time, int, named, stored,
};
use super::session::{Session, id};
use crate::commands::first_organization::EnsureHomeOrganization;
use crate::commands::organizations as cases;
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

/// What all parts of an organization's type know of it.
#[derive(Debug, Clone)]
pub struct Profile {
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

impl From<OrganizationRow> for Profile {
    fn from(row: OrganizationRow) -> Self {
        Self {
            id: row.id.parse().unwrap_or_else(|_| aggregates::ids::Id::from_uuid(uuid::Uuid::nil())),
            slug: row.slug,
            name: row.name,
            contact_email: row.contact_email,
            external_id: row.external_id,
            status: Status {
                verification: named::<Verification>(&row.verification),
                lifecycle: named::<Lifecycle>(&row.lifecycle),
                once_verified: row.once_verified,
                deleted_by_operator: row.deleted_by_operator,
            },
            verification_reason: row.verification_reason,
            purge_at: row.purge_at,
            // A purged organization has no row.
            purged: false,
            plan: row.plan,
            version: row.version.unsigned_abs(),
            created_at: row.created_at,
        }
    }
}

impl Profile {
    /// From the log's side.
    fn new(id: OrganizationId, loaded: &Loaded<aggregates::Organization>) -> Self {
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

    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.status.lifecycle == Lifecycle::Deleted
    }

    /// Requires that the caller may read what needs these permissions.
    pub async fn require(&self, ctx: &Context<'_>, all: &[Permission]) -> Result<(), Error> {
        lists::require(ctx, &self.id, self.id.as_ref(), all).await
    }

    /// A page of a list.
    pub async fn list<L: List>(
        &self,
        ctx: &Context<'_>,
        list: L,
        page: PageArguments,
    ) -> Result<Connection<Opaque, L::Node>, Error> {
        lists::list(ctx, &self.id, self.id.as_ref(), list, page).await
    }
}

/// Makes the type of an organization out of parts. Each is one of the fields' owners, with the profile to go by.
macro_rules! merged {
    ($($module:ident::$part:ident),* $(,)?) => {
        /// A tenant: its profile, its status, its members and what belongs to it.
        #[derive(Clone, async_graphql::MergedObject)]
        pub struct Organization($($module::$part),*);

        impl From<organization::Profile> for Organization {
            fn from(profile: organization::Profile) -> Self {
                let profile = std::sync::Arc::new(profile);
                Self($($module::$part(profile.clone())),*)
            }
        }
    };
}
pub(super) use merged;

impl Organization {
    /// The organization of this id as the caller sees it now, if at all.
    pub async fn of(ctx: &Context<'_>, id: &str) -> Option<async_graphql::Result<Self>> {
        let seen = Session::of(ctx).see(&id.parse().ok()?).await.transpose()?;
        Some(seen.map(|seen| Profile::new(seen.id, &seen.organization).into()))
    }
}

impl From<Seen> for Organization {
    fn from(seen: Seen) -> Self {
        Profile::new(seen.id, &seen.organization).into()
    }
}

impl Shown for Organization {
    type Of = aggregates::Organization;

    fn new(id: OrganizationId, loaded: &Loaded<aggregates::Organization>) -> Option<Self> {
        Some(Profile::new(id, loaded).into())
    }

    async fn is_visible(session: &Session, id: &OrganizationId, _: &Loaded<aggregates::Organization>) -> Seeing {
        Ok(session.see(id).await?.is_some())
    }
}

/// What an organization shows of itself.
#[derive(Clone)]
pub struct Own(pub Arc<Profile>);

#[Object]
impl Own {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }
    /// The unique short name.
    async fn slug(&self) -> &str {
        &self.0.slug
    }
    /// The display name.
    async fn name(&self) -> &str {
        &self.0.name
    }
    /// Where it can be reached.
    async fn contact_email(&self) -> Option<&str> {
        self.0.contact_email.as_deref()
    }
    /// Its id in the operators' own systems, unique; operators set it.
    async fn external_id(&self) -> Option<&str> {
        self.0.external_id.as_deref()
    }
    /// Whether somebody has looked at it.
    async fn verification(&self) -> OrganizationVerification {
        self.0.status.verification.into()
    }
    /// The reason of the last step of verification.
    async fn verification_reason(&self) -> Option<&str> {
        self.0.verification_reason.as_deref()
    }
    /// Whether it is in use.
    async fn lifecycle(&self) -> OrganizationLifecycle {
        self.0.status.lifecycle.into()
    }
    /// When the deleted organization is gone for good.
    async fn purge_at(&self) -> Option<Time> {
        self.0.purge_at.map(Time)
    }
    /// Whether it is gone for good. Then only operators still see what is left: that it was there, and its audit trail.
    async fn purged(&self) -> bool {
        self.0.purged
    }
    /// The legal hold that stands, for operators.
    async fn legal_hold(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<LegalHold>> {
        let session = Session::of(ctx);
        if !session.is_operator() {
            return None;
        }
        let seen = match session.see(&self.0.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        seen.organization.state.legal_hold.clone().map(|hold| Ok(hold.into()))
    }
    /// What its status allows now.
    async fn capabilities(&self) -> Vec<OrganizationCapability> {
        if self.0.purged {
            return vec![];
        }
        self.0.status.capabilities().into_iter().map(Capability::into).collect()
    }
    /// Its plan.
    async fn plan(&self) -> &str {
        &self.0.plan
    }
    /// What it may have and what it uses; always holds members, projects, tokens and webhooks.
    async fn limits(&self, ctx: &Context<'_>) -> async_graphql::Result<Vec<Limit>> {
        // Counts are of now, also where the rest is of an earlier outcome.
        if Session::of(ctx).see(&self.0.id).await?.is_none() {
            return Err(super::errors::not_found());
        }
        let counted = Session::of(ctx).loaders().tallies.load_one(self.0.id.clone()).await?.unwrap_or_default();
        let limit = |name: &str| {
            let tally =
                counted.iter().find(|(counted, _)| counted == name).map(|(_, tally)| *tally).unwrap_or_default();
            Limit::of(name, tally)
        };
        Ok(aggregates::limits().map(|known| limit(known.name)).collect())
    }
    /// The settings document of a namespace.
    async fn settings(&self, ctx: &Context<'_>, namespace: String) -> Option<async_graphql::Result<Document<Value>>> {
        let seen = match Session::of(ctx).see(&self.0.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        seen.organization.state.settings.get(&namespace).cloned().map(|value| Ok(Document(value)))
    }
    /// The open offer of ownership, for owners and its recipient; operators see it too.
    async fn ownership_offer(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<OwnershipOffer>> {
        let session = Session::of(ctx);
        let seen = match session.see(&self.0.id).await {
            Ok(seen) => seen?,
            Err(error) => return Some(Err(error)),
        };
        let offer = seen.organization.state.ownership_offer.clone()?;
        let shown = seen.is_owner() || session.is_operator() || session.is(&offer.user_id);
        shown.then(|| Ok(OwnershipOffer(offer)))
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.0.version)
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.0.created_at)
    }
}

/// What an organization shows of what happened in it.
#[derive(Clone)]
pub struct Trails(pub Arc<Profile>);

#[Object]
impl Trails {
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
        Some(match self.0.require(ctx, &[Permission::AuditRead]).await {
            Ok(()) => trail(ctx, Some(&self.0.id), filter, page).await,
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
        Some(self.0.list(ctx, AccessList, page).await)
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
    Ok(connection_of(Slice::new(rows, &page), place, |row| Profile::from(row).into()))
}

payloads! {
    /// What became of a command on an organization.
    OrganizationPayload {
        /// The organization after the command.
        organization: Option<Organization> = Organization::after,
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
    /// How the caller's own organization is called; without it, "Home".
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

    /// Gives an organization to a caller who has none, as this deployment says: their own, or membership in one that
    /// their token or the configuration names. However often it is called, there is one outcome; null where there is
    /// none.
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

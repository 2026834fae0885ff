//! What an organization shows of itself.

use std::sync::Arc;

use aggregates::status::Capability;
use async_graphql::{Context, ID, Object, SimpleObject};
use serde_json::Value;

use super::Profile;
use crate::graphql::erasure::LegalHold;
use crate::graphql::errors::not_found;
use crate::graphql::ownership::OwnershipOffer;
use crate::graphql::scalars::{
    Document, Long, OrganizationCapability, OrganizationLifecycle, OrganizationVerification, Time, int,
};
use crate::graphql::session::Session;
use crate::log::ledger::Tally;

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
            return Err(not_found());
        }
        let counted = Session::of(ctx).tallies(&self.0.id).await?;
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

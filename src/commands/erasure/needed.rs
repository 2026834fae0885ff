//! Who may not be erased yet: people whom a legal hold keeps, and last owners.

use std::collections::HashSet;

use aggregates::ids::{MembershipId, OrganizationId, UserId};
use aggregates::status::Lifecycle;
use aggregates::{Digest, Membership, Organization, Refusal, StreamId};

use super::{PLACES_MAX, all_is_shown};
use crate::commands::Fault;
use crate::commands::work::{Stop, Work};
use crate::log::{Loaded, Log, LogError};

/// How many places a refusal names.
const NAMED_MAX: usize = 10;

/// Refuses while a legal hold stands where the person is, was or was invited, and while they are the last owner of an
/// organization that lives. The command relies on those organizations: a hold at the same time is a conflict. Gives all
/// organizations where the person is, was or was invited.
pub(super) async fn must_not_be_needed(
    work: &mut Work<'_>,
    user: Option<&UserId>,
    claims: &[Digest],
) -> Result<Vec<OrganizationId>, Stop> {
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
    for id in &ids {
        let organization = work.load::<Organization>(id).await?;
        if organization.state.is_present() {
            organizations.push((id.clone(), organization));
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
    if why.is_empty() { Ok(ids) } else { Err(Refusal::InvalidState(why.join("; ")).into()) }
}

/// The invitations to these addresses, and those that the user accepted: what they say of the person goes with the person.
pub(super) async fn invitations_to(
    log: &Log,
    user: Option<&UserId>,
    claims: &[Digest],
) -> Result<HashSet<String>, LogError> {
    let claims: Vec<&str> = claims.iter().map(|claim| claim.0.as_str()).collect();
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM invitations WHERE email_claim = ANY($2)
           UNION SELECT id FROM invitations WHERE accepted_by = $1"#,
        user.map(AsRef::as_ref),
        &claims as &[&str]
    );
    Ok(ids.fetch_all(log.pool()).await?.into_iter().collect())
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

//! The first organization of a user: what the deployment gives to who has none.
//!
//! Whatever is made has an id that follows from the user, so that ten calls at once meet each other at its stream and
//! have one outcome.

use aggregates::ids::{Id, MembershipId, OrganizationId};
use aggregates::membership::{Grantor, MembershipCommand, MembershipSource, MembershipState};
use aggregates::status::Capability;
use aggregates::{Membership, Organization, Refusal, Scope, text};
use serde::Serialize;

use super::organizations::{Founding, found};
use super::roles::wait_for_read_models;
use super::standing::sees;
use super::work::{Entity, Stop, Work};
use super::{Fault, UseCase, sole};

/// How many memberships of a user are looked at.
const MEMBERSHIPS_MAX: i64 = 100;
/// How many organizations of their own a user may have had before the present one.
const OWN_MAX: usize = 32;

/// What a user without an organization gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstOrganization {
    /// Nothing.
    Nothing,
    /// An organization of the caller's own.
    Own,
    /// To be a member of this one.
    Default {
        /// Its external id, or its slug.
        organization: String,
        /// The role there.
        role: String,
    },
}

/// Gives an organization to a caller who has none.
#[derive(Debug, Serialize)]
pub struct EnsureHomeOrganization {
    /// How the caller's own organization is called; without it, "Home".
    pub name: Option<String>,
}

impl UseCase for EnsureHomeOrganization {
    const OPERATION: &'static str = "ensureHomeOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let caller = work.person()?;
        let name = self.name.as_deref().map(|name| text::name("name", name)).transpose()?;
        // What the issuer says of its user comes first.
        if let Some(named) = caller.organization.clone()
            && let Some(found) = holder(work, Organization::EXTERNAL_ID, &named.external_id).await?
        {
            return join(work, found, &named.role).await;
        }
        if let Some((id, organization)) = present(work).await? {
            work.entities = vec![Entity::new(id, organization)];
            return Ok(());
        }
        match work.rules().first_organization.clone() {
            FirstOrganization::Nothing => Ok(()),
            FirstOrganization::Own => own(work, name).await,
            FirstOrganization::Default { organization, role } => {
                let found = match holder(work, Organization::EXTERNAL_ID, &organization).await? {
                    Some(found) => Some(found),
                    None => holder(work, Organization::SLUG, &organization.to_ascii_lowercase()).await?,
                };
                // The operators' mistake, which the caller cannot mend.
                let found = found.ok_or_else(|| {
                    tracing::error!(%organization, "organizations.home_organization is no organization");
                    Refusal::InvalidState("the organization for new users does not exist: tell the operators".into())
                })?;
                join(work, found, &role).await
            }
        }
    }
}

/// An organization that was found by what it holds.
struct Found {
    id: OrganizationId,
    scope: Scope,
    key: String,
}

impl Found {
    /// Whether the organization still holds it: a moment ago it did.
    fn is(&self, organization: &Organization) -> bool {
        let own =
            if self.scope == Organization::SLUG { Some(&organization.slug) } else { organization.external_id.as_ref() };
        own == Some(&self.key)
    }
}

async fn holder(work: &Work<'_>, scope: Scope, key: &str) -> Result<Option<Found>, Stop> {
    let id = work.log().claim(scope, key, None).await?.and_then(|holder| holder.parse().ok());
    Ok(id.map(|id| Found { id, scope, key: key.to_owned() }))
}

/// The caller's oldest organization in sight. A read model, which is waited for, proposes it; the log says whether it
/// is so.
async fn present(work: &mut Work<'_>) -> Result<Option<(OrganizationId, crate::log::Loaded<Organization>)>, Stop> {
    let user = work.person()?.user.clone();
    wait_for_read_models(work.log(), &[]).await?;
    let ids = sqlx::query_scalar!(
        "SELECT organization_id FROM members WHERE user_id = $1 AND state = 'ACTIVE' ORDER BY created_at, id LIMIT $2",
        user.as_ref(),
        MEMBERSHIPS_MAX
    )
    .fetch_all(work.log().pool())
    .await
    .map_err(crate::log::LogError::from)?;
    for id in ids.iter().filter_map(|id| id.parse::<OrganizationId>().ok()) {
        let membership_id = MembershipId::of(&id, &user);
        let now = work.log().current(&[id.clone().into(), membership_id.clone().into()]).await?;
        let organization = now.get::<Organization>(&id);
        if sees(&organization.state, &now.get::<Membership>(&membership_id).state) {
            return Ok(Some((id, organization)));
        }
    }
    Ok(None)
}

/// An organization of the caller's own: the first one that they never had.
async fn own(work: &mut Work<'_>, name: Option<String>) -> Result<(), Stop> {
    let user = work.person()?.user.clone();
    for number in 0..OWN_MAX {
        let id = OrganizationId::derived(&["home", user.as_ref(), &number.to_string()]);
        let before = work.load::<Organization>(&id).await?;
        if before.version > 0 {
            // Made by another call a moment ago, or one that is gone.
            let membership = work.load::<Membership>(&MembershipId::of(&id, &user)).await?;
            if sees(&before.state, &membership.state) {
                work.entities = vec![Entity::new(id, before)];
                return Ok(());
            }
            continue;
        }
        // Not the person's name: an organization's is not personal, and would outlive their erasure.
        let name = name.unwrap_or_else(|| "Home".to_owned());
        let founding = Founding {
            slug: slug_of(&name, &id),
            name,
            contact_email: None,
            external_id: None,
            owner: user,
            reason: None,
            source: MembershipSource::Founder,
        };
        return found(work, id, before, founding).await;
    }
    Err(Refusal::InvalidState(format!("{OWN_MAX} organizations of this user are gone already")).into())
}

/// A slug from a name; what follows from the id makes it nobody else's.
fn slug_of(name: &str, id: &OrganizationId) -> String {
    let mut slug = String::new();
    for letter in name.chars().flat_map(char::to_lowercase).take(40) {
        match letter {
            'a'..='z' | '0'..='9' => slug.push(letter),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    let id = id.as_ref();
    format!("{}-{}", if slug.is_empty() { "home" } else { slug.trim_end_matches('-') }, &id[id.len() - 8..])
}

/// Lets the caller join, unless they were there before: a removed member is not let in again in passing.
async fn join(work: &mut Work<'_>, found: Found, role: &str) -> Result<(), Stop> {
    let id = found.id.clone();
    let user = work.person()?.user.clone();
    work.organization = Some(id.clone());
    let membership_id = MembershipId::of(&id, &user);
    work.log().warm(&[id.clone().into(), membership_id.clone().into()]).await?;
    let organization = work.load::<Organization>(&id).await?;
    let before = work.load::<Membership>(&membership_id).await?;
    if !organization.state.is_present() {
        return Err(Fault::NotFound.into());
    }
    // It has passed to another one, or this replica is behind: what was loaded is compared with the log, and it is
    // looked for again.
    if !found.is(&organization.state) {
        return Err(Fault::Conflict.into());
    }
    if before.state.state == MembershipState::Active {
        work.entities = vec![Entity::new(id, organization)];
        return Ok(());
    }
    if before.version > 0 {
        let message = "you are not a member any more: ask the organization to let you in again";
        return Err(Refusal::InvalidState(message.into()).into());
    }
    let status = organization.state.status;
    if !status.allows(Capability::AcceptInvitations, false) {
        return Err(Refusal::EntityStatus { status, capability: Capability::AcceptInvitations }.into());
    }
    // The operators' mistake again: roles of an organization's own are not known where the service is configured.
    if !organization.state.roles.has(role) {
        tracing::error!(organization = %id, %role, "users should join with a role that this organization does not have");
        let message = format!("users should join as '{role}' there, and there is no such role: tell the operators");
        return Err(Refusal::InvalidState(message).into());
    }
    let joined = before.state.decide(MembershipCommand::Join {
        user,
        roles: vec![role.to_owned()],
        source: MembershipSource::Direct,
        invitation: None,
        by: Grantor::unbounded().knowing(&organization.state.roles),
        reason: None,
        at: work.now,
    })?;
    let joined = sole::bind(work, &id, &before, joined).await?;
    let after = work.record(&membership_id, &before, joined);
    work.entities = vec![Entity::new(id, organization), Entity::new(membership_id, after)];
    Ok(())
}

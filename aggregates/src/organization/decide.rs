//! What is made of a command to an organization.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    LimitChange, Limits, Organization, OrganizationCommand, OrganizationEvent, SETTINGS_NAMESPACES_MAX, maximum_in,
    policies,
};
use crate::error::Refusal;
use crate::event::shown;
use crate::ids::OrganizationId;
use crate::personal::{Personal, readable};
use crate::resource::{self, Limit};
use crate::roles::{OWN_ROLES_MAX, OwnRole, Permissions, ROLE_NAMES_MAX, role};
use crate::status::{Lifecycle, Review, Verification};
use crate::text;

impl Organization {
    /// The events that `command` makes of this state. Whether the status allows the command at all, and whether
    /// the caller may give it, was settled before.
    pub fn decide(&self, command: OrganizationCommand) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationCommand as C;
        use OrganizationEvent as E;
        if let C::Create { .. } = command {
            return self.create(command);
        }
        if let C::Prune { kept_days } = command {
            return self.prune(kept_days);
        }
        if !self.is_present() {
            return Err(Refusal::NotFound);
        }
        let is_for_deleted = matches!(
            command,
            C::ClearContact | C::Restore { .. } | C::Purge { .. } | C::SetLegalHold { .. } | C::ReleaseLegalHold { .. }
        );
        if self.is_deleted() && !is_for_deleted {
            return Err(Refusal::InvalidState("the organization is deleted: restore it first".into()));
        }
        match command {
            C::Create { .. } | C::Prune { .. } => unreachable!("answered above"),
            C::Update { id, name, slug, contact_email, external_id, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.update(&id, name, slug, contact_email, external_id, reason)
            }
            C::ClearContact => {
                let previous_contact_email = self.contact_email.clone();
                let cleared = E::OrgContactChanged { contact_email: None, previous_contact_email, reason: None };
                Ok(self.contact_email.is_some().then_some(cleared).into_iter().collect())
            }
            C::UpdateSettings { namespace, value, reason } => {
                self.update_settings(&namespace, value, reason.as_deref())
            }
            C::Review { review, reason } => self.review(review, reason.as_deref()),
            C::Deactivate { reason } => match self.status.lifecycle {
                Lifecycle::Active => Ok(vec![E::OrgDeactivated { reason: text::reason("reason", reason.as_deref())? }]),
                _ => Err(Refusal::InvalidState("the organization is not ACTIVE".into())),
            },
            C::Activate { reason } => match self.status.lifecycle {
                Lifecycle::Inactive => Ok(vec![E::OrgActivated { reason: text::reason("reason", reason.as_deref())? }]),
                _ => Err(Refusal::InvalidState("the organization is not INACTIVE".into())),
            },
            C::Delete { reason, by_operator, purge_at } => {
                let reason = text::reason("reason", reason.as_deref())?;
                let previous_lifecycle = self.status.lifecycle;
                Ok(vec![E::OrgDeleted { previous_lifecycle, purge_at, by_operator, reason }])
            }
            C::Restore { reason, at } => self.restore(reason.as_deref(), at),
            C::Purge { at } => self.purge(at),
            C::SetLegalHold { reason, at } => self.set_legal_hold(&reason, at),
            C::ReleaseLegalHold { reason } => self.release_legal_hold(&reason),
            C::DefineRole { name, description, permissions, by, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.define_role(&name, &description, &permissions, by, reason)
            }
            C::RemoveRole { name, replaced_with, by, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.remove_role(&name, replaced_with, by, reason)
            }
            C::OfferOwnership { membership, recipient, by, reason, at } => {
                self.offer_ownership(membership, &recipient, by, reason.as_deref(), at)
            }
            C::AcceptOwnership { user, recipient, giver, reason } => {
                self.accept_ownership(&user, &recipient, giver.as_ref(), reason.as_deref())
            }
            C::WithdrawOwnershipOffer { reason } => self.withdraw_ownership_offer(reason.as_deref()),
            C::SetLimit { limit, value, reason } => self.set_limit(limit, value, reason.as_deref()),
            C::ChangePlan { plan, limits, reason } => self.change_plan(plan, limits, reason.as_deref()),
        }
    }

    fn is_deleted(&self) -> bool {
        self.status.lifecycle == Lifecycle::Deleted
    }

    /// Whether it is deleted, and the time in which it could be restored is over.
    fn is_past_its_time(&self, at: DateTime<Utc>) -> bool {
        self.is_deleted() && self.purge_at.is_some_and(|purge_at| purge_at <= at)
    }

    fn restore(&self, reason: Option<&str>, at: DateTime<Utc>) -> Result<Vec<OrganizationEvent>, Refusal> {
        if !self.is_deleted() {
            return Err(Refusal::InvalidState("the organization is not deleted".into()));
        }
        if self.is_past_its_time(at) {
            let message = "the time in which the organization could be restored is over";
            return Err(Refusal::InvalidState(message.into()));
        }
        let reason = text::reason("reason", reason)?;
        Ok(vec![OrganizationEvent::OrgRestored { lifecycle: self.before_deletion, reason }])
    }

    fn purge(&self, at: DateTime<Utc>) -> Result<Vec<OrganizationEvent>, Refusal> {
        if self.legal_hold.is_some() {
            return Err(Refusal::InvalidState("the organization is under legal hold".into()));
        }
        if !self.is_past_its_time(at) {
            return Err(Refusal::InvalidState("the organization's time has not come".into()));
        }
        Ok(vec![OrganizationEvent::OrgPurged { slug: self.slug.clone(), external_id: self.external_id.clone() }])
    }

    fn prune(&self, kept_days: u64) -> Result<Vec<OrganizationEvent>, Refusal> {
        match (self.purged, self.pruned) {
            (true, false) => Ok(vec![OrganizationEvent::OrgPruned { kept_days, created_at: self.created_at }]),
            (true, true) => Err(Refusal::InvalidState("the organization's trail is pruned already".into())),
            (false, _) => Err(Refusal::InvalidState("the organization is not purged".into())),
        }
    }

    fn set_legal_hold(&self, reason: &str, at: DateTime<Utc>) -> Result<Vec<OrganizationEvent>, Refusal> {
        if self.legal_hold.is_some() {
            let message = "the organization is under legal hold already: release that one first";
            return Err(Refusal::InvalidState(message.into()));
        }
        let reason = text::reason("reason", Some(reason))?;
        Ok(vec![OrganizationEvent::OrgLegalHoldSet { held_since: at, reason }])
    }

    fn release_legal_hold(&self, reason: &str) -> Result<Vec<OrganizationEvent>, Refusal> {
        let Some(hold) = &self.legal_hold else {
            return Err(Refusal::InvalidState("the organization is not under legal hold".into()));
        };
        let reason = text::reason("reason", Some(reason))?;
        Ok(vec![OrganizationEvent::OrgLegalHoldReleased { held_since: hold.since, reason }])
    }

    fn change_plan(
        &self,
        plan: String,
        limits: Limits,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let reason = text::reason("reason", reason)?;
        if plan == self.plan && limits == self.plan_limits {
            return Ok(vec![]);
        }
        let in_force =
            |limit: Limit| self.overrides.get(limit.name).copied().unwrap_or_else(|| maximum_in(&limits, limit));
        let maximums = resource::limits().map(|limit| (limit.name.to_owned(), in_force(limit))).collect();
        Ok(vec![OrganizationEvent::OrgPlanChanged { plan, previous_plan: self.plan.clone(), limits, maximums, reason }])
    }

    fn create(&self, command: OrganizationCommand) -> Result<Vec<OrganizationEvent>, Refusal> {
        let OrganizationCommand::Create {
            id,
            name,
            slug,
            contact_email,
            external_id,
            plan,
            limits,
            verified_because,
            reason,
            at,
        } = command
        else {
            unreachable!("called for Create only");
        };
        if self.exists {
            return Err(Refusal::AlreadyExists {
                path: "slug",
                message: "this organization exists already".into(),
                existing: id.to_string(),
            });
        }
        let mut events = vec![OrganizationEvent::OrgCreated {
            name: text::name("name", &name)?,
            slug: text::slug("slug", &slug)?,
            contact_email: contact(&id, contact_email.as_deref())?,
            external_id: external_id.as_deref().map(text::external_id).transpose()?,
            plan,
            limits,
            created_at: at,
            reason: text::reason("reason", reason.as_deref())?,
        }];
        if let Some(reason) = verified_because {
            events.push(OrganizationEvent::OrgVerified {
                verification: Verification::Verified,
                previous_verification: Verification::InSetup,
                reason: Some(reason),
            });
        }
        Ok(events)
    }

    fn update(
        &self,
        id: &OrganizationId,
        name: Option<String>,
        slug: Option<String>,
        contact_email: Option<Option<String>>,
        external_id: Option<Option<String>>,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationEvent as E;
        let mut events = vec![];
        if let Some(name) = name.map(|name| text::name("name", &name)).transpose()?.filter(|name| *name != self.name) {
            events.push(E::OrgRenamed { name, previous_name: self.name.clone(), reason: reason.clone() });
        }
        if let Some(slug) = slug.map(|slug| text::slug("slug", &slug)).transpose()?.filter(|slug| *slug != self.slug) {
            events.push(E::OrgSlugChanged { slug, previous_slug: self.slug.clone(), reason: reason.clone() });
        }
        if let Some(address) = contact_email {
            let contact_email = contact(id, address.as_deref())?;
            // An address whose person was erased is there, and can only be cleared.
            let is_there = contact_email.is_some() != self.contact_email.is_some();
            if is_there || readable(&contact_email) != readable(&self.contact_email) {
                events.push(E::OrgContactChanged {
                    contact_email,
                    previous_contact_email: self.contact_email.clone(),
                    reason: reason.clone(),
                });
            }
        }
        if let Some(external_id) = external_id {
            let external_id = external_id.as_deref().map(text::external_id).transpose()?;
            if external_id != self.external_id {
                events.push(E::OrgExternalIdChanged {
                    external_id,
                    previous_external_id: self.external_id.clone(),
                    reason,
                });
            }
        }
        Ok(events)
    }

    fn update_settings(
        &self,
        namespace: &str,
        value: Value,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let namespace = text::slug("namespace", namespace)?;
        text::json("value", &value, text::SETTINGS_BYTES_MAX)?;
        policies::check(&namespace, &value)?;
        let reason = text::reason("reason", reason)?;
        // GraphQL's `JSON!` takes no null, so the empty object clears as well.
        let value =
            Some(value).filter(|value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
        let previous_value = self.settings.get(&namespace).cloned();
        if value.is_some() && previous_value.is_none() && self.settings.len() >= SETTINGS_NAMESPACES_MAX {
            let message =
                format!("there are {SETTINGS_NAMESPACES_MAX} namespaces of settings already: clear one first");
            return Err(Refusal::input("namespace", message));
        }
        if value == previous_value {
            return Ok(vec![]);
        }
        Ok(vec![OrganizationEvent::OrgSettingsUpdated { namespace, value, previous_value, reason }])
    }

    fn review(&self, review: Review, reason: Option<&str>) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationEvent as E;
        let reason = text::reason("reason", reason)?;
        let previous_verification = self.status.verification;
        let Some(verification) = review.leads(previous_verification, self.before_block) else {
            return Err(Refusal::InvalidState(format!(
                "the organization is {}, from where this does not lead on",
                shown(previous_verification)
            )));
        };
        Ok(vec![match review {
            Review::Submit => E::OrgSubmitted { verification, previous_verification, reason },
            Review::Verify => E::OrgVerified { verification, previous_verification, reason },
            Review::Reject => E::OrgRejected { verification, previous_verification, reason },
            Review::Waitlist => E::OrgWaitlisted { verification, previous_verification, reason },
            Review::Reopen => E::OrgReopened { verification, previous_verification, reason },
            Review::ReviewAgain => E::OrgReviewRestarted { verification, previous_verification, reason },
            Review::Block => E::OrgBlocked { verification, previous_verification, reason },
            Review::Unblock => E::OrgUnblocked { verification, previous_verification, reason },
        }])
    }

    fn define_role(
        &self,
        name: &str,
        description: &str,
        permissions: &[String],
        by: Permissions,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let name = text::role_name("name", name)?;
        if role(&name).is_some() {
            let message = format!("the role {name:?} is built in and means the same everywhere: choose another name");
            return Err(Refusal::input("name", message));
        }
        if self.removed_roles.contains(&name) {
            let message = format!("there was a role {name:?} that meant something else: choose another name");
            return Err(Refusal::input("name", message));
        }
        let description = text::description("description", description)?;
        let wanted = Permissions::named(permissions)?;
        let before = self.roles.0.get(&name);
        if !wanted.is_subset(by) {
            let message = format!("the role '{name}' would permit more than you may do yourself");
            return Err(Refusal::RoleNotGrantable(message));
        }
        may_end(&name, before, by)?;
        let permissions = wanted.names();
        match before {
            None if self.roles.0.len() >= OWN_ROLES_MAX => {
                let message = format!("there are {OWN_ROLES_MAX} roles of its own already: remove one first");
                Err(Refusal::input("name", message))
            }
            None if self.roles.0.len() + self.removed_roles.len() >= ROLE_NAMES_MAX => {
                let message = format!("{ROLE_NAMES_MAX} names of roles were used already: change a role instead");
                Err(Refusal::input("name", message))
            }
            None => Ok(vec![OrganizationEvent::RoleDefined { role: name, description, permissions, reason }]),
            Some(before) if before.description == description && before.permissions == permissions => Ok(vec![]),
            Some(before) => Ok(vec![OrganizationEvent::RoleChanged {
                role: name,
                description,
                previous_description: before.description.clone(),
                permissions,
                previous_permissions: before.permissions.clone(),
                reason,
            }]),
        }
    }

    fn remove_role(
        &self,
        name: &str,
        replaced_with: Option<String>,
        by: Permissions,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let Some(own) = self.roles.0.get(name) else {
            let shown: String = name.chars().take(80).collect();
            let message = if role(name).is_some() {
                format!("the role {shown:?} is built in: only an organization's own roles can be removed")
            } else {
                format!("there is no role {shown:?} of its own")
            };
            return Err(Refusal::input("name", message));
        };
        may_end(name, Some(own), by)?;
        let OwnRole { description, permissions } = own.clone();
        Ok(vec![OrganizationEvent::RoleRemoved {
            role: name.to_owned(),
            description,
            permissions,
            replaced_with,
            reason,
        }])
    }

    fn set_limit(
        &self,
        name: String,
        value: LimitChange,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let Some(limit) = resource::limits().find(|limit| limit.name == name) else {
            let shown: String = name.chars().take(80).collect();
            let known: Vec<&str> = resource::limits().map(|limit| limit.name).collect();
            let message = format!("there is no limit {shown:?}: give one of {}", known.join(", "));
            return Err(Refusal::input("limit", message));
        };
        let (maximum, from_plan) = match value {
            LimitChange::Maximum(maximum) => (Some(maximum), false),
            LimitChange::Unlimited => (None, false),
            LimitChange::FromPlan => (maximum_in(&self.plan_limits, limit), true),
        };
        let previous_maximum = self.maximum(limit);
        let reason = text::reason("reason", reason)?;
        if maximum == previous_maximum && from_plan != self.overrides.contains_key(&name) {
            return Ok(vec![]);
        }
        Ok(vec![OrganizationEvent::OrgLimitSet { limit: name, maximum, previous_maximum, from_plan, reason }])
    }
}

fn contact(id: &OrganizationId, address: Option<&str>) -> Result<Option<Personal>, Refusal> {
    let address = address.map(|address| text::email("contactEmail", address)).transpose()?;
    Ok(address.map(|address| Personal::new(id.as_ref(), address)))
}

/// A grantor who could not grant a role cannot take it from others either.
fn may_end(name: &str, before: Option<&OwnRole>, by: Permissions) -> Result<(), Refusal> {
    match before {
        Some(before) if !Permissions::of_names(&before.permissions).is_subset(by) => {
            Err(Refusal::RoleNotGrantable(format!("the role '{name}' permits more than you may do yourself")))
        }
        _ => Ok(()),
    }
}

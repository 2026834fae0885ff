//! Which events a report tells, and where. The matches have no wildcard, so that a new event asks.

use aggregates::Event;
use aggregates::api_token::ApiTokenEvent;
use aggregates::invitation::InvitationEvent;
use aggregates::membership::MembershipEvent;
use aggregates::organization::OrganizationEvent;
use aggregates::project::ProjectEvent;
use aggregates::webhook::WebhookEndpointEvent;

/// A section of what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Roles,
    Standing,
    TokensAndWebhooks,
    Erasures,
    LegalHolds,
}

/// The section of an event; `None` where only operators' doing it would be told.
pub(super) fn topic(event: &Event) -> Option<Topic> {
    match event {
        Event::Organization(event) => of_organization(event),
        Event::Membership(event) => of_membership(event),
        Event::Invitation(event) => of_invitation(event),
        Event::Project(event) => of_project(event),
        Event::ApiToken(event) => of_api_token(event),
        Event::WebhookEndpoint(event) => of_webhook(event),
        // Users are in no organization's trail.
        Event::User(_) | Event::Pruned => None,
    }
}

fn of_organization(event: &OrganizationEvent) -> Option<Topic> {
    use OrganizationEvent as E;
    match event {
        E::RoleDefined { .. }
        | E::RoleChanged { .. }
        | E::RoleRemoved { .. }
        | E::OwnershipOffered { .. }
        | E::OwnershipAccepted { .. }
        | E::OwnershipOfferWithdrawn { .. } => Some(Topic::Roles),
        E::OrgDeleted { .. } | E::OrgRestored { .. } | E::OrgPurged { .. } | E::OrgPruned { .. } => {
            Some(Topic::Erasures)
        }
        E::OrgLegalHoldSet { .. } | E::OrgLegalHoldReleased { .. } => Some(Topic::LegalHolds),
        E::OrgCreated { .. }
        | E::OrgRenamed { .. }
        | E::OrgSlugChanged { .. }
        | E::OrgContactChanged { .. }
        | E::OrgExternalIdChanged { .. }
        | E::OrgSettingsUpdated { .. }
        | E::OrgSubmitted { .. }
        | E::OrgVerified { .. }
        | E::OrgRejected { .. }
        | E::OrgWaitlisted { .. }
        | E::OrgReopened { .. }
        | E::OrgReviewRestarted { .. }
        | E::OrgBlocked { .. }
        | E::OrgUnblocked { .. }
        | E::OrgDeactivated { .. }
        | E::OrgActivated { .. }
        | E::OrgLimitSet { .. }
        | E::OrgPlanChanged { .. }
        | E::LimitReached { .. } => None,
    }
}

fn of_membership(event: &MembershipEvent) -> Option<Topic> {
    use MembershipEvent as E;
    match event {
        E::MemberJoined { .. } | E::MemberRolesChanged { .. } => Some(Topic::Roles),
        E::MemberSuspended { .. } | E::MemberReinstated { .. } | E::MemberRemoved { .. } | E::MemberLeft { .. } => {
            Some(Topic::Standing)
        }
        E::MemberBound { .. } => None,
    }
}

fn of_invitation(event: &InvitationEvent) -> Option<Topic> {
    use InvitationEvent as E;
    match event {
        E::InviteeErased { .. } => Some(Topic::Erasures),
        E::MemberInvited { .. }
        | E::InvitationResent { .. }
        | E::InvitationRolesChanged { .. }
        | E::InvitationAccepted { .. }
        | E::InvitationDeclined { .. }
        | E::InvitationRevoked { .. }
        | E::InvitationExpired { .. } => None,
    }
}

fn of_project(event: &ProjectEvent) -> Option<Topic> {
    use ProjectEvent as E;
    match event {
        E::ProjectDeleted { .. } | E::ProjectRestored { .. } | E::ProjectPurged { .. } => Some(Topic::Erasures),
        E::ProjectCreated { .. }
        | E::ProjectRenamed { .. }
        | E::ProjectSlugChanged { .. }
        | E::ProjectMetadataChanged { .. }
        | E::ProjectArchived { .. }
        | E::ProjectUnarchived { .. } => None,
    }
}

fn of_api_token(event: &ApiTokenEvent) -> Option<Topic> {
    use ApiTokenEvent as E;
    match event {
        E::TokenCreated { .. } | E::TokenRevoked { .. } | E::TokenExpired { .. } => Some(Topic::TokensAndWebhooks),
    }
}

fn of_webhook(event: &WebhookEndpointEvent) -> Option<Topic> {
    use WebhookEndpointEvent as E;
    match event {
        E::WebhookCreated { .. }
        | E::WebhookChanged { .. }
        | E::WebhookSecretRotated { .. }
        | E::WebhookDisabled { .. }
        | E::WebhookEnabled { .. }
        | E::WebhookReplayed { .. }
        | E::WebhookDeleted { .. } => Some(Topic::TokensAndWebhooks),
        E::WebhookFailing { .. } | E::WebhookTested { .. } | E::WebhookRedelivered { .. } => None,
    }
}

//! Legal holds.

use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationCommand;
use serde::Serialize;

use crate::commands::standing::Standing;
use crate::commands::work::{Stop, Work};
use crate::commands::{UseCase, organizations};

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
        organizations::finish(
            work,
            standing,
            match self.hold {
                true => OrganizationCommand::SetLegalHold { reason, at: work.now },
                false => OrganizationCommand::ReleaseLegalHold { reason },
            },
        )
    }
}

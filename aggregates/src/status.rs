//! The two axes of an organization's status, and what each status allows: the only place where both are written.

use serde::{Deserialize, Serialize};

use crate::event::{Field, Kind};

/// Whether somebody has looked at the organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verification {
    /// Being filled in by its owners.
    #[default]
    InSetup,
    /// Submitted, waiting for an operator.
    Pending,
    /// Put off by an operator.
    Waitlisted,
    /// Approved.
    Verified,
    /// Turned down.
    Rejected,
    /// Stopped by an operator; the status before is kept.
    Blocked,
}

/// Whether the organization is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Lifecycle {
    /// In use.
    #[default]
    Active,
    /// Switched off by an operator.
    Inactive,
    /// Deleted; restorable until it is purged.
    Deleted,
}

impl Field for Lifecycle {
    const KIND: Kind = Kind { name: "OrganizationLifecycle", list: false, nullable: false, hidden: false };
}

impl Field for Verification {
    const KIND: Kind = Kind { name: "OrganizationVerification", list: false, nullable: false, hidden: false };
}

/// What an organization's status may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Change name, slug, contact and settings.
    EditProfile,
    /// Invite, add, reinstate, grant more.
    AddMembers,
    /// Remove, suspend, revoke, grant less.
    RemoveMembers,
    /// Accept invitations.
    AcceptInvitations,
    /// Create projects and the like.
    CreateResources,
    /// Edit, archive and delete projects and the like.
    ChangeResources,
    /// Use what exists.
    UseResources,
    /// Ask to be verified.
    SubmitForVerification,
    /// Delete the organization.
    Delete,
    /// Restore the deleted organization.
    Restore,
    /// Leave it.
    Leave,
}

impl Capability {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 11] = [
        Self::EditProfile,
        Self::AddMembers,
        Self::RemoveMembers,
        Self::AcceptInvitations,
        Self::CreateResources,
        Self::ChangeResources,
        Self::UseResources,
        Self::SubmitForVerification,
        Self::Delete,
        Self::Restore,
        Self::Leave,
    ];
}

/// Where an organization stands, and all that its capabilities depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The verification axis.
    pub verification: Verification,
    /// The lifecycle axis; it wins over the other.
    pub lifecycle: Lifecycle,
    /// Whether it has been VERIFIED at some time.
    pub once_verified: bool,
    /// Whether an operator deleted it (then only operators restore it).
    pub deleted_by_operator: bool,
}

impl Status {
    /// Whether the organization's status allows `capability`. `operator` is whether an operator asks: a few
    /// things are open to operators only.
    pub fn allows(&self, capability: Capability, operator: bool) -> bool {
        use Capability as C;
        match self.lifecycle {
            Lifecycle::Active => self.verification_allows(capability, operator),
            Lifecycle::Inactive => matches!(capability, C::RemoveMembers | C::Leave | C::Delete),
            Lifecycle::Deleted => capability == C::Restore && (operator || !self.deleted_by_operator),
        }
    }

    fn verification_allows(&self, capability: Capability, operator: bool) -> bool {
        use Capability as C;
        use Verification as V;
        let at = self.verification;
        match capability {
            C::EditProfile => matches!(at, V::InSetup | V::Pending | V::Verified | V::Rejected),
            C::SubmitForVerification => at == V::InSetup,
            C::AddMembers | C::AcceptInvitations => matches!(at, V::InSetup | V::Pending | V::Verified),
            C::RemoveMembers | C::Leave => true,
            C::CreateResources => at == V::Verified,
            C::ChangeResources => matches!(at, V::Pending | V::Verified | V::Rejected),
            C::UseResources => at == V::Verified || (at == V::Pending && self.once_verified),
            C::Delete => at != V::Blocked || operator,
            C::Restore => false,
        }
    }

    /// Whether only its owners (and operators) may still see it.
    pub fn hidden_from_members(&self) -> bool {
        self.verification == Verification::Blocked || self.lifecycle == Lifecycle::Deleted
    }

    /// What its status allows its own people now.
    pub fn capabilities(&self) -> Vec<Capability> {
        Capability::ALL.into_iter().filter(|capability| self.allows(*capability, false)).collect()
    }

    /// What would make `capability` possible, in words for whoever was refused.
    pub fn remedy(&self, capability: Capability) -> &'static str {
        match (self.lifecycle, self.verification) {
            (Lifecycle::Deleted, _) if capability == Capability::Delete => "The organization is deleted already.",
            (Lifecycle::Deleted, _) if self.deleted_by_operator => "Ask an operator to restore the organization.",
            (Lifecycle::Deleted, _) => "Restore the organization first.",
            _ if capability == Capability::Restore => "The organization is not deleted; nothing is to be restored.",
            (Lifecycle::Inactive, _) => "Ask an operator to activate the organization.",
            (_, Verification::InSetup) => "Submit the organization for verification and wait for its approval.",
            (_, Verification::Pending) => "Wait until an operator has verified the organization.",
            (_, Verification::Waitlisted) => "Ask an operator to reopen the organization.",
            (_, Verification::Rejected) => "Ask an operator to reopen the organization, then submit it again.",
            (_, Verification::Blocked) => "Ask an operator to unblock the organization.",
            (_, Verification::Verified) => "The organization is verified already.",
        }
    }
}

/// What moves an organization along the verification axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Review {
    /// IN_SETUP → PENDING, by its own people.
    Submit,
    /// PENDING → VERIFIED.
    Verify,
    /// PENDING → REJECTED.
    Reject,
    /// IN_SETUP, PENDING → WAITLISTED.
    Waitlist,
    /// REJECTED, WAITLISTED, PENDING → IN_SETUP.
    Reopen,
    /// VERIFIED → PENDING.
    ReviewAgain,
    /// Any but BLOCKED → BLOCKED.
    Block,
    /// BLOCKED → the status before the block.
    Unblock,
}

impl Review {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Submit,
        Self::Verify,
        Self::Reject,
        Self::Waitlist,
        Self::Reopen,
        Self::ReviewAgain,
        Self::Block,
        Self::Unblock,
    ];

    /// Where this leads from `from`, or `None` where there is no such transition. `before_block` is the status
    /// to which an unblocked organization returns.
    pub fn leads(self, from: Verification, before_block: Verification) -> Option<Verification> {
        use Verification as V;
        match (self, from) {
            (Self::Submit, V::InSetup) => Some(V::Pending),
            (Self::Verify, V::Pending) => Some(V::Verified),
            (Self::Reject, V::Pending) => Some(V::Rejected),
            (Self::Waitlist, V::InSetup | V::Pending) => Some(V::Waitlisted),
            (Self::Reopen, V::Rejected | V::Waitlisted | V::Pending) => Some(V::InSetup),
            (Self::ReviewAgain, V::Verified) => Some(V::Pending),
            (Self::Block, V::InSetup | V::Pending | V::Waitlisted | V::Verified | V::Rejected) => Some(V::Blocked),
            (Self::Unblock, V::Blocked) => Some(before_block),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verification as V;

    /// The table of the design, column by column: IN_SETUP PENDING WAITLISTED VERIFIED REJECTED BLOCKED INACTIVE
    /// DELETED. `y` allowed, `-` refused, `o` operators only, `v` once verified before, `r` whoever could delete.
    const CAPABILITIES: &[(Capability, &str)] = &[
        (Capability::EditProfile, "yy-yy---"),
        (Capability::SubmitForVerification, "y-------"),
        (Capability::AddMembers, "yy-y----"),
        (Capability::RemoveMembers, "yyyyyyy-"),
        (Capability::AcceptInvitations, "yy-y----"),
        (Capability::CreateResources, "---y----"),
        (Capability::ChangeResources, "-y-yy---"),
        (Capability::UseResources, "-v-y----"),
        (Capability::Leave, "yyyyyyy-"),
        (Capability::Delete, "yyyyyoy-"),
        (Capability::Restore, "-------r"),
    ];
    const VERIFICATIONS: [V; 6] = [V::InSetup, V::Pending, V::Waitlisted, V::Verified, V::Rejected, V::Blocked];

    #[test]
    fn every_capability_in_every_status() {
        assert_eq!(CAPABILITIES.len(), Capability::ALL.len());
        for (capability, row) in CAPABILITIES {
            for (column, expected) in row.chars().enumerate() {
                let lifecycle = [Lifecycle::Inactive, Lifecycle::Deleted].get(column.wrapping_sub(6));
                // The lifecycle's columns win whatever the verification is.
                let verifications =
                    VERIFICATIONS.iter().enumerate().filter(|(i, _)| lifecycle.is_some() || *i == column);
                for (_, verification) in verifications {
                    for flags in 0..8u8 {
                        let (once, by_operator, operator) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
                        let status = Status {
                            verification: *verification,
                            lifecycle: lifecycle.copied().unwrap_or_default(),
                            once_verified: once,
                            deleted_by_operator: by_operator,
                        };
                        let allowed = match expected {
                            'y' => true,
                            'o' => operator,
                            'v' => once,
                            'r' => operator || !by_operator,
                            _ => false,
                        };
                        assert_eq!(
                            status.allows(*capability, operator),
                            allowed,
                            "{capability:?} in {status:?}, operator {operator}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_transition_from_every_status() {
        // Rows as in Review::ALL; columns as above; the letter is the target, `-` no transition.
        let table = [
            (Review::Submit, "P-----"),
            (Review::Verify, "-V----"),
            (Review::Reject, "-R----"),
            (Review::Waitlist, "WW----"),
            (Review::Reopen, "-SS-S-"),
            (Review::ReviewAgain, "---P--"),
            (Review::Block, "BBBBB-"),
            (Review::Unblock, "-----V"),
        ];
        assert_eq!(table.map(|(review, _)| review), Review::ALL);
        for (review, row) in table {
            for (from, letter) in VERIFICATIONS.into_iter().zip(row.chars()) {
                let to = match letter {
                    'S' => Some(V::InSetup),
                    'P' => Some(V::Pending),
                    'W' => Some(V::Waitlisted),
                    'V' => Some(V::Verified),
                    'R' => Some(V::Rejected),
                    'B' => Some(V::Blocked),
                    _ => None,
                };
                assert_eq!(review.leads(from, V::Verified), to, "{review:?} from {from:?}");
            }
        }
        for before in [V::InSetup, V::Pending, V::Waitlisted, V::Verified, V::Rejected] {
            assert_eq!(Review::Unblock.leads(V::Blocked, before), Some(before));
        }
    }

    #[test]
    fn only_owners_see_what_is_blocked_or_deleted() {
        for verification in VERIFICATIONS {
            for lifecycle in [Lifecycle::Active, Lifecycle::Inactive, Lifecycle::Deleted] {
                let status = Status { verification, lifecycle, ..Status::default() };
                let hidden = verification == V::Blocked || lifecycle == Lifecycle::Deleted;
                assert_eq!(status.hidden_from_members(), hidden);
            }
        }
    }
}

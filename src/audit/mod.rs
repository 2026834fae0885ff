//! What lets others check the audit trail.
//!
//! Each organization's events are the leaves of a Merkle tree of its own ([`leaf`], [`merkle`]), in the order of their
//! audit sequence. The tree is made behind the log ([`seal`]), its heads are signed ([`note`]), and whoever has an older
//! head can be shown that a newer one only added to it ([`proofs`]). An [`export`] carries all of that in a [`bundle`],
//! which [`verify`] checks without the service. What an organization was at any point is folded from its events
//! ([`as_of`]); what changed between two points ([`diff`]) and an officer's [`report`] are made of that.

pub mod access;
pub mod adopt;
pub mod as_of;
pub mod bundle;
pub mod check;
pub mod cosignature;
pub mod data;
pub mod diff;
pub mod export;
pub mod heads;
pub mod keys;
pub mod leaf;
pub mod merkle;
pub mod names;
pub mod note;
pub mod ocsf;
pub mod proofs;
pub mod report;
pub mod seal;
pub mod submission;
mod tables;
pub mod trail;
pub mod verify;
pub mod watch;
pub mod witnesses;

#[cfg(test)]
mod tests;

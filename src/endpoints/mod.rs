//! What an endpoint of webhooks is made of: an address that may be connected to, and a secret that signs.
//!
//! The commands that create endpoints and the deliverers that call them share these rules.

mod addresses;
pub mod signature;
mod targets;

pub use targets::Targets;

//! What an endpoint of webhooks is made of: an address that may be connected to, and a secret that signs.
//!
//! The commands that create endpoints and the deliverers that call them share these rules.

mod addresses;
mod answers;
pub mod signature;
mod targets;

pub use answers::forget_answers;
pub use targets::Targets;

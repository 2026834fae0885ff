//! Webhooks: what happens in an organization is pushed to the endpoints that want it, at least once, signed.
//!
//! A projection writes a delivery for each event and endpoint in the transaction that moves its checkpoint, so nothing
//! that was committed can fail to be delivered, and nothing that was not can be. Deliverers on any replica take what is
//! due under a lease, send it and record what came of it.
//!
//! What is always so:
//! - a receiver that hangs, fails, drips or floods costs its own endpoint's few places and nobody else's;
//! - where a connection leads is judged by the address that is connected to, each time one is made;
//! - what is sent is made from the event when it is sent; the queue holds nothing that could be read of a person, but for
//!   what a receiver itself answered;
//! - of one subject's events, where an endpoint wants them in order, only one is due at a time.

pub mod alarms;
pub mod backfill;
pub mod catalog;
mod deliver;
pub mod message;
mod queue;
mod schedule;
mod sender;
pub mod sweep;

pub use deliver::{Deliverer, DeliverySettings};
pub use queue::{Attempt, queue_state};
pub use schedule::Schedule;
pub use sender::{Checkpoints, Letter, Sender};

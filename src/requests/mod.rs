//! What is counted and recorded of requests: rate limits, the last use of each API token, the access trail.
//!
//! Commands count and record here, so nothing in here knows of commands or of how callers are let in.

pub mod rate_limits;
pub mod token_uses;
pub mod trail;

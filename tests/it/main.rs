//! End to end: the service as clients and operators meet it, on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod schema;
#[path = "../server_programs/mod.rs"]
mod server_programs;
mod support;

mod access;
mod access_seals;
mod access_trail;
mod as_of;
mod audit_trail;
mod authorization;
mod bad_input;
mod clients;
mod connections;
mod console;
mod contract;
mod database_roles;
mod erasure;
mod evidence;
mod export;
mod feed;
mod grants;
mod import;
mod introspection;
mod isolation;
mod kept;
mod log;
mod master_key;
mod openid;
mod operate;
mod ownership;
mod people;
mod process;
mod projections;
mod proofs;
mod prune;
mod purge;
mod races;
mod rate_limits;
mod report;
mod secrets;
mod sole;
mod streams;
mod tokens;
mod tour;
mod webhooks;
mod witness;

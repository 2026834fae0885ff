//! Tenancy as a service that can be trusted: organizations, members, invitations, projects and limits on an
//! append-only log in PostgreSQL. See ARCHITECTURE.md.

pub mod access;
pub mod audit;
pub mod cli;
pub mod commands;
pub mod config;
pub mod database;
pub mod demo;
pub mod endpoints;
pub mod erased;
pub mod feed;
pub mod graphql;
pub mod http;
pub mod import;
pub mod log;
pub mod private_file;
pub mod requests;
pub mod service;
pub mod streams;
pub mod webhooks;
pub mod witness;

/// A third of the processor's time of a command went into allocating, with several threads freeing what others made.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

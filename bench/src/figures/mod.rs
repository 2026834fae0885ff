//! The figures, a file for each group.

pub mod audit;
pub mod commands;
pub mod dashboard;
pub mod growth;
pub mod idle;
pub mod lag;
pub mod process;
pub mod rebuild;
pub mod requests;
pub mod scope;
pub mod webhooks;

//! What comes from other systems: a reader without side effects, and what carries it out through the same command
//! path as everything else.

pub mod peribolos;
mod run;

pub use run::{Failed, Options, Summary, import};

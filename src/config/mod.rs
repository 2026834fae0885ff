//! The configuration: one documented struct, filled from four places.
//!
//! What is set later wins: defaults, then the file (TOML; `--config` or `TENANCY_CONFIG` names it), then the
//! environment, then flags. A value's place in the file is its name everywhere, by the two rules in [`Source`]:
//! `limits.depth_max` is `TENANCY_LIMITS__DEPTH_MAX` in the environment and `--limits-depth-max` as a flag. One name
//! stands outside the rule because the whole world uses it: `DATABASE_URL` is `database.url`.
//!
//! Nothing is guessed. A key or variable that nobody knows is an error with the nearest name that exists, because a
//! misspelt limit that is silently ignored is no limit. A value that does not fit is an error that says where it
//! stands and what would fit. An empty variable counts as not set, because that is what composing tools make of an
//! absent one.
//!
//! The keys, their documentation, defaults and limits stand in one table, `settings`; the struct, the report of
//! `tenancy config` and the reference (`config.example.toml`) are made from it.

mod parts;
mod providers;
mod reference;
mod settings;
mod sources;
mod streams;
mod values;
mod witnesses;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use providers::{OrganizationClaim, Provider, Providers};
pub(crate) use providers::{is_loopback as is_loopback_url, web_address};
pub use reference::reference;
pub use settings::{Access, Config, Database, Feed, Http, Limits, Organizations, RateLimits, Secrets, Webhooks};
pub use sources::{Error, Flags, Source, Surroundings};
pub use streams::{AuditStream, AuditStreams, StreamReceiver};
pub use values::{
    DatabaseUrl, FetchUrl, Home, LogFormat, MasterKey, Network, Operator, POSTGRES_RELEASES, Plan, PlanName, Ports,
};

pub use witnesses::{Witness, Witnesses};

use sources::Layers;

/// The limits that a plan may set, with the smallest and largest maximum of each.
pub(crate) fn plan_limits() -> impl Iterator<Item = (&'static str, u64, u64)> {
    aggregates::limits().map(|limit| (limit.name, limit.maximum_min, values::LONG_MAX))
}

/// The configuration in force, and where each value of it comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Every value.
    pub config: Config,
    /// By the value's place in the file, such as `limits.depth_max`.
    pub sources: BTreeMap<String, Source>,
}

/// Reads the configuration of this process.
///
/// # Errors
/// Names the source, the value and what would be right; secrets are not repeated.
pub fn load(flags: &Flags) -> Result<Loaded, Error> {
    load_from(flags, &Surroundings::of_process())
}

/// [`load`] with everything that it depends on besides the file given, for tests and tools.
///
/// # Errors
/// As for [`load`].
pub fn load_from(flags: &Flags, surroundings: &Surroundings) -> Result<Loaded, Error> {
    let mut layers = Layers::read(flags, surroundings)?;
    let mut config = Config::read(&mut layers)?;
    config.plans = layers.plans()?;
    if config.data_dir.as_os_str().is_empty() {
        config.data_dir = surroundings.data_dir()?;
    }
    config.data_dir = absolute(&config.data_dir)?;
    for slug in &mut config.organizations.slug_reserved {
        *slug = slug.to_lowercase();
    }
    let loaded = Loaded { config, sources: layers.sources };
    loaded.check()?;
    Ok(loaded)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::NoDataDir { why: format!("{}: {error}", path.display()) })
}

impl Config {
    /// Whether the service signs tokens itself. Unless that is configured, only where nobody else can reach it: on
    /// loopback and with a database of its own.
    #[must_use]
    pub fn builtin_issuer(&self) -> bool {
        self.access.builtin_issuer.unwrap_or_else(|| self.is_local() && self.database.url.is_none())
    }

    /// Whether only this machine reaches the service.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_loopback(self.listen)
    }

    /// The plan of organizations that nobody gave another.
    #[must_use]
    pub fn default_plan(&self) -> Plan {
        self.plans.get(&self.organizations.default_plan).cloned().unwrap_or_default()
    }
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

impl Loaded {
    /// Where a value comes from; a default for what nobody set.
    #[must_use]
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// The effective configuration as TOML with the source of each value as a comment, secrets hidden.
    #[must_use]
    pub fn report(&self) -> String {
        reference::report(self)
    }

    /// What one value alone cannot tell.
    fn check(&self) -> Result<(), Error> {
        let (organizations, limits) = (&self.config.organizations, &self.config.limits);
        let plans = &self.config.plans;
        if !plans.contains_key(&organizations.default_plan) {
            let names: Vec<&str> = plans.keys().map(PlanName::as_str).collect();
            let right = format!("the name of a plan ({})", names.join(", "));
            return Err(self.wrong("organizations.default_plan", &organizations.default_plan, right));
        }
        if let (Some(owner), None) = (&self.config.database.owner_url, &self.config.database.url) {
            let right = "an address only together with database.url".to_owned();
            return Err(self.wrong("database.owner_url", &owner.without_password(), right));
        }
        let access = &self.config.access;
        // A user is (issuer, subject): two who vouch under one name could make each other's users.
        if access.providers.0.iter().any(|provider| provider.issuer == access.issuer) {
            let right = "providers with other issuers than access.issuer, which is the name of the built-in one";
            return Err(self.wrong("access.providers", &access.issuer, right.to_owned()));
        }
        if organizations.home == Home::Default && organizations.home_organization.is_none() {
            let right = "\"default\" only together with organizations.home_organization";
            return Err(self.wrong("organizations.home", &"default", right.to_owned()));
        }
        if aggregates::roles::is_owner(&[&organizations.home_role]) {
            let right = "a role of that organization, and not the owner's";
            return Err(self.wrong("organizations.home_role", &organizations.home_role, right.to_owned()));
        }
        if let (Some(url), None) = (&self.config.audit.alarm_webhook_url, &self.config.secrets.alarm_webhook_key) {
            let right = "an address only together with secrets.alarm_webhook_key, which signs".to_owned();
            return Err(self.wrong("audit.alarm_webhook_url", url, right));
        }
        self.at_most(
            ("organizations.invitation_hours_default", organizations.invitation_hours_default.into()),
            ("organizations.invitation_hours_max", organizations.invitation_hours_max.into()),
        )?;
        self.at_most(
            ("limits.at_least_wait_ms_max", limits.at_least_wait_ms_max),
            ("limits.request_timeout_ms", limits.request_timeout_ms),
        )?;
        self.at_most(
            ("limits.batch_commands_max", limits.batch_commands_max as u64),
            ("limits.queue_commands_max", limits.queue_commands_max as u64),
        )
    }

    /// Blames the value that somebody set, and the larger one only if the smaller is a default.
    fn at_most(&self, small: (&str, u64), large: (&str, u64)) -> Result<(), Error> {
        if small.1 <= large.1 {
            Ok(())
        } else if self.source(small.0) == Source::Default {
            Err(self.wrong(large.0, &large.1, format!("at least {}, {}", small.0, small.1)))
        } else {
            Err(self.wrong(small.0, &small.1, format!("at most {}, {}", large.0, large.1)))
        }
    }

    fn wrong(&self, key: &str, value: &impl ToString, right: String) -> Error {
        Error::Value { source_of: self.source(key), key: key.to_owned(), value: value.to_string(), right }
    }
}

#[cfg(test)]
mod tests;

//! How often somebody may call.
//!
//! Each quota is a bucket (GCRA): a burst at once, and as much again as its rate allows. There are three kinds of keys,
//! and each is looked at where it is first known for sure:
//! - an **address**, for calls without a valid token: before the body is read. A token is verified before that, because
//!   whoever has a good one must not be shut out by others behind the same address; a bad one counts then.
//! - a **principal**, a user or an API token: when the operation is known and nothing of it has run. A mutation counts once for each field at
//!   its root, so that aliases multiply nothing.
//! - an **organization**: when the caller was seen to be in it. So a stranger can neither use up its quota nor learn of
//!   it. A command counts once, however often it is decided; a query once for each organization that it reads. What a
//!   mutation reads for its answer has been counted with it. Operators do not count: they must get through to an
//!   organization that is flooded, and must not use up what is its own. A user who accepts or declines an invitation
//!   does not count either: they are not in it yet.
//!
//! Every replica counts for itself. Behind a fair balancer N of them let up to N times the quota through, unless
//! `rate_limits.replicas` tells each to give its share only. Counting together would cost a round trip a request.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::Actor;
use aggregates::ids::OrganizationId;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config;

/// How often buckets that are full again are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Whether an operation sends mail to whomever the caller likes: those have a class of their own besides.
pub fn is_inviting(operation: &str) -> bool {
    matches!(operation, "inviteMember" | "resendInvitation")
}

/// Refused: the bucket does not hold as much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many {what}: at most {burst} at once, and as many again in {window} s; try again in {retry_after_seconds} s"
)]
pub struct RateLimited {
    what: &'static str,
    burst: u32,
    window: u64,
    /// After how many seconds there is room again, if nobody else takes it.
    pub retry_after_seconds: u64,
}

/// Whom or what calls are counted by.
trait Key: Hash + Eq + Clone {}

impl Key for IpAddr {}
impl Key for Actor {}
impl Key for OrganizationId {}

/// All quotas of this replica.
pub struct RateLimits<C: Clock = MonotonicClock> {
    address: Option<Bucket<IpAddr, C>>,
    principal: Classes<Actor, C>,
    organization: Classes<OrganizationId, C>,
}

struct Classes<K: Key, C: Clock> {
    read: Option<Bucket<K, C>>,
    write: Option<Bucket<K, C>>,
    invite: Option<Bucket<K, C>>,
}

impl RateLimits {
    /// As configured, by the machine's monotonic clock.
    pub fn new(config: &config::RateLimits) -> Self {
        Self::with_clock(config, &MonotonicClock)
    }

    /// Forgets every minute the buckets that are full again, for ever. So memory holds the keys of about a minute, and
    /// those that have to wait.
    pub async fn run_pruner(&self) {
        loop {
            tokio::time::sleep(PRUNE_EVERY).await;
            self.prune();
        }
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(config: &config::RateLimits, clock: &C) -> Self {
        let c = config;
        let address = ("address", "address", "unauthenticated", "calls without a valid token");
        let principal = [
            ("principal-read", "principal", "read", "queries of this caller"),
            ("principal-write", "principal", "write", "mutations of this caller"),
            ("principal-invite", "principal", "invite", "invitations by this caller"),
        ];
        let organization = [
            ("organization-read", "organization", "read", "queries of this organization"),
            ("organization-write", "organization", "write", "mutations of this organization"),
            ("organization-invite", "organization", "invite", "invitations to this organization"),
        ];
        Self {
            address: bucket(c, clock, address, (c.address_per_minute, c.address_burst)),
            principal: Classes::new(
                c,
                clock,
                principal,
                [
                    (c.principal_read_per_minute, c.principal_read_burst),
                    (c.principal_write_per_minute, c.principal_write_burst),
                    (c.principal_invite_per_minute, c.principal_invite_burst),
                ],
            ),
            organization: Classes::new(
                c,
                clock,
                organization,
                [
                    (c.organization_read_per_minute, c.organization_read_burst),
                    (c.organization_write_per_minute, c.organization_write_burst),
                    (c.organization_invite_per_minute, c.organization_invite_burst),
                ],
            ),
        }
    }

    fn prune(&self) {
        self.address.iter().for_each(Bucket::prune);
        self.principal.each().for_each(Bucket::prune);
        self.organization.each().for_each(Bucket::prune);
    }
}

impl<K: Key, C: Clock + Clone> Classes<K, C> {
    fn new(config: &config::RateLimits, clock: &C, policies: [Policy; 3], rates: [(u32, u32); 3]) -> Self {
        let [read, write, invite] = [0, 1, 2].map(|class| bucket(config, clock, policies[class], rates[class]));
        Self { read, write, invite }
    }

    fn each(&self) -> impl Iterator<Item = &Bucket<K, C>> {
        [&self.read, &self.write, &self.invite].into_iter().flatten()
    }
}

/// What a quota is called: in headers, by scope and class in metrics, and to people.
type Policy = (&'static str, &'static str, &'static str, &'static str);

/// A quota and how much of it each key has left.
struct Bucket<K: Key, C: Clock> {
    policy: Policy,
    /// This replica's share.
    burst: NonZeroU32,
    /// Until one more is given.
    period: Duration,
    limiter: RateLimiter<K, HashMapStateStore<K>, C, StateInformationMiddleware>,
}

/// The share of one replica; `None` where there is no limit.
fn bucket<K: Key, C: Clock + Clone>(
    config: &config::RateLimits,
    clock: &C,
    policy: Policy,
    (per_minute, burst): (u32, u32),
) -> Option<Bucket<K, C>> {
    if !config.enabled {
        return None;
    }
    let period = Duration::from_secs(60).checked_div(per_minute)?.checked_mul(config.replicas)?;
    let burst = NonZeroU32::new(burst.div_ceil(config.replicas)).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(period)?.allow_burst(burst);
    let limiter = RateLimiter::hashmap_with_clock(quota, clock.clone()).with_middleware();
    Some(Bucket { policy, burst, period, limiter })
}

/// What came of taking from a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    policy: &'static str,
    burst: u32,
    /// Seconds in which an empty bucket is full again.
    window: u64,
    left: u32,
    /// Seconds until the bucket is full again, or until a repetition can succeed.
    reset: u64,
}

impl<K: Key, C: Clock> Bucket<K, C> {
    /// Takes `count` from the bucket of `key`, all or nothing.
    fn take(&self, key: &K, count: NonZeroU32) -> (Taken, Result<(), RateLimited>) {
        let window = seconds(self.period * self.burst.get());
        let taken = |left, reset| Taken { policy: self.policy.0, burst: self.burst.get(), window, left, reset };
        let wait = match self.limiter.check_key_n(key, count) {
            Ok(Ok(after)) => {
                let left = after.remaining_burst_capacity();
                let missing = self.burst.get().saturating_sub(left);
                return (taken(left, seconds(self.period * missing)), Ok(()));
            }
            Ok(Err(until)) => seconds(until.wait_time_from(self.limiter.clock().now())),
            // More than there ever is at once. The message says how much that is.
            Err(_) => window,
        };
        let (_, scope, class, what) = self.policy;
        // Never the key: it would be personal, and a label without end.
        metrics::counter!("tenancy_rate_limited_total", "scope" => scope, "class" => class).increment(1);
        let refused = RateLimited { what, burst: self.burst.get(), window, retry_after_seconds: wait };
        (taken(0, wait), Err(refused))
    }

    fn prune(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Whole seconds, rounded up: a client that waits as long as it was told gets through.
fn seconds(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + part).max(1)
}

/// Under what an address is counted: a client with one address of IPv6 has at least the other 2^64 of its network.
pub fn network(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        Some(address) => address,
        // Nobody listens without peers; if there were such calls, they would share one bucket.
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Counts one request, and remembers what came of it for the answer's headers.
pub struct Meter {
    limits: Arc<RateLimits>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// The quota with the least left.
    tightest: Option<Taken>,
    retry_after_seconds: u64,
    by_principal: bool,
    mutates: bool,
    /// Which organizations this query reads, and whether it may.
    read: HashMap<OrganizationId, Result<(), RateLimited>>,
}

impl Meter {
    /// For one request.
    pub fn new(limits: Arc<RateLimits>) -> Self {
        Self { limits, noted: Mutex::default() }
    }

    /// A call without a valid token.
    ///
    /// # Errors
    /// Too many from there.
    pub fn unauthenticated(&self, address: Option<IpAddr>) -> Result<(), RateLimited> {
        self.take(self.limits.address.as_ref(), &network(address), 1)
    }

    /// A query of a user or a token.
    ///
    /// # Errors
    /// Too many.
    pub fn query(&self, principal: &Actor) -> Result<(), RateLimited> {
        self.noted().by_principal = true;
        self.take(self.limits.principal.read.as_ref(), principal, 1)
    }

    /// A mutation of a user or a token, with these fields at its root.
    ///
    /// # Errors
    /// Too many: then none of the fields may be executed.
    pub fn mutation<'a>(
        &self,
        principal: &Actor,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), RateLimited> {
        {
            let mut noted = self.noted();
            (noted.by_principal, noted.mutates) = (true, true);
        }
        let of = &self.limits.principal;
        // The scarcer first: an invitation that is refused for what it is should not use up the other quota.
        self.take(of.invite.as_ref(), principal, fields.clone().filter(|field| is_inviting(field)).count())?;
        self.take(of.write.as_ref(), principal, fields.count())
    }

    /// A command on an organization that the caller is in.
    ///
    /// # Errors
    /// Too many.
    pub fn command_on(&self, organization: &OrganizationId, operation: &str) -> Result<(), RateLimited> {
        let of = &self.limits.organization;
        self.take(of.invite.as_ref(), organization, usize::from(is_inviting(operation)))?;
        self.take(of.write.as_ref(), organization, 1)
    }

    /// This request reads an organization that the caller is in. Counts once.
    ///
    /// # Errors
    /// Too many.
    pub fn read_of(&self, organization: &OrganizationId) -> Result<(), RateLimited> {
        let Some(bucket) = &self.limits.organization.read else { return Ok(()) };
        let mut noted = self.noted();
        if noted.mutates {
            return Ok(());
        }
        if let Some(known) = noted.read.get(organization) {
            return known.clone();
        }
        let (taken, result) = bucket.take(organization, NonZeroU32::MIN);
        noted.note(taken, &result);
        noted.read.insert(organization.clone(), result.clone());
        result
    }

    /// Whether the request was counted for its principal yet.
    pub fn by_principal(&self) -> bool {
        self.noted().by_principal
    }

    /// The values of `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), for the quota with the
    /// least left. It is this replica's share, since that is what the next request is held against.
    pub fn fields(&self) -> Option<(String, String)> {
        let Taken { policy, burst, window, left, reset } = self.noted().tightest?;
        Some((format!("\"{policy}\";q={burst};w={window}"), format!("\"{policy}\";r={left};t={reset}")))
    }

    /// How many seconds to wait, after a refusal.
    pub fn retry_after_seconds(&self) -> u64 {
        self.noted().retry_after_seconds
    }

    fn take<K: Key>(
        &self,
        bucket: Option<&Bucket<K, MonotonicClock>>,
        key: &K,
        count: usize,
    ) -> Result<(), RateLimited> {
        let count = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX));
        let (Some(bucket), Some(count)) = (bucket, count) else { return Ok(()) };
        let (taken, result) = bucket.take(key, count);
        self.noted().note(taken, &result);
        result
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn note(&mut self, taken: Taken, result: &Result<(), RateLimited>) {
        let refused = result.as_ref().err().map_or(0, |refused| refused.retry_after_seconds);
        self.retry_after_seconds = self.retry_after_seconds.max(refused);
        // Of several that have nothing left, the one to wait for longest.
        let tighter = |than: &Taken| (taken.left, u64::MAX - taken.reset) < (than.left, u64::MAX - than.reset);
        if self.tightest.as_ref().is_none_or(tighter) {
            self.tightest = Some(taken);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#![allow(clippy::unwrap_used)]

use governor::clock::FakeRelativeClock;

use super::*;

type Faked = RateLimits<FakeRelativeClock>;

/// Two at once and one a second for addresses and for each class of users; for organizations no limit.
fn config() -> config::RateLimits {
    config::RateLimits {
        address_per_minute: 60,
        address_burst: 2,
        principal_read_per_minute: 60,
        principal_read_burst: 2,
        principal_write_per_minute: 60,
        principal_write_burst: 2,
        principal_invite_per_minute: 60,
        principal_invite_burst: 2,
        organization_read_per_minute: 0,
        organization_write_per_minute: 0,
        organization_invite_per_minute: 0,
        ..config::RateLimits::default()
    }
}

fn limits(config: &config::RateLimits) -> (Faked, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (Faked::with_clock(config, &clock), clock)
}

fn take<K: Key>(bucket: &Option<Bucket<K, FakeRelativeClock>>, key: &K) -> Result<(), u64> {
    take_many(bucket, key, 1)
}

/// Refused: the seconds to wait.
fn take_many<K: Key>(bucket: &Option<Bucket<K, FakeRelativeClock>>, key: &K, count: u32) -> Result<(), u64> {
    let (_, result) = bucket.as_ref().unwrap().take(key, NonZeroU32::new(count).unwrap());
    result.map_err(|refused| refused.retry_after_seconds)
}

fn ip(text: &str) -> IpAddr {
    network(Some(text.parse().unwrap()))
}

#[test]
fn gives_the_burst_and_not_one_more() {
    let (limits, _) = limits(&config());
    let here = ip("192.0.2.1");
    assert_eq!([take(&limits.address, &here), take(&limits.address, &here)], [Ok(()), Ok(())]);
    assert_eq!(take(&limits.address, &here), Err(1));
}

#[test]
fn gives_again_what_time_has_filled_in_and_not_before() {
    let (limits, clock) = limits(&config());
    let here = ip("192.0.2.1");
    assert_eq!(take_many(&limits.address, &here, 2), Ok(()));
    clock.advance(Duration::from_millis(999));
    assert_eq!(take(&limits.address, &here), Err(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(take(&limits.address, &here), Ok(()));
    assert_eq!(take(&limits.address, &here), Err(1));
    clock.advance(Duration::from_secs(3600));
    assert_eq!(take_many(&limits.address, &here, 2), Ok(()));
    assert_eq!(take(&limits.address, &here), Err(1));
}

#[test]
fn several_are_given_together_or_not_at_all() {
    let (limits, clock) = limits(&config());
    let here = ip("192.0.2.1");
    assert_eq!(take(&limits.address, &here), Ok(()));
    assert_eq!(take_many(&limits.address, &here, 2), Err(1));
    assert_eq!(take(&limits.address, &here), Ok(()));
    clock.advance(Duration::from_secs(60));
    // More than there ever is: nothing is taken either.
    assert_eq!(take_many(&limits.address, &here, 3), Err(2));
    assert_eq!(take_many(&limits.address, &here, 2), Ok(()));
}

#[test]
fn keys_and_classes_have_buckets_of_their_own() {
    let (limits, _) = limits(&config());
    let user = || Actor::User(aggregates::ids::Id::random());
    let (ann, bob) = (user(), user());
    let Classes { read, write, invite } = &limits.principal;
    assert_eq!(take_many(read, &ann, 2), Ok(()));
    assert_eq!(take(read, &ann), Err(1));
    assert_eq!([take(read, &bob), take(write, &ann), take(invite, &ann)], [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn nothing_a_minute_is_no_limit_and_switched_off_is_none_at_all() {
    let (some, _) = limits(&config());
    assert_eq!(some.organization.each().count(), 0);
    assert_eq!(some.principal.each().count(), 3);
    let (none, _) = limits(&config::RateLimits { enabled: false, ..config() });
    assert!(none.address.is_none());
    assert_eq!((none.principal.each().count(), none.organization.each().count()), (0, 0));
}

#[test]
fn a_replica_gives_its_share() {
    let shared =
        config::RateLimits { replicas: 3, address_per_minute: 60, address_burst: 9, ..config::RateLimits::default() };
    let (limits, clock) = limits(&shared);
    let here = ip("192.0.2.1");
    assert_eq!(take_many(&limits.address, &here, 3), Ok(()));
    assert_eq!(take(&limits.address, &here), Err(3));
    clock.advance(Duration::from_secs(3));
    assert_eq!(take(&limits.address, &here), Ok(()));
    assert_eq!(take(&limits.address, &here), Err(3));
}

#[test]
fn a_share_is_never_nothing() {
    let (limits, clock) = limits(&config::RateLimits { replicas: 1_000, ..config() });
    let here = ip("192.0.2.1");
    assert_eq!(take(&limits.address, &here), Ok(()));
    assert_eq!(take(&limits.address, &here), Err(1_000));
    clock.advance(Duration::from_secs(1_000));
    assert_eq!(take(&limits.address, &here), Ok(()));
}

#[test]
fn addresses_of_version_6_are_counted_by_64_bits() {
    assert_eq!(ip("2001:db8:1:2:3:4:5:6"), ip("2001:db8:1:2:ffff::1"));
    assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
    assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
    let (limits, _) = limits(&config());
    assert_eq!(take(&limits.address, &ip("2001:db8::1")), Ok(()));
    assert_eq!(take(&limits.address, &ip("2001:db8::2")), Ok(()));
    assert_eq!(take(&limits.address, &ip("2001:db8::3")), Err(1));
}

#[test]
fn forgets_who_has_all_again_and_nobody_else() {
    let (limits, clock) = limits(&config());
    let known = || limits.address.as_ref().unwrap().limiter.len();
    for last in 0..100 {
        assert_eq!(take(&limits.address, &IpAddr::from([192, 0, 2, last])), Ok(()));
    }
    clock.advance(Duration::from_secs(10));
    let here = ip("198.51.100.1");
    assert_eq!(take_many(&limits.address, &here, 2), Ok(()));
    limits.prune();
    assert_eq!(known(), 1);
    assert_eq!(take(&limits.address, &here), Err(1));
}

#[test]
fn says_what_is_left_and_when_it_is_full_again() {
    let (limits, _) = limits(&config());
    let bucket = limits.address.as_ref().unwrap();
    let taken = || bucket.take(&ip("192.0.2.1"), NonZeroU32::MIN).0;
    let expected = |left, reset| Taken { policy: "address", burst: 2, window: 2, left, reset };
    assert_eq!([taken(), taken(), taken()], [expected(1, 1), expected(0, 2), expected(0, 1)]);
}

#[test]
fn the_tightest_quota_is_shown() {
    let quotas = config::RateLimits { principal_write_burst: 9, ..config() };
    let meter = Meter::new(Arc::new(RateLimits::new(&quotas)));
    assert_eq!(meter.fields(), None);
    let user = Actor::User(aggregates::ids::Id::random());
    assert_eq!(meter.mutation(&user, ["createProject", "inviteMember"].into_iter()), Ok(()));
    let (policy, state) = meter.fields().unwrap();
    assert_eq!((policy.as_str(), state.as_str()), ("\"principal-invite\";q=2;w=2", "\"principal-invite\";r=1;t=1"));
    let refused = meter.mutation(&user, ["createProject"; 8].into_iter()).unwrap_err();
    assert_eq!(meter.fields().unwrap().1, "\"principal-write\";r=0;t=1");
    assert_eq!((refused.retry_after_seconds, meter.retry_after_seconds()), (1, 1));
    assert_eq!(
        refused.to_string(),
        "too many mutations of this caller: at most 9 at once, and as many again in 9 s; try again in 1 s"
    );
}

#[test]
fn a_query_counts_once_for_an_organization_and_a_mutation_reads_for_nothing() {
    let quotas = config::RateLimits { organization_read_per_minute: 1, organization_read_burst: 1, ..config() };
    let limits = Arc::new(RateLimits::new(&quotas));
    let (user, organization) = (Actor::User(aggregates::ids::Id::random()), aggregates::ids::Id::random());
    let query = Meter::new(limits.clone());
    query.query(&user).unwrap();
    assert_eq!([query.read_of(&organization), query.read_of(&organization)], [Ok(()), Ok(())]);
    let next = Meter::new(limits.clone());
    assert!(next.read_of(&organization).is_err() && next.read_of(&organization).is_err());
    let mutation = Meter::new(limits);
    mutation.mutation(&user, ["createProject"].into_iter()).unwrap();
    assert_eq!(mutation.read_of(&organization), Ok(()));
}

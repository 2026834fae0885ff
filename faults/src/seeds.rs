//! All randomness of a run follows from one number, so that a run's decisions can be had again.
//!
//! Each client, the injector of faults and each connection of a proxy draws from a stream of its own: what one of
//! them does to the scheduling of the others does not change what they decide. When their decisions meet which state
//! is up to the scheduler, and cannot be reproduced.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The stream of random numbers of `who` in the run of this seed.
pub fn stream(seed: u64, who: &str) -> StdRng {
    // FNV-1a: not for secrets, only to keep the streams apart.
    let label = who
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    StdRng::seed_from_u64(seed ^ label.rotate_left(17))
}

#[cfg(test)]
mod tests {
    use super::stream;
    use rand::Rng;

    #[test]
    fn a_stream_is_its_own_and_repeats_itself() {
        let draw = |seed, who| stream(seed, who).random::<u64>();
        assert_eq!(draw(1, "client 1"), draw(1, "client 1"));
        assert_ne!(draw(1, "client 1"), draw(1, "client 2"));
        assert_ne!(draw(1, "client 1"), draw(2, "client 1"));
    }
}

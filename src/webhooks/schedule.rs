//! When what failed is tried again, and when a receiver is left in peace.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// How much of a pause is left to chance, so that what failed together does not come back together.
const JITTER: f64 = 0.2;
/// The longest that a receiver may ask to be left in peace.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);
/// After so many deliveries that failed one after the other a receiver counts as down: it is asked by one at a time, after a
/// second, two, four and so on.
pub const DOWN_AFTER_FAILURES: i32 = 5;
/// How long a receiver that asks for peace has it, where it does not say for how long.
pub const PEACE: Duration = Duration::from_secs(1);
/// The longest pause of a receiver that is down.
pub const PEACE_MAX: Duration = Duration::from_secs(60);

/// The pauses after each failed attempt; when they are used up, a delivery has failed.
#[derive(Debug, Clone)]
pub struct Schedule(pub Vec<Duration>);

impl Schedule {
    /// How long to wait after the attempt of this number (from 0) failed; `None` when there is no other. `chance` is from
    /// 0 to 1.
    pub fn pause(&self, failed: usize, chance: f64) -> Option<Duration> {
        self.0.get(failed).map(|pause| pause.mul_f64(1.0 - JITTER / 2.0 + JITTER * chance))
    }
}

/// What a `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3), at most a day.
pub fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => RETRY_AFTER_MAX,
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pauses_follow_the_schedule_within_their_jitter() {
        let schedule = Schedule([5, 30, 120].map(Duration::from_secs).to_vec());
        for (failed, seconds) in [(0, 5.0), (1, 30.0), (2, 120.0)] {
            let (least, most) = (schedule.pause(failed, 0.0).unwrap(), schedule.pause(failed, 1.0).unwrap());
            assert_eq!((least.as_secs_f64(), most.as_secs_f64()), (seconds * 0.9, seconds * 1.1));
        }
        assert_eq!(schedule.pause(3, 0.5), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now: DateTime<Utc> = "2026-01-31T12:00:00Z".parse().unwrap();
        let seconds = |text: &str| retry_after(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sat, 31 Jan 2026 12:01:30 GMT"), Some(90));
        assert_eq!(seconds("Sat, 31 Jan 2026 11:00:00 GMT"), Some(0));
        for long in ["999999999", "99999999999999999999999999", "Sun, 31 Jan 2027 12:00:00 GMT"] {
            assert_eq!(seconds(long), Some(86_400), "{long}");
        }
        for nothing in ["", "soon", "-5", "1.5", "2026-01-31T12:00:00Z"] {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
    }
}

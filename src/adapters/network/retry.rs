//! When to retry.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Attempts of a request before it fails.
pub(crate) const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; it doubles from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, and the longest `Retry-After` that is waited for here instead of by the caller.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Bounds of how long a registry may make us wait.
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_hours(1);
/// The wait if a registry that limits requests does not say how long.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// The pause after attempt number `attempt`, counted from 1: doubling, with jitter between half and all of it, so that
/// clients that failed together do not retry together.
pub(crate) fn pause(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// How long `Retry-After` asks to wait, in seconds or as an HTTP date; between a second and an hour.
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        // An HTTP date is one of the forms of RFC 2822.
        let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(until.duration_since(now)).unwrap_or_default()
    };
    Some(wait.clamp(MIN_WAIT, MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn read(text: &str) -> Option<u64> {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().ok()?)]);
        after(&headers, now).map(|wait| wait.as_secs())
    }

    #[rstest]
    #[case::seconds("120", Some(120))]
    #[case::at_least_a_second("0", Some(1))]
    #[case::at_most_an_hour("99999999", Some(3600))]
    #[case::date("Sun, 06 Nov 1994 08:49:37 GMT", Some(37))]
    #[case::date_in_the_past("Sun, 06 Nov 1994 08:00:00 GMT", Some(1))]
    #[case::date_far_away("Sun, 06 Nov 2094 08:00:00 GMT", None)]
    #[case::negative("-1", None)]
    #[case::too_many_digits("99999999999999999999999", None)]
    #[case::nonsense("soon", None)]
    #[case::empty("", None)]
    fn reads_both_forms(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(read(text), seconds);
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        for _ in 0..100 {
            assert!((100..=200).contains(&pause(1).as_millis()));
            assert!((200..=400).contains(&pause(2).as_millis()));
            assert!((1000..=2000).contains(&pause(40).as_millis()));
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_in_bounds(text in "\\PC{0,40}") {
            prop_assert!(read(&text).is_none_or(|seconds| (1..=3600).contains(&seconds)));
        }
    }
}

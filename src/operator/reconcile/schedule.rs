//! When an object is looked at next. Pure.

use std::time::Duration;

use super::outcome::Outcome;
use crate::pipeline::failure::{Classify, Disposition};

/// The first delay after a failure.
pub const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure, unless the interval is shorter.
pub const LAST_RETRY: Duration = Duration::from_mins(5);
/// The part of every delay that chance adds, so that objects made together do not stay together.
const JITTER: f64 = 0.1;
/// How soon an answer that was shared, and may be older than the change that asked for it, is asked again.
pub const RECHECK: Duration = Duration::from_secs(10);

/// How long to wait before the next run. `failures` counts failed runs in a row, this one included; `chance` is between
/// 0 and 1. None: only a change wakes the object.
#[must_use]
pub fn delay(outcome: &Outcome, interval: Duration, failures: u32, recheck: bool, chance: f64) -> Option<Duration> {
    let delay = match outcome {
        Outcome::Suspended => return None,
        Outcome::Success(_) if recheck => RECHECK.min(interval),
        Outcome::Success(_) => interval,
        Outcome::Failure(failure) => match failure.error.disposition() {
            Disposition::Stalled => interval,
            Disposition::Retry => {
                let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
                doubled.min(LAST_RETRY).min(interval)
            }
            // At least this long: the other side asked for it.
            Disposition::WaitFor(wait) => wait,
        },
    };
    Some(delay.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0)))
}

/// How old a shared answer about a tag may be when nothing but the clock asked for it.
#[must_use]
pub fn tolerated_age(interval: Duration) -> Duration {
    (interval / 10).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

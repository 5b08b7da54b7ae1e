//! When an object is looked at next. Pure.

use std::time::Duration;

use super::outcome::Outcome;
use super::status;
use crate::operator::api::PolicyImage;
use crate::pipeline::reason::{Classify, Disposition};

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
            Disposition::Stalled if recheck => RECHECK.min(interval),
            Disposition::Stalled => interval,
            Disposition::Retry => return Some(retry(interval, failures, chance)),
            // At least this long: the other side asked for it.
            Disposition::WaitFor(wait) => wait,
        },
    };
    Some(jittered(delay, chance))
}

/// How long to wait before something that may pass by itself is tried again: a failed step, or a status that could not be
/// written. Doubles with each failure in a row, so that an API server that is down is not hammered by all objects.
#[must_use]
pub fn retry(interval: Duration, failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    jittered(doubled.min(LAST_RETRY).min(interval), chance)
}

fn jittered(delay: Duration, chance: f64) -> Duration {
    delay.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0))
}

/// How old a shared answer about a tag may be when nothing but the clock asked for it.
#[must_use]
pub fn tolerated_age(interval: Duration) -> Duration {
    (interval / 10).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

/// Whether somebody asked for this run: by changing the spec, or by the annotation.
#[must_use]
pub fn changed(object: &PolicyImage) -> bool {
    let status = object.status.as_ref();
    status.and_then(|status| status.observed_generation) != object.metadata.generation
        || status::requested_at(object).is_some_and(|requested| {
            status.and_then(|status| status.last_handled_reconcile_at.as_ref()) != Some(&requested)
        })
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Failure, StepError};
    use super::super::validate::ValidateError;
    use super::*;
    use crate::pipeline::ports::RegistryError;
    use crate::pipeline::resolve::ResolveError;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::sync::Arc;

    const INTERVAL: Duration = Duration::from_mins(5);

    fn failure(error: impl Into<StepError>) -> Outcome {
        Outcome::Failure(Failure::from(error.into()))
    }

    fn registry(error: RegistryError) -> Outcome {
        failure(Arc::new(ResolveError::AskRegistry(error)))
    }

    fn unavailable() -> Outcome {
        registry(RegistryError::Unavailable {
            host: "ghcr.io".into(),
            what: "acme/p:1".into(),
            status: 503,
        })
    }

    #[rstest]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(5, 16)]
    #[case(9, 256)]
    #[case(10, 300)]
    #[case(u32::MAX, 300)]
    fn retries_double_up_to_the_interval(#[case] failures: u32, #[case] seconds: u64) {
        assert_eq!(
            delay(&unavailable(), INTERVAL, failures, false, 0.0),
            Some(Duration::from_secs(seconds))
        );
    }

    #[test]
    fn what_only_a_change_helps_is_looked_at_again_at_the_interval() {
        let outcome = failure(ValidateError::RequireVerification);
        assert_eq!(delay(&outcome, INTERVAL, 1, false, 0.0), Some(INTERVAL));
    }

    #[test]
    fn what_may_have_failed_before_it_was_asked_for_is_looked_at_again_soon() {
        let outcome = failure(ValidateError::RequireVerification);
        assert_eq!(delay(&outcome, INTERVAL, 1, true, 0.0), Some(RECHECK));
    }

    #[test]
    fn a_registry_that_asks_for_time_gets_at_least_that() {
        let wait = Duration::from_hours(1);
        let outcome = registry(RegistryError::RateLimited {
            host: "ghcr.io".into(),
            wait,
        });
        assert_eq!(delay(&outcome, INTERVAL, 1, false, 0.0), Some(wait));
    }

    #[test]
    fn a_suspended_object_sleeps() {
        assert_eq!(delay(&Outcome::Suspended, INTERVAL, 0, false, 0.5), None);
    }

    proptest! {
        #[test]
        fn chance_only_ever_adds_a_tenth(failures in any::<u32>(), chance in any::<f64>()) {
            let exact = delay(&unavailable(), INTERVAL, failures, false, 0.0).unwrap();
            let jittered = delay(&unavailable(), INTERVAL, failures, false, chance).unwrap();
            prop_assert!(jittered >= exact && jittered <= exact.mul_f64(1.11));
        }
    }
}

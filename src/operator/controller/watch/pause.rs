//! How long a watch waits after a failure.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, without jitter.
const LONGEST: Duration = Duration::from_secs(10);

/// A failure that comes this long after the one before resets the backoff.
const FORGIVEN_AFTER: Duration = Duration::from_mins(2);

/// No pause is longer: jitter adds at most a half.
pub(super) const MAXIMUM: Duration = Duration::from_secs(15);

/// Pauses that double while failures follow each other, of one watch alone.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) > FORGIVEN_AFTER) {
            self.failures = 0;
        }
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        (self.failures, self.last) = (self.failures.saturating_add(1), Some(now));
        Some(pause.mul_f64(1.0 + fastrand::f64() / 2.0))
    }
}

impl Backoff for Pause {
    /// Not reset by an event, as the stream would do: one event says only that a list begins, and a list that fails
    /// each time would be requested again as fast as it fails.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_reset_after_a_quiet_time() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = pause.by_ref().take(10).collect();
        assert!(pauses[0] >= FIRST && pauses[0] <= FIRST.mul_f64(1.5), "{pauses:?}");
        assert!(pauses[9] >= LONGEST && pauses[9] <= MAXIMUM, "{pauses:?}");
        tokio::time::advance(FORGIVEN_AFTER + Duration::from_secs(1)).await;
        assert!(pause.next().is_some_and(|pause| pause <= FIRST.mul_f64(1.5)));
    }

    #[test]
    fn an_event_between_two_failures_does_not_shorten_the_pause() {
        let mut pause = Pause::default();
        pause.by_ref().take(8).for_each(drop);
        pause.reset();
        assert!(pause.next().is_some_and(|pause| pause >= LONGEST));
    }
}

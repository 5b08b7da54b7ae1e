//! How long a Lease lasts, and how often it is renewed.

use std::time::Duration;

/// How long a leader leads without renewing, and how often it renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub(super) lease: Duration,
    pub(super) renew_deadline: Duration,
    pub(super) retry: Duration,
}

impl Timing {
    /// Checks that a leader always stops before its Lease ends: `lease` > `renew_deadline` > 1.2 × `retry` > 0.
    ///
    /// `lease` is in whole seconds, because that is what a Lease can say.
    ///
    /// # Errors
    /// [`TimingError`] if the order or the unit is wrong.
    pub fn new(lease: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, TimingError> {
        if lease.subsec_nanos() != 0 || i32::try_from(lease.as_secs()).is_err() {
            return Err(TimingError::NotWholeSeconds { lease });
        }
        // The factor is client-go's: it leaves room for at least one retry before the deadline.
        if lease <= renew_deadline || renew_deadline <= retry.mul_f32(1.2) || retry.is_zero() {
            return Err(TimingError::WrongOrder {
                lease,
                renew_deadline,
                retry,
            });
        }
        Ok(Self {
            lease,
            renew_deadline,
            retry,
        })
    }

    /// No request may use up the whole deadline: after one that hangs, there is time for another.
    pub(super) fn request_timeout(self) -> Duration {
        self.renew_deadline / 2
    }

    /// Between once and 1.2 times the retry period, so that candidates do not retry in step.
    pub(super) fn jittered_retry(self) -> Duration {
        self.retry.mul_f32(1.0 + 0.2 * fastrand::f32())
    }
}

/// What every Kubernetes component uses: 15 s, 10 s, 2 s.
impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why a [`Timing`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A Lease says its duration in whole seconds.
    #[error("the lease duration '{lease:?}' is not a whole number of seconds")]
    NotWholeSeconds {
        /// What was given.
        lease: Duration,
    },
    /// Two leaders at once would be possible.
    #[error(
        "the lease duration '{lease:?}' must be longer than the renew deadline '{renew_deadline:?}', and that longer than 1.2 times the retry period '{retry:?}'"
    )]
    WrongOrder {
        /// The duration of the Lease.
        lease: Duration,
        /// How long the leader tries to renew.
        renew_deadline: Duration,
        /// How long it waits in between.
        retry: Duration,
    },
}

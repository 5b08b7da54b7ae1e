//! The end of the steps of a run, whatever they do.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use crate::operator::metrics::Metrics;
use crate::operator::steps::outcome::StepError;

/// When the steps of a run must have ended.
pub(super) struct Deadline<'a> {
    limit: Duration,
    at: Instant,
    metrics: &'a Metrics,
}

impl<'a> Deadline<'a> {
    /// `limit` from now.
    pub(super) fn of(limit: Duration, metrics: &'a Metrics) -> Self {
        let at = Instant::now() + limit;
        Self { limit, at, metrics }
    }

    /// `work` within the deadline. A panic ends the steps of this run and nothing else, and is reported as their failure.
    ///
    /// # Errors
    /// That of `work`, [`StepError::DeadlineExceeded`] or [`StepError::Panic`].
    pub(super) async fn guard<T, E: From<StepError>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match timeout_at(self.at, self.catch_panic(work)).await {
            Ok(Some(ended)) => ended,
            Ok(None) => Err(StepError::Panic.into()),
            Err(_) => Err(StepError::DeadlineExceeded(self.limit).into()),
        }
    }

    /// `work`, however long it takes; none if it panicked.
    pub(super) async fn catch_panic<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        // Boxed, so that the caller's future stays small.
        let ended = AssertUnwindSafe(Box::pin(work)).catch_unwind().await;
        if ended.is_err() {
            self.metrics.panicked();
        }
        ended.ok()
    }
}

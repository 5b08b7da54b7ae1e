//! Cancellation of long work on threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Polled from time to time by long work on a thread of its own, where dropping a future ends nothing. Clones are one
/// token; a new one is not cancelled.
#[derive(Debug, Clone, Default)]
pub struct CancellationToken(Arc<AtomicBool>);

/// Cancels its token when it is dropped.
#[derive(Debug)]
pub struct DropGuard(CancellationToken);

impl CancellationToken {
    /// Whether the work should stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Cancels the token as soon as the guard is dropped, for whatever reason.
    #[must_use]
    pub fn drop_guard(&self) -> DropGuard {
        DropGuard(self.clone())
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

//! Work that would block a thread of the async runtime: checking signatures, reading archives.

use std::thread::available_parallelism;

use super::fair_semaphore::FairSemaphore;
use crate::domain::access::Tenant;
use crate::domain::cancellation::CancellationToken;

/// Runs as many jobs at one time as there are processors, each on a thread of its own. Tenants that have jobs waiting
/// take turns, so a tenant with a hundred large archives delays the one job of another by the jobs under way and one
/// more.
///
/// A job holds its permit until it really ends, not until its caller stops waiting: a caller that gives up and retries
/// would otherwise have a second job beside the first, and a third. A job that nobody waits for is cancelled.
#[derive(Debug, Clone)]
pub struct BlockingWork {
    permits: FairSemaphore,
}

/// The job did not complete: it panicked, or the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blocking task did not complete")]
pub struct Interrupted;

impl Default for BlockingWork {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }
}

impl BlockingWork {
    /// At most `limit` jobs at one time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            permits: FairSemaphore::new(limit),
        }
    }

    /// Waits until it is the turn of `tenant` and runs `job`, whose token is cancelled when nobody waits for it any more.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub async fn run<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        job: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, Interrupted> {
        let permit = self.permits.acquire(tenant).await;
        let token = CancellationToken::default();
        let _guard = token.drop_guard();
        let job = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job(&token)
        });
        job.await.map_err(|_| Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// How long something that happens may take, and how long something that does not is waited for.
    const SOON: Duration = Duration::from_secs(20);
    const NEVER: Duration = Duration::from_millis(50);

    fn tenant() -> Tenant {
        Tenant::default()
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_cancelled_and_keeps_its_permit_until_it_ends() {
        let work = BlockingWork::new(1);
        let (cancelled, observe_cancelled) = mpsc::channel();
        let (release, wait_for_release) = mpsc::channel::<()>();
        let anyone = tenant();
        let first = work.run(&anyone, move |token| {
            while !token.is_cancelled() {
                std::thread::yield_now();
            }
            cancelled.send(()).unwrap();
            wait_for_release.recv().unwrap();
        });
        assert!(tokio::time::timeout(NEVER, first).await.is_err());
        observe_cancelled.recv_timeout(SOON).unwrap();
        assert!(tokio::time::timeout(NEVER, work.run(&tenant(), |_| ())).await.is_err());
        release.send(()).unwrap();
        let second = tokio::time::timeout(SOON, work.run(&tenant(), CancellationToken::is_cancelled)).await;
        assert_eq!(second.unwrap(), Ok(false));
    }

    #[tokio::test]
    async fn a_panic_releases_the_permit() {
        let work = BlockingWork::new(1);
        let panicked = work.run(&tenant(), |_| panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>(Interrupted));
        assert_eq!(work.run(&tenant(), |_| 1).await, Ok(1));
    }
}

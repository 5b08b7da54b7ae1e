//! Work that would hold up a thread of the runtime: checking signatures, reading archives.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::domain::cancellation::CancellationToken;

/// Runs as many jobs at one time as there are processors, each on a thread of its own.
///
/// A job holds its permit until it really ends, not until somebody stops waiting for it: whoever gives up and asks again
/// would else have a second job beside the first, and a third. A job that nobody waits for is told to stop.
#[derive(Debug, Clone)]
pub struct BlockingWork {
    permits: Arc<Semaphore>,
}

/// The job did not come back: it panicked, or the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread did not come back")]
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
            permits: Arc::new(Semaphore::new(limit)),
        }
    }

    /// Waits for a permit and runs `job`, which is told through its token when nobody waits for it any more.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, Interrupted> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Interrupted)?;
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

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_told_to_stop_and_keeps_its_permit_until_it_has() {
        let work = BlockingWork::new(1);
        let (told, hears) = mpsc::channel();
        let (lets_go, waits) = mpsc::channel::<()>();
        let first = work.run(move |token| {
            while !token.is_cancelled() {
                std::thread::yield_now();
            }
            told.send(()).unwrap();
            waits.recv().unwrap();
        });
        assert!(tokio::time::timeout(NEVER, first).await.is_err());
        hears.recv_timeout(SOON).unwrap();
        assert!(tokio::time::timeout(NEVER, work.run(|_| ())).await.is_err());
        lets_go.send(()).unwrap();
        let second = tokio::time::timeout(SOON, work.run(CancellationToken::is_cancelled)).await;
        assert_eq!(second.unwrap(), Ok(false));
    }

    #[tokio::test]
    async fn a_panic_gives_the_permit_back() {
        let work = BlockingWork::new(1);
        assert_eq!(work.run(|_| panic!("on purpose")).await, Err::<(), _>(Interrupted));
        assert_eq!(work.run(|_| 1).await, Ok(1));
    }
}

//! Work that is done once for all callers that need the same result at about the same time.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;

/// How long a failure is shared after it ended: long enough for objects that were created together, short enough that
/// the next retry notices a recovered registry. It does not count from the start of the work: a failure that took
/// longer than this, because a host hung, would not be shared at all, and every other caller would hang in turn.
pub const FAILURE_SHARED_FOR: Duration = Duration::from_secs(2);

/// Entries that were not requested in this time are dropped.
const IDLE: Duration = Duration::from_hours(24);

/// What an entry takes at least, with its key: small results must not be cached without number.
const ENTRY_BYTES: u32 = 512;

/// The oldest moment from which a failure is still shared.
#[must_use]
pub fn recent() -> Instant {
    let now = Instant::now();
    now.checked_sub(FAILURE_SHARED_FOR).unwrap_or(now)
}

/// An outcome, and when the work for it began and ended.
#[derive(Debug)]
pub struct CachedResult<T, E> {
    /// What came of it.
    pub outcome: Result<T, Arc<E>>,
    /// When the work began: the outcome says nothing about changes after this.
    pub started: Instant,
    /// When the work ended.
    pub ended: Instant,
}

/// Observes cache hits and misses, for metrics.
pub trait CacheObserver: Send + Sync {
    /// A result was requested from a cache; `hit` where no work was done for it.
    fn requested(&self, cache: CacheName, hit: bool);
}

/// A cache, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum CacheName {
    /// Which digest a tag or range resolves to.
    Resolution,
    /// Whether a digest satisfies a trust policy.
    Verification,
    /// Which bundle a digest names.
    Bundle,
    /// Blobs on disk.
    Blob,
}

/// Ignores everything.
impl CacheObserver for () {
    fn requested(&self, _: CacheName, _: bool) {}
}

impl<T, E> CachedResult<T, E> {
    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> CachedResult<U, E> {
        CachedResult {
            outcome: self.outcome.map(change),
            started: self.started,
            ended: self.ended,
        }
    }
}

impl<T: Clone, E> Clone for CachedResult<T, E> {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            started: self.started,
            ended: self.ended,
        }
    }
}

/// A bounded map from keys to results. Of those who request the same key at the same time one does the work and the
/// others wait; when that one is cancelled, another takes over.
pub struct SingleFlight<K, T, E> {
    results: Cache<K, CachedResult<T, E>>,
    observer: Option<(CacheName, Arc<dyn CacheObserver>)>,
}

impl<K, T, E> SingleFlight<K, T, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Caches at most `capacity` results.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::keeping(Cache::builder().max_capacity(capacity).time_to_idle(IDLE).build())
    }

    /// Caches results of at most `capacity` bytes in all, as `weigh` measures successes, none for longer than
    /// `lifetime`: for secrets.
    #[must_use]
    pub fn short_lived(capacity: u64, lifetime: Duration, weigh: impl Fn(&T) -> u32 + Send + Sync + 'static) -> Self {
        let weigher = move |_: &K, result: &CachedResult<T, E>| {
            let bytes = result.outcome.as_ref().map_or(0, &weigh);
            bytes.saturating_add(ENTRY_BYTES)
        };
        let cache = Cache::builder().max_capacity(capacity).weigher(weigher);
        Self::keeping(cache.time_to_live(lifetime).build())
    }

    /// Caches results of at most `capacity` in all, as `weigh` measures successes.
    #[must_use]
    pub fn weighed(capacity: u64, weigh: impl Fn(&T) -> u32 + Send + Sync + 'static) -> Self {
        let weigher = move |_: &K, result: &CachedResult<T, E>| result.outcome.as_ref().map_or(1, &weigh);
        Self::keeping(
            Cache::builder()
                .max_capacity(capacity)
                .weigher(weigher)
                .time_to_idle(IDLE)
                .build(),
        )
    }

    fn keeping(results: Cache<K, CachedResult<T, E>>) -> Self {
        Self {
            results,
            observer: None,
        }
    }

    /// Reports every request to `observer`, under `name`.
    #[must_use]
    pub fn observed(mut self, name: CacheName, observer: Arc<dyn CacheObserver>) -> Self {
        self.observer = Some((name, observer));
        self
    }

    /// A success whose work began no earlier than `not_before`, or a failure that ended no earlier: for what may change
    /// at any time, such as a tag.
    pub async fn get_since(
        &self,
        key: K,
        not_before: Instant,
        work: impl Future<Output = Result<T, E>>,
    ) -> CachedResult<T, E> {
        let outdated = |result: &CachedResult<T, E>| match &result.outcome {
            Ok(_) => result.started < not_before,
            Err(_) => result.ended < not_before,
        };
        self.get(key, work, outdated).await
    }

    /// A success however old it is, or a failure that ended no earlier than `not_before`: for what cannot change once
    /// it is known, such as the content of a digest. A success that is not `usable` any more is computed again.
    ///
    /// # Errors
    /// The error of the work.
    pub async fn get_or_retry(
        &self,
        key: K,
        not_before: Instant,
        usable: impl Fn(&T) -> bool + Send + Sync,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Arc<E>> {
        let outdated = |result: &CachedResult<T, E>| match &result.outcome {
            Ok(value) => !usable(value),
            Err(_) => result.ended < not_before,
        };
        self.get(key, work, outdated).await.outcome
    }

    /// The weight of all cached results.
    #[cfg(test)]
    pub(crate) async fn weight(&self) -> u64 {
        self.results.run_pending_tasks().await;
        self.results.weighted_size()
    }

    async fn get(
        &self,
        key: K,
        work: impl Future<Output = Result<T, E>>,
        mut outdated: impl FnMut(&CachedResult<T, E>) -> bool + Send,
    ) -> CachedResult<T, E> {
        let started_work = async {
            let started = Instant::now();
            CachedResult {
                outcome: work.await.map_err(Arc::new),
                started,
                ended: Instant::now(),
            }
        };
        let entry = self
            .results
            .entry(key)
            .or_insert_with_if(started_work, |result| outdated(result))
            .await;
        if let Some((name, observer)) = &self.observer {
            observer.requested(*name, !entry.is_fresh());
        }
        entry.into_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn shared() -> SingleFlight<&'static str, u32, String> {
        SingleFlight::new(10)
    }

    async fn count(counter: &AtomicU32) -> Result<u32, String> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(counter.fetch_add(1, Ordering::SeqCst) + 1)
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_result() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let now = Instant::now();
        let results = futures::future::join_all((0..50).map(|_| shared.get_since("tag", now, count(&counter)))).await;
        assert!(results.iter().all(|result| result.outcome == Ok(1)));
        assert_eq!(counter.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_result_older_than_required_is_computed_again() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let first = shared.get_since("tag", Instant::now(), count(&counter)).await;
        let second = shared.get_since("tag", first.started, count(&counter)).await;
        let third = shared.get_since("tag", Instant::now(), count(&counter)).await;
        assert_eq!((second.outcome, third.outcome), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn a_success_is_final_and_a_failure_is_not() {
        let shared = shared();
        let get = async |not_before, outcome: Result<u32, &str>| {
            let work = async { outcome.map_err(str::to_owned) };
            shared
                .get_or_retry("digest", not_before, |value| *value != 3, work)
                .await
        };
        assert!(get(Instant::now(), Err("down")).await.is_err());
        assert!(get(recent(), Ok(1)).await.is_err());
        assert_eq!(get(Instant::now(), Ok(2)).await, Ok(2));
        assert_eq!(get(Instant::now(), Err("down")).await, Ok(2));
    }

    #[tokio::test]
    async fn a_failure_that_took_long_is_shared_from_its_end() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let fail = async || {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Err::<u32, _>(counter.fetch_add(1, Ordering::SeqCst).to_string())
        };
        let began = Instant::now();
        assert!(shared.get_since("tag", began, fail()).await.outcome.is_err());
        let during = began + Duration::from_millis(15);
        assert!(shared.get_since("tag", during, fail()).await.outcome.is_err());
        assert!(shared.get_or_retry("tag", during, |_| true, fail()).await.is_err());
        assert_eq!(counter.load(Ordering::SeqCst), 1);
        assert!(shared.get_since("tag", Instant::now(), fail()).await.outcome.is_err());
        assert_eq!(counter.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_success_that_is_not_usable_any_more_is_computed_again() {
        let shared = shared();
        let get = async |usable: bool, value| {
            shared
                .get_or_retry("digest", recent(), |_| usable, async { Ok(value) })
                .await
        };
        assert_eq!(get(true, 1).await, Ok(1));
        assert_eq!(get(false, 2).await, Ok(2));
        assert_eq!(get(true, 3).await, Ok(2));
    }

    #[tokio::test]
    async fn when_the_working_caller_is_cancelled_another_takes_over() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let never = shared.get_since("tag", Instant::now(), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
        let result = shared.get_since("tag", recent(), count(&counter)).await;
        assert_eq!(result.outcome, Ok(1));
    }
}

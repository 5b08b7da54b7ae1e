//! Work that is done once for everyone who wants the same thing at about the same time.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;

/// How long a failure is shared: long enough for objects that were created together, short enough that a mended registry
/// is noticed by the next retry.
pub const FAILURE_SHARED_FOR: Duration = Duration::from_secs(2);

/// Entries that nobody asked for in this time are dropped.
const IDLE: Duration = Duration::from_hours(24);

/// What an answer takes at least, with its key and its place: what is small must not be kept without number.
const ENTRY_BYTES: u32 = 512;

/// The oldest moment from which a failure is still shared.
#[must_use]
pub fn recent() -> Instant {
    let now = Instant::now();
    now.checked_sub(FAILURE_SHARED_FOR).unwrap_or(now)
}

/// An outcome, and when the work for it began.
#[derive(Debug)]
pub struct CachedResult<T, E> {
    /// What came of it.
    pub outcome: Result<T, Arc<E>>,
    /// When the work began: the outcome says nothing about changes after this.
    pub started: Instant,
}

/// Is told how often work was saved, for metrics.
pub trait CacheObserver: Send + Sync {
    /// A cache was asked; `hit` where no work was done for the answer.
    fn requested(&self, cache: CacheName, hit: bool);
}

/// A cache, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum CacheName {
    /// Which digest a tag or range means.
    Resolution,
    /// Whether a digest is signed as asked.
    Verification,
    /// Which bundle a digest names.
    Bundle,
    /// Blobs on disk.
    Blob,
}

/// Tells nobody.
impl CacheObserver for () {
    fn requested(&self, _: CacheName, _: bool) {}
}

impl<T, E> CachedResult<T, E> {
    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> CachedResult<U, E> {
        CachedResult {
            outcome: self.outcome.map(change),
            started: self.started,
        }
    }
}

impl<T: Clone, E> Clone for CachedResult<T, E> {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            started: self.started,
        }
    }
}

/// A bounded map from questions to answers. Of those who ask the same question at the same time one works and the others
/// wait; when that one is cancelled, another takes over.
pub struct SingleFlight<K, T, E> {
    answers: Cache<K, CachedResult<T, E>>,
    observer: Option<(CacheName, Arc<dyn CacheObserver>)>,
}

impl<K, T, E> SingleFlight<K, T, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Keeps at most `capacity` answers.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::keeping(Cache::builder().max_capacity(capacity).time_to_idle(IDLE).build())
    }

    /// Keeps answers of at most `capacity` bytes in all, as `weigh` counts the good ones, none for longer than `kept_for`:
    /// for secrets.
    #[must_use]
    pub fn short_lived(capacity: u64, kept_for: Duration, weigh: impl Fn(&T) -> u32 + Send + Sync + 'static) -> Self {
        let weigher = move |_: &K, answer: &CachedResult<T, E>| {
            let bytes = answer.outcome.as_ref().map_or(0, &weigh);
            bytes.saturating_add(ENTRY_BYTES)
        };
        let cache = Cache::builder().max_capacity(capacity).weigher(weigher);
        Self::keeping(cache.time_to_live(kept_for).build())
    }

    /// Keeps answers of at most `capacity` in all, as `weigh` counts the good ones.
    #[must_use]
    pub fn weighed(capacity: u64, weigh: impl Fn(&T) -> u32 + Send + Sync + 'static) -> Self {
        let weigher = move |_: &K, answer: &CachedResult<T, E>| answer.outcome.as_ref().map_or(1, &weigh);
        Self::keeping(
            Cache::builder()
                .max_capacity(capacity)
                .weigher(weigher)
                .time_to_idle(IDLE)
                .build(),
        )
    }

    fn keeping(answers: Cache<K, CachedResult<T, E>>) -> Self {
        Self {
            answers,
            observer: None,
        }
    }

    /// Tells `observer` about every request, under `name`.
    #[must_use]
    pub fn observed(mut self, name: CacheName, observer: Arc<dyn CacheObserver>) -> Self {
        self.observer = Some((name, observer));
        self
    }

    /// An answer that began no earlier than `not_before`, good or bad: for what may change at any time, such as a tag.
    pub async fn get_since(
        &self,
        key: K,
        not_before: Instant,
        work: impl Future<Output = Result<T, E>>,
    ) -> CachedResult<T, E> {
        self.answer(key, work, |answer| answer.started < not_before).await
    }

    /// A good answer however old it is, or a bad one that began no earlier than `not_before`: for what cannot change once
    /// it is known, such as the content of a digest. A good answer that is not `usable` any more is worked out anew.
    ///
    /// # Errors
    /// Whatever the work came to.
    pub async fn get_or_retry(
        &self,
        key: K,
        not_before: Instant,
        usable: impl Fn(&T) -> bool + Send + Sync,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Arc<E>> {
        let outdated = |answer: &CachedResult<T, E>| match &answer.outcome {
            Ok(value) => !usable(value),
            Err(_) => answer.started < not_before,
        };
        self.answer(key, work, outdated).await.outcome
    }

    /// What the answers that are kept weigh.
    #[cfg(test)]
    pub(crate) async fn weight(&self) -> u64 {
        self.answers.run_pending_tasks().await;
        self.answers.weighted_size()
    }

    async fn answer(
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
            }
        };
        let entry = self
            .answers
            .entry(key)
            .or_insert_with_if(started_work, |answer| outdated(answer))
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
    async fn those_who_ask_at_once_share_one_answer() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let now = Instant::now();
        let answers = futures::future::join_all((0..50).map(|_| shared.get_since("tag", now, count(&counter)))).await;
        assert!(answers.iter().all(|answer| answer.outcome == Ok(1)));
        assert_eq!(counter.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_older_than_asked_for_is_worked_out_anew() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let first = shared.get_since("tag", Instant::now(), count(&counter)).await;
        let second = shared.get_since("tag", first.started, count(&counter)).await;
        let third = shared.get_since("tag", Instant::now(), count(&counter)).await;
        assert_eq!((second.outcome, third.outcome), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn a_good_answer_settles_and_a_bad_one_does_not() {
        let shared = shared();
        let ask = async |not_before, outcome: Result<u32, &str>| {
            let work = async { outcome.map_err(str::to_owned) };
            shared
                .get_or_retry("digest", not_before, |value| *value != 3, work)
                .await
        };
        assert!(ask(Instant::now(), Err("down")).await.is_err());
        assert!(ask(recent(), Ok(1)).await.is_err());
        assert_eq!(ask(Instant::now(), Ok(2)).await, Ok(2));
        assert_eq!(ask(Instant::now(), Err("down")).await, Ok(2));
    }

    #[tokio::test]
    async fn a_good_answer_that_is_of_no_use_any_more_is_worked_out_anew() {
        let shared = shared();
        let ask = async |usable: bool, value| {
            shared
                .get_or_retry("digest", recent(), |_| usable, async { Ok(value) })
                .await
        };
        assert_eq!(ask(true, 1).await, Ok(1));
        assert_eq!(ask(false, 2).await, Ok(2));
        assert_eq!(ask(true, 3).await, Ok(2));
    }

    #[tokio::test]
    async fn when_the_one_who_works_is_cancelled_another_takes_over() {
        let (shared, counter) = (shared(), AtomicU32::new(0));
        let never = shared.get_since("tag", Instant::now(), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
        let answer = shared.get_since("tag", recent(), count(&counter)).await;
        assert_eq!(answer.outcome, Ok(1));
    }
}

//! Work that is done once for all callers that need the same result at about the same time.
//!
//! The work is a task of its own and goes on as long as one caller waits for it. If it were a part of the first caller,
//! tenants with short deadlines, who are first again and again, would cancel a long download for all others.
//!
//! Tenants share successes, and no failures: one may have failed because its own share was used up, or its own probe of a
//! host is under way. Nor does one wait long for the work of another.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use moka::future::Cache;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::domain::access::Tenant;

/// How long a failure is shared after it ended: long enough for objects that were created together, short enough that
/// the next retry notices a recovered registry. It does not count from the start of the work: a failure that took
/// longer than this, because a host hung, would not be shared at all, and every other caller would hang in turn.
pub const FAILURE_SHARED_FOR: Duration = Duration::from_secs(2);

/// How long a tenant waits for work on behalf of another, before it does its own.
const WAIT_FOR_OTHER: Duration = Duration::from_secs(5);

/// Entries that were not requested in this time are dropped.
const IDLE: Duration = Duration::from_hours(24);

/// What an entry takes at least, with its key: small results must not be cached without number.
const ENTRY_BYTES: u32 = 512;

/// What a failure takes, about: its error holds a few names.
const FAILURE_BYTES: u32 = 1024;

/// How old a result may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The work begins after the request for it: for a person who has just repaired something.
    New,
    /// A success whose work began no earlier, or a failure that ended no earlier. Work under way is joined.
    Since(Instant),
}

impl Freshness {
    /// A nearly new result: no failure older than [`FAILURE_SHARED_FOR`].
    #[must_use]
    pub fn recent() -> Self {
        let now = Instant::now();
        Self::Since(now.checked_sub(FAILURE_SHARED_FOR).unwrap_or(now))
    }

    /// The freshness of what has no age of its own, such as a failure: new for a person, recent for everybody else.
    #[must_use]
    pub fn or_recent(self) -> Self {
        match self {
            Self::New => Self::New,
            Self::Since(_) => Self::recent(),
        }
    }

    fn permits(self, moment: Instant) -> bool {
        match self {
            Self::New => false,
            Self::Since(not_before) => moment >= not_before,
        }
    }
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
    /// On whose behalf it was done.
    tenant: Tenant,
}

/// Observes cache hits and misses, for metrics.
pub trait CacheObserver: Send + Sync {
    /// A result was requested from a cache; `hit` if no work was done for it.
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
            tenant: self.tenant,
        }
    }
}

impl<T: Clone, E> Clone for CachedResult<T, E> {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            started: self.started,
            ended: self.ended,
            tenant: self.tenant.clone(),
        }
    }
}

/// A bounded map from keys to results. Those who request the same key at the same time share one piece of work, which is
/// cancelled when none of them waits any more.
pub struct SingleFlight<K: Hash + Eq, T, E> {
    results: Cache<K, CachedResult<T, E>>,
    running: Running<K, T, E>,
    observer: Option<(CacheName, Arc<dyn CacheObserver>)>,
}

/// The newest work under way for each key.
type Running<K, T, E> = Arc<Mutex<HashMap<K, Weak<Work<K, T, E>>>>>;

/// Work under way. Those who wait for it hold it; the last one to give up cancels it.
struct Work<K: Hash + Eq, T, E> {
    key: K,
    running: Running<K, T, E>,
    result: watch::Receiver<Option<CachedResult<T, E>>>,
    task: AbortHandle,
    tenant: Tenant,
}

impl<K: Hash + Eq, T: Clone, E> Work<K, T, E> {
    /// Waits for the result; none if the work panicked.
    async fn result(&self) -> Option<CachedResult<T, E>> {
        let mut result = self.result.clone();
        let result = result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

impl<K: Hash + Eq, T, E> Drop for Work<K, T, E> {
    fn drop(&mut self) {
        self.task.abort();
        let mut running = lock(&self.running);
        // Newer work for the same key may have taken the place.
        if running.get(&self.key).is_some_and(|work| work.strong_count() == 0) {
            running.remove(&self.key);
        }
    }
}

impl<K, T, E> SingleFlight<K, T, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
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
        let weigher = move |_: &K, result: &CachedResult<T, E>| {
            let success = result.outcome.as_ref();
            success.map_or(FAILURE_BYTES, |value| weigh(value).max(ENTRY_BYTES))
        };
        let cache = Cache::builder().max_capacity(capacity).weigher(weigher);
        Self::keeping(cache.time_to_idle(IDLE).build())
    }

    fn keeping(results: Cache<K, CachedResult<T, E>>) -> Self {
        Self {
            results,
            running: Arc::default(),
            observer: None,
        }
    }

    /// Reports every request to `observer`, under `name`.
    #[must_use]
    pub fn observed(mut self, name: CacheName, observer: Arc<dyn CacheObserver>) -> Self {
        self.observer = Some((name, observer));
        self
    }

    /// A result as fresh as required: for what may change at any time, such as a tag.
    pub async fn get_fresh<W>(
        &self,
        key: K,
        tenant: &Tenant,
        freshness: Freshness,
        work: impl FnOnce() -> W,
    ) -> CachedResult<T, E>
    where
        W: Future<Output = Result<T, E>> + Send + 'static,
    {
        let usable = |result: &CachedResult<T, E>| {
            if result.outcome.is_ok() {
                return freshness.permits(result.started);
            }
            let is_own = result.tenant == *tenant;
            is_own && freshness.permits(result.ended) && result.ended.elapsed() <= FAILURE_SHARED_FOR
        };
        self.get(key, tenant, freshness, usable, work).await
    }

    /// A success however old it is, or a failure as fresh as required: for what cannot change once it is known, such as
    /// the content of a digest. A success that is not `usable` any more is computed again.
    ///
    /// # Errors
    /// The error of the work.
    pub async fn get_or_retry<W>(
        &self,
        key: K,
        tenant: &Tenant,
        freshness: Freshness,
        usable: impl Fn(&T) -> bool + Send + Sync,
        work: impl FnOnce() -> W,
    ) -> Result<T, Arc<E>>
    where
        W: Future<Output = Result<T, E>> + Send + 'static,
    {
        let usable = |result: &CachedResult<T, E>| match &result.outcome {
            Ok(value) => usable(value),
            Err(_) => result.tenant == *tenant && freshness.permits(result.ended),
        };
        self.get(key, tenant, freshness, usable, work).await.outcome
    }

    /// The weight of all cached results.
    #[cfg(test)]
    pub(crate) async fn weight(&self) -> u64 {
        self.results.run_pending_tasks().await;
        self.results.weighted_size()
    }

    async fn get<W>(
        &self,
        key: K,
        tenant: &Tenant,
        freshness: Freshness,
        usable: impl Fn(&CachedResult<T, E>) -> bool,
        work: impl FnOnce() -> W,
    ) -> CachedResult<T, E>
    where
        W: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut waited_for_other = false;
        let ((started, task), ended) = loop {
            if let Some(cached) = self.results.get(&key).await.filter(&usable) {
                self.observe(true);
                return cached;
            }
            let joined = {
                let mut running = lock(&self.running);
                let found = running.get(&key).and_then(Weak::upgrade);
                let may_join = |found: &Work<K, T, E>| {
                    let of_other = waited_for_other && found.tenant != *tenant;
                    freshness != Freshness::New && !of_other && !found.task.is_finished()
                };
                match found {
                    Some(found) if may_join(&found) => found,
                    // What has ended is in the cache, and was not fresh enough.
                    found => break (self.start(&mut running, key, tenant, work()), found),
                }
            };
            let result = if joined.tenant == *tenant {
                joined.result().await
            } else {
                waited_for_other = true;
                timeout(WAIT_FOR_OTHER, joined.result()).await.unwrap_or_default()
            };
            if let Some(result) = result.filter(&usable) {
                self.observe(true);
                return result;
            }
            // It began too early, it panicked, and is about to end, or it failed for another tenant, or takes long.
            tokio::task::yield_now().await;
        };
        // Not earlier: the last one to drop it locks the map.
        drop(ended);
        self.observe(false);
        match (started.result().await, task.await) {
            (Some(result), _) => result,
            (None, Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends, and this with it.
            (None, _) => std::future::pending().await,
        }
    }

    /// Starts `work` and makes it the newest for `key`.
    fn start(
        &self,
        running: &mut HashMap<K, Weak<Work<K, T, E>>>,
        key: K,
        tenant: &Tenant,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> (Arc<Work<K, T, E>>, JoinHandle<()>) {
        let (sender, result) = watch::channel(None);
        let (results, of, for_tenant) = (self.results.clone(), key.clone(), tenant.clone());
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let result = CachedResult {
                outcome: work.await.map_err(Arc::new),
                started,
                ended: Instant::now(),
                tenant: for_tenant,
            };
            // Work that began later may have ended earlier, and knows of later changes.
            let replace = |cached: &CachedResult<T, E>| cached.started <= started;
            let newest = std::future::ready(result.clone());
            results.entry(of).or_insert_with_if(newest, replace).await;
            sender.send_replace(Some(result));
        });
        let work = Arc::new(Work {
            key: key.clone(),
            running: Arc::clone(&self.running),
            result,
            task: task.abort_handle(),
            tenant: tenant.clone(),
        });
        running.insert(key, Arc::downgrade(&work));
        (work, task)
    }

    fn observe(&self, hit: bool) {
        if let Some((name, observer)) = &self.observer {
            observer.requested(*name, hit);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The operator's Prometheus metrics.
//!
//! Names and labels are API: users alert on them. Every label value comes from an enum, so that no image, tenant or
//! error text can make the number of series grow; a test holds each family to [`MAX_SERIES`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as MetricsRegistry, Unit};

use crate::adapters::registry::observer::{RequestKind, RequestObserver};
use crate::pipeline::reason::{Disposition, Reason};
use crate::pipeline::single_flight::{CacheName, CacheObserver};
use crate::runtime::process_metrics::ProcessMetrics;

#[cfg(test)]
mod tests;

/// No family has more series than this, buckets counted.
pub const MAX_SERIES: usize = 40;

/// Upper bounds in seconds. A run that finds nothing new takes milliseconds, one that downloads takes seconds, and
/// none takes longer than the default `spec.timeout` of a minute. Seven, so that four results stay in `MAX_SERIES`.
const DURATION_BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// A label set of fixed names and fixed values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// How a run ended: what happens after its failure, if it failed.
const fn result_label(failure: Option<Disposition>) -> &'static str {
    match failure {
        None => "success",
        Some(Disposition::Stalled) => "stalled",
        Some(Disposition::Retry) => "retry",
        Some(Disposition::WaitFor(_)) => "wait",
    }
}

/// What is watched, as metrics and `/readyz` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum WatchedKind {
    /// The objects.
    PolicyImages,
    /// The ConfigMaps that were delivered.
    ConfigMaps,
}

/// A part of a watched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum UnreadablePart {
    /// Its identity.
    Metadata,
    /// The desired state.
    Spec,
    /// The reported state.
    Status,
}

/// The status codes that users look for one by one, and classes for the rest.
const fn code_label(status: Option<u16>) -> &'static str {
    match status {
        None => "error",
        Some(401) => "401",
        Some(404) => "404",
        Some(429) => "429",
        Some(..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..) => "5xx",
    }
}

/// The metrics of one process. Shared by reference counting; every method is cheap and never waits for a scrape.
pub struct Metrics {
    registry: MetricsRegistry,
    reconciles: Family<Labels<1>, Counter>,
    durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    queued: Gauge,
    panics: Counter,
    registry_requests: Family<Labels<2>, Counter>,
    bundle_bytes: Counter,
    cache_requests: Family<Labels<2>, Counter>,
    leader: Gauge,
    policy_images: Family<Labels<1>, Gauge<u64, AtomicU64>>,
    watches_failing: Family<Labels<1>, Gauge<u64, AtomicU64>>,
    unreadable: Family<Labels<2>, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: MetricsRegistry::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            panics: Counter::default(),
            registry_requests: Family::default(),
            bundle_bytes: Counter::default(),
            cache_requests: Family::default(),
            leader: Gauge::default(),
            policy_images: Family::default(),
            watches_failing: Family::default(),
            unreadable: Family::default(),
        };
        metrics.register();
        metrics
    }

    /// The registry adds `_total` and `_info`, the unit and the full stop.
    fn register(&mut self) {
        self.registry.register_collector(Box::new(ProcessMetrics));
        let own = self.registry.sub_registry_with_prefix("policy_operator");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The version of the program", build);
        own.register(
            "reconcile",
            "Runs, by the reason of the Ready condition they ended with",
            self.reconciles.clone(),
        );
        let help = "How long runs took, by result";
        own.register_with_unit("reconcile_duration", help, Unit::Seconds, self.durations.clone());
        own.register("reconciles_in_flight", "Runs under way", self.in_flight.clone());
        own.register("queue_depth", "Objects that wait for a run", self.queued.clone());
        own.register("panics", "Runs that ended in a panic, each a bug", self.panics.clone());
        let help = "Requests to registries, by type and status; the code 'error' means no response";
        own.register("registry_requests", help, self.registry_requests.clone());
        own.register_with_unit(
            "bundle",
            "Blob bytes downloaded",
            Unit::Bytes,
            self.bundle_bytes.clone(),
        );
        own.register(
            "cache_requests",
            "Cache lookups, by cache and result",
            self.cache_requests.clone(),
        );
        own.register("leader", "1 if this replica leads, 0 if it waits", self.leader.clone());
        own.register(
            "policyimages",
            "PolicyImage objects, by readiness",
            self.policy_images.clone(),
        );
        own.register(
            "watches_failing",
            "Watches that have been failing for a minute, by what they watch",
            self.watches_failing.clone(),
        );
        own.register(
            "unreadable_objects",
            "Objects of which a part could not be read, by what was watched and the part",
            self.unreadable.clone(),
        );
    }

    /// Counts one run, and what happens next if it failed.
    pub fn reconciled(&self, reason: Reason, failure: Option<Disposition>, duration: Duration) {
        self.reconciles.get_or_create(&[("reason", reason.as_str())]).inc();
        self.durations
            .get_or_create(&[("result", result_label(failure))])
            .observe(duration.as_secs_f64());
    }

    /// Starts to measure one run.
    pub fn run(self: &Arc<Self>) -> Run {
        self.in_flight.inc();
        Run {
            metrics: Arc::clone(self),
            started: Instant::now(),
            ending: Some((Reason::Internal, Some(Disposition::Retry))),
        }
    }

    /// Sets how many objects wait for a run.
    pub fn waiting(&self, objects: usize) {
        self.queued.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// Counts a run that panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Sets how many objects there are.
    pub fn policy_images(&self, ready: u64, not_ready: u64) {
        self.policy_images.get_or_create(&[("ready", "true")]).set(ready);
        self.policy_images.get_or_create(&[("ready", "false")]).set(not_ready);
    }

    /// Sets how many watches of a kind have been failing for long.
    pub fn watches_failing(&self, kind: WatchedKind, count: u64) {
        self.watches_failing.get_or_create(&[("kind", kind.into())]).set(count);
    }

    /// Counts an object of which a part cannot be read.
    pub fn unreadable(&self, kind: WatchedKind, part: UnreadablePart) {
        let labels = [("kind", kind.into()), ("part", part.into())];
        self.unreadable.get_or_create(&labels).inc();
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// [`fmt::Error`], which a `String` never gives.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl RequestObserver for Metrics {
    fn request(&self, kind: RequestKind, status: Option<u16>) {
        let labels = [("type", kind.into()), ("code", code_label(status))];
        self.registry_requests.get_or_create(&labels).inc();
    }

    fn blob_cache(&self, hit: bool) {
        self.requested(CacheName::Blob, hit);
    }

    fn downloaded(&self, bytes: u64) {
        self.bundle_bytes.inc_by(bytes);
    }
}

impl CacheObserver for Metrics {
    fn requested(&self, cache: CacheName, hit: bool) {
        let labels = [("cache", cache.into()), ("result", if hit { "hit" } else { "miss" })];
        self.cache_requests.get_or_create(&labels).inc();
    }
}

/// A run being measured. It is counted when this is dropped, so every way out of the run is covered: one that sets no
/// outcome (cancelled at the deadline, or a panic) counts as `Internal`.
#[derive(Debug)]
#[must_use = "the run ends when this is dropped"]
pub struct Run {
    metrics: Arc<Metrics>,
    started: Instant,
    /// Reason and disposition; none if the run is not counted.
    ending: Option<(Reason, Option<Disposition>)>,
}

impl Run {
    /// Sets how the run ended, and what happens next if it failed.
    pub fn ended(mut self, reason: Reason, failure: Option<Disposition>) {
        self.ending = Some((reason, failure));
    }

    /// The run is repeated at once, and is no result.
    pub fn repeated(mut self) {
        self.ending = None;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if let Some((reason, failure)) = self.ending {
            self.metrics.reconciled(reason, failure, self.started.elapsed());
        }
    }
}

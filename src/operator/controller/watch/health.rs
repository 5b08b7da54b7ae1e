//! The health of the watches. A replica whose watch fails for long works on what it saw last, and is not ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

use super::pause;
use crate::operator::connect::WATCH_START_LIMIT;
use crate::operator::kube_error::describe;
use crate::operator::metrics::{Metrics, WatchedKind};

/// How long a watch may fail before the replica is not ready any more.
const TOLERATED: Duration = Duration::from_mins(1);

/// A watch that has not failed for this long after a retry counts as established: a watch that starts sends nothing
/// until something happens, and one that does not start fails within this time.
const QUIET: Duration = pause::MAXIMUM
    .saturating_add(WATCH_START_LIMIT)
    .saturating_add(Duration::from_secs(2));

/// The health of all watches of the program. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchHealth(Arc<Mutex<Vec<Watch>>>);

#[derive(Debug)]
struct Watch {
    kind: WatchedKind,
    namespace: Option<String>,
    state: State,
}

impl WatchHealth {
    /// A watch that is about to start.
    pub(super) fn watch(&self, kind: WatchedKind, namespace: Option<String>) -> WatchReporter {
        let mut watches = self.lock();
        watches.push(Watch {
            kind,
            namespace,
            state: State::default(),
        });
        WatchReporter {
            health: self.clone(),
            index: watches.len() - 1,
        }
    }

    /// Which watch has been failing for too long, and why, in a few words for humans.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<String> {
        let now = Instant::now();
        self.lock().iter().find_map(|watch| watch.reason(now))
    }

    /// Sets the gauges.
    pub(crate) fn measure(&self, metrics: &Metrics) {
        let now = Instant::now();
        let watches = self.lock();
        for kind in [WatchedKind::PolicyImages, WatchedKind::ConfigMaps] {
            let failing = watches
                .iter()
                .filter(|watch| watch.kind == kind && watch.state.failing_for(now).is_some());
            metrics.watches_failing(kind, failing.count() as u64);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watch>> {
        // A panic elsewhere leaves the list consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn reason(&self, now: Instant) -> Option<String> {
        let seconds = self.state.failing_for(now)?.as_secs();
        let kind = <&str>::from(self.kind);
        let place = self
            .namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!(" in namespace '{namespace}'"));
        let cause = &self.state.cause;
        Some(format!(
            "the watch of {kind}{place} has been failing for {seconds} s: {cause}"
        ))
    }
}

/// What is known about one watch. Pure, with explicit instants.
#[derive(Debug, Default)]
struct State {
    /// The first failure since it last worked, and the last.
    failures: Option<(Instant, Instant)>,
    /// Whether a list is under way, whose end is an event of its own.
    listing: bool,
    /// What the last failure was.
    cause: String,
}

impl State {
    fn failed(&mut self, now: Instant, cause: String) {
        let first = match self.failures {
            Some((first, _)) if !self.is_established(now) => first,
            _ => now,
        };
        self.failures = Some((first, now));
        self.listing = false;
        self.cause = cause;
    }

    fn works(&mut self) {
        *self = Self::default();
    }

    fn is_established(&self, now: Instant) -> bool {
        !self.listing && self.failures.is_none_or(|(_, last)| now.duration_since(last) > QUIET)
    }

    /// For how long it has been failing, where that is too long.
    fn failing_for(&self, now: Instant) -> Option<Duration> {
        let (first, _) = self.failures.filter(|_| !self.is_established(now))?;
        Some(now.duration_since(first)).filter(|since| *since >= TOLERATED)
    }
}

/// Reports on one watch.
#[derive(Debug)]
pub(super) struct WatchReporter {
    health: WatchHealth,
    index: usize,
}

impl WatchReporter {
    /// Records the health of the watch, and passes its events on.
    pub(super) fn report<K>(&mut self, event: watcher::Result<Event<K>>) -> Option<Event<K>> {
        let mut watches = self.health.lock();
        let watch = watches.get_mut(self.index)?;
        match &event {
            Err(error) => {
                let (kind, namespace, error) = (<&str>::from(watch.kind), watch.namespace.as_deref(), cause(error));
                if is_expired(&event) {
                    tracing::debug!(kind, namespace, error, "a watch expired; listing again");
                } else {
                    tracing::warn!(kind, namespace, error, "a watch failed and is retried");
                }
                watch.state.failed(Instant::now(), error);
            }
            Ok(Event::Init) => watch.state.listing = true,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => watch.state.works(),
            Ok(Event::InitApply(_)) => {}
        }
        event.ok()
    }
}

/// The server no longer has our resource version. It happens to every watch that was idle or disconnected for long.
fn is_expired<K>(event: &watcher::Result<Event<K>>) -> bool {
    matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410)
}

/// One line, without what was received.
fn cause(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("list: {}", describe(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("watch: {}", describe(error))
        }
        watcher::Error::WatchError(status) => {
            format!("watch: {}", describe(&kube::Error::Api(status.clone())))
        }
        watcher::Error::NoResourceVersion => "watch: a response without a resource version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failing(start: Instant, seconds: u32) -> State {
        let mut state = State::default();
        for second in (0..=seconds).step_by(10) {
            state.listing = true;
            state.failed(start + SECOND * second, "503".to_owned());
        }
        state
    }

    #[test]
    fn a_watch_may_fail_for_a_minute() {
        let start = Instant::now();
        assert_eq!(failing(start, 50).failing_for(start + SECOND * 59), None);
        assert_eq!(failing(start, 60).failing_for(start + SECOND * 61), Some(SECOND * 61));
    }

    #[test]
    fn a_complete_list_ends_it_and_the_next_failure_is_the_first() {
        let start = Instant::now();
        let mut state = failing(start, 60);
        state.works();
        assert_eq!(state.failing_for(start + SECOND * 61), None);
        state.failed(start + SECOND * 62, "503".to_owned());
        assert_eq!(state.failing_for(start + SECOND * 80), None);
    }

    #[test]
    fn a_watch_that_was_taken_up_without_an_event_works_but_a_list_must_be_complete() {
        let start = Instant::now();
        let mut state = failing(start, 60);
        let later = start + SECOND * 60 + QUIET + SECOND;
        assert_eq!(state.failing_for(later), None);
        state.listing = true;
        assert!(state.failing_for(later).is_some());
    }

    #[test]
    fn the_reason_names_the_watch_and_the_cause() {
        let start = Instant::now();
        let mut watch = Watch {
            kind: WatchedKind::ConfigMaps,
            namespace: Some("acme".to_owned()),
            state: failing(start, 60),
        };
        let expected = "the watch of configmaps in namespace 'acme' has been failing for 61 s: 503";
        assert_eq!(watch.reason(start + SECOND * 61).as_deref(), Some(expected));
        watch.namespace = None;
        let expected = "the watch of configmaps has been failing for 61 s: 503";
        assert_eq!(watch.reason(start + SECOND * 61).as_deref(), Some(expected));
    }
}

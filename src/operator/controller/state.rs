//! What the operator caches about each object between two runs, and how a run changes it. All of it can be lost: it
//! saves work and never decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::operator::api::Request;
use crate::operator::delivery::config_map::ConfigMapState;
use crate::operator::identity::{NamespacedName, ObjectKey, Uid};
use crate::operator::reconcile::outcome::Outcome;
use crate::operator::status::Written;
use crate::pipeline::reason::Disposition;

/// The first delay after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure, unless the interval is shorter.
const LAST_RETRY: Duration = Duration::from_mins(5);
/// How soon an object is run again that was replaced during a run: the time for its watch to show it.
const CONFLICT_RETRY: Duration = Duration::from_millis(100);
/// The jitter of every delay, as a part of it, so that objects created together do not stay in step.
const JITTER: f64 = 0.1;
/// How soon a tag is resolved again whose shared result may be older than the change that triggered the run.
const REVALIDATION: Duration = Duration::from_secs(10);

/// The state of one object.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectState {
    /// Failed runs since the last good one.
    pub failures: u32,
    /// The next run must not use a resolution of the tag that is older than this.
    pub revalidate_after: Option<Instant>,
    /// What is known of its ConfigMap.
    pub config_map: ConfigMapState,
    /// The previous run; none where its status could not be written, so that the next does not take it for done.
    pub last_run: Option<LastRun>,
}

/// A run that ended and was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastRun {
    /// The request that it handled.
    pub request: Request,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// When the next one is due.
    pub next_due: Instant,
    /// The resource version that writing its status created, where it had to be written.
    pub status_version: Option<u64>,
}

/// All that the next state depends on, beside the previous state.
#[derive(Debug)]
pub(crate) struct EndedRun<'a> {
    /// The request that the run handled.
    pub request: Request,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What became of its status.
    pub written: Written,
    /// The interval of the object.
    pub interval: Duration,
    /// Between 0 and 1.
    pub jitter: f64,
}

/// The state after a run, and how long to wait before the next one. None: only a change wakes the object.
#[must_use]
pub(crate) fn next_state(mut state: ObjectState, run: EndedRun<'_>) -> (ObjectState, Option<Duration>) {
    let failed = matches!(run.outcome, Outcome::Failure(_)) || run.written == Written::Failed;
    state.failures = if failed { state.failures.saturating_add(1) } else { 0 };
    let delay = match run.written {
        Written::Conflict => Some(CONFLICT_RETRY),
        Written::Failed => Some(retry(run.interval, state.failures, run.jitter)),
        Written::Shown(_) | Written::Unneeded => time_until_due(&state, &run),
    };
    let status_version = match run.written {
        Written::Shown(version) => Some(version),
        Written::Unneeded => Some(None),
        Written::Conflict | Written::Failed => None,
    };
    state.last_run = delay.zip(status_version).map(|(delay, status_version)| LastRun {
        request: run.request,
        started: run.started,
        ended: run.ended,
        next_due: run.ended + delay,
        status_version,
    });
    (state, delay)
}

/// How long to wait after a run that was reported.
fn time_until_due(state: &ObjectState, run: &EndedRun<'_>) -> Option<Duration> {
    let answered = match state.revalidate_after {
        Some(_) => REVALIDATION.min(run.interval),
        None => run.interval,
    };
    let delay = match run.outcome {
        Outcome::Suspended => return None,
        Outcome::Success(_) => answered,
        Outcome::Failure(_) => match run.outcome.disposition() {
            Some(Disposition::Retry) => return Some(retry(run.interval, state.failures, run.jitter)),
            // At least this long: the server asked for it.
            Some(Disposition::WaitFor(wait)) => wait,
            Some(Disposition::Stalled) | None => answered,
        },
    };
    Some(jittered(delay, run.jitter))
}

/// How long to wait before a failed step, or a status that could not be written, is retried. Doubles with each failure
/// in a row, so that an API server that is down is not hammered by all objects.
fn retry(interval: Duration, failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    jittered(doubled.min(LAST_RETRY).min(interval), jitter)
}

fn jittered(delay: Duration, jitter: f64) -> Duration {
    delay.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0))
}

/// The states of all objects, and which of them delivered which ConfigMap.
#[derive(Debug, Default)]
pub(crate) struct StateCache(Mutex<States>);

#[derive(Debug, Default)]
struct States {
    objects: HashMap<NamespacedName, Owned>,
    /// Objects by the ConfigMaps that they delivered.
    deliverers: HashMap<NamespacedName, NamespacedName>,
}

/// A state, and the UID of its object.
#[derive(Debug)]
struct Owned {
    uid: Uid,
    state: ObjectState,
}

impl StateCache {
    /// The state of an object; the default if the name now belongs to another UID.
    #[must_use]
    pub(crate) fn get(&self, key: &ObjectKey) -> ObjectState {
        let states = self.lock();
        let found = states.objects.get(&key.object).filter(|owned| owned.uid == key.uid);
        found.map(|owned| owned.state.clone()).unwrap_or_default()
    }

    /// Stores the state of an object.
    pub(crate) fn put(&self, key: &ObjectKey, state: ObjectState) {
        let mut states = self.lock();
        states.forget(&key.object);
        if let Some(applied) = &state.config_map.applied {
            let config_map = key.object.sibling(&applied.name);
            states.deliverers.insert(config_map, key.object.clone());
        }
        let uid = key.uid.clone();
        states.objects.insert(key.object.clone(), Owned { uid, state });
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&self, object: &NamespacedName) {
        self.lock().forget(object);
    }

    /// The object that delivered a ConfigMap, whatever owners the ConfigMap names by now.
    #[must_use]
    pub(crate) fn deliverer(&self, config_map: &NamespacedName) -> Option<NamespacedName> {
        self.lock().deliverers.get(config_map).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        // A panic elsewhere leaves the maps consistent: nothing in a change of them panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    fn forget(&mut self, object: &NamespacedName) {
        let forgotten = self.objects.remove(object);
        if let Some(applied) = forgotten.and_then(|owned| owned.state.config_map.applied) {
            let config_map = object.sibling(&applied.name);
            // Another object may have taken the ConfigMap over.
            if self.deliverers.get(&config_map) == Some(object) {
                self.deliverers.remove(&config_map);
            }
        }
    }
}

#[cfg(test)]
mod tests;

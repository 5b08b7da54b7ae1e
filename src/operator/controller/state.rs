//! What the operator caches about each object between two runs. All of it can be lost: it saves work and never decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::operator::api::ReconcileRequest;
use crate::operator::delivery::config_map::ConfigMapStates;
use crate::operator::identity::{NamespacedName, ObjectKey, Uid};

/// The state of one object.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectState {
    /// Failed runs since the last good one.
    pub failures: u32,
    /// Conflicts with another client since the last run without one.
    pub conflicts: u32,
    /// Restorations in a row: runs because a ConfigMap was changed, since the last run for another reason.
    pub restorations: u32,
    /// The next run must not use a resolution of the tag that is older than this.
    pub revalidate_after: Option<Instant>,
    /// What is known of its ConfigMaps.
    pub config_maps: ConfigMapStates,
    /// The previous run; none where the object is suspended.
    pub last_run: Option<LastRun>,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastRun {
    /// The request that it handled.
    pub request: ReconcileRequest,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// When the next one is due.
    pub next_due: Instant,
    /// Whether its status was written. If not, it is not taken for done.
    pub is_reported: bool,
    /// The resource version that writing its status created, where it had to be written.
    pub status_version: Option<u64>,
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
        for name in state.config_maps.names() {
            let config_map = key.object.sibling(name);
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

    /// Every object that delivered a ConfigMap.
    #[must_use]
    pub(crate) fn deliverers(&self) -> Vec<NamespacedName> {
        self.lock().deliverers.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        // A panic elsewhere leaves the maps consistent: nothing in a change of them panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    fn forget(&mut self, object: &NamespacedName) {
        let forgotten = self.objects.remove(object);
        for name in forgotten.iter().flat_map(|owned| owned.state.config_maps.names()) {
            let config_map = object.sibling(name);
            // Another object may have taken the ConfigMap over.
            if self.deliverers.get(&config_map) == Some(object) {
                self.deliverers.remove(&config_map);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What the operator remembers of each object between two runs. All of it can be lost: it saves work, never decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::hold::LastGood;
use super::observe::LiveConfigMap;
use super::validate::Target;
use crate::domain::trust::TrustPolicy;
use crate::operator::api::status::PolicyImageStatus;

/// The memory of one object.
#[derive(Debug, Clone, Default)]
pub struct ObjectState {
    /// The UID that the rest is about.
    pub uid: String,
    /// Failed runs since the last good one.
    pub failures: u32,
    /// The next run must not use an answer about the tag that is older than this.
    pub recheck: Option<Instant>,
    /// What was delivered last.
    pub delivered: Option<AppliedConfigMap>,
    /// What was delivered last, to be delivered again where somebody removes it.
    pub last_good: Option<LastGood>,
    /// What the last run answered, and when the next is due.
    pub answered: Option<(Request, Instant)>,
}

/// What asks for a run: a change of the spec, or of the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The object's generation.
    pub generation: Option<i64>,
    /// The annotation's value.
    pub requested_at: Option<String>,
}

impl ObjectState {
    /// Where the bundle may be: by status, and where this process put it last, if status could not be written since.
    #[must_use]
    pub fn previous_config_maps(&self, status: Option<&PolicyImageStatus>) -> Vec<String> {
        let told = status.and_then(|status| status.delivery.as_ref());
        let told = told.map(|delivery| delivery.config_map.name.clone());
        told.into_iter()
            .chain(self.delivered.iter().map(|delivered| delivered.name.clone()))
            .collect()
    }

    /// Forgets the last good bundle where it was admitted by another policy than the object has now. Else whoever holds a
    /// key that was taken out could have its bundle put back, by having every later run fail: all that takes is to move
    /// or remove the tag.
    pub fn forget_what_is_not_admitted_by(&mut self, trust: &TrustPolicy) {
        let admitted = |last: &LastGood| {
            trust
                .digest()
                .is_none_or(|now| last.bundle.verification().trust_digest() == Some(now))
        };
        self.last_good = self.last_good.take().filter(admitted);
    }

    /// How long this object can be left alone: nobody asks for anything new, the ConfigMap is as we left it, and the next
    /// run is not due. Most wake-ups are of that kind, because our own writes come back through the watches.
    #[must_use]
    pub fn idle(
        &self,
        request: &Request,
        target: Option<&Target>,
        watched: Option<&ObjectMeta>,
        now: Instant,
    ) -> Option<Duration> {
        let (answered, due) = self.answered.as_ref()?;
        let intact = self.delivered.as_ref().is_none_or(|delivered| {
            target
                .zip(watched)
                .is_some_and(|(target, watched)| delivered.is(target, watched))
        });
        (answered == request && intact)
            .then(|| due.checked_duration_since(now))
            .flatten()
    }
}

/// A ConfigMap as we left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedConfigMap {
    /// Its name.
    pub name: String,
    /// The key we wrote.
    pub key: String,
    /// What it was like.
    pub existing: LiveConfigMap,
}

impl AppliedConfigMap {
    /// What was just left at `target`.
    #[must_use]
    pub fn at(target: &Target, existing: LiveConfigMap) -> Self {
        Self {
            name: target.name.clone(),
            key: target.key.clone(),
            existing,
        }
    }

    /// Whether `watched` is still the version that we left at `target`.
    #[must_use]
    pub fn is(&self, target: &Target, watched: &ObjectMeta) -> bool {
        (&self.name, &self.key) == (&target.name, &target.key)
            && watched.uid.as_ref() == Some(&self.existing.uid)
            && watched.resource_version.as_ref() == Some(&self.existing.resource_version)
    }
}

/// The memories of all objects, by namespace and name.
#[derive(Debug, Default)]
pub struct StateCache(Mutex<HashMap<(String, String), ObjectState>>);

impl StateCache {
    /// What is remembered of an object; nothing if the name now belongs to another UID.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str, uid: &str) -> ObjectState {
        let found = self
            .lock()
            .get(&key(namespace, name))
            .filter(|state| state.uid == uid)
            .cloned();
        found.unwrap_or_else(|| ObjectState {
            uid: uid.to_owned(),
            ..ObjectState::default()
        })
    }

    /// Remembers.
    pub fn keep(&self, namespace: &str, name: &str, state: ObjectState) {
        self.lock().insert(key(namespace, name), state);
    }

    /// Forgets an object that was deleted, unless its name has been taken over by another since.
    pub fn forget(&self, namespace: &str, name: &str, uid: &str) {
        let mut memories = self.lock();
        if memories
            .get(&key(namespace, name))
            .is_some_and(|state| state.uid == uid)
        {
            memories.remove(&key(namespace, name));
        }
    }

    /// Whether a ConfigMap of this version is what we wrote for the object.
    #[must_use]
    pub fn wrote(&self, namespace: &str, name: &str, config_map: &ObjectMeta) -> bool {
        let memories = self.lock();
        let delivered = memories
            .get(&key(namespace, name))
            .and_then(|state| state.delivered.as_ref());
        delivered.is_some_and(|delivered| {
            Some(&delivered.name) == config_map.name.as_ref()
                && config_map.resource_version.as_ref() == Some(&delivered.existing.resource_version)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), ObjectState>> {
        // A panic elsewhere leaves a map that is still whole: each change is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(namespace: &str, name: &str) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests;

//! Holds every version of every ConfigMap against what may be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::task::JoinHandle;

const MANAGER: &str = "policy-operator";

/// What was seen, and what may be seen.
#[derive(Debug, Default)]
struct Seen {
    /// Bundles by the ConfigMap that may hold them.
    good: BTreeMap<String, BTreeSet<Vec<u8>>>,
    versions: u64,
    wrong: Vec<String>,
}

/// Watches the ConfigMaps of one namespace until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(client: Client, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut versions = watcher(api, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .inspect_err(|error| println!("the test's own watch: {error}"))
                .boxed();
            while let Some(version) = versions.next().await {
                if let Ok(version) = version {
                    lock(&shared).see(&version);
                }
            }
        });
        Self { seen, task }
    }

    /// From now on this bundle may be in this ConfigMap. Say so before the tag moves.
    pub(super) fn allow(&self, config_map: &str, bundle: Vec<u8>) {
        let mut seen = lock(&self.seen);
        seen.good.entry(config_map.to_owned()).or_default().insert(bundle);
    }

    /// Fails if anything was seen that may not be.
    pub(super) fn check(&self) {
        let seen = lock(&self.seen);
        assert!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
    }

    pub(super) fn versions(&self) -> u64 {
        lock(&self.seen).versions
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn see(&mut self, version: &ConfigMap) {
        let name = version.name_any();
        let Some(good) = self.good.get(&name) else { return };
        self.versions += 1;
        // The newest writer is the one whose version this is; what the test edits is the operator's to restore. Times
        // are whole seconds: if both wrote within one, it may have been the test.
        let entries = version.managed_fields();
        let newest = entries.iter().filter_map(|entry| entry.time.clone()).max();
        let mut newest = entries.iter().filter(|entry| entry.time == newest);
        if newest.any(|entry| entry.manager.as_deref() != Some(MANAGER)) {
            return;
        }
        let data = version.binary_data.clone().unwrap_or_default();
        let bundle = data.get("bundle.tar.gz").map(|bytes| bytes.0.clone());
        if !bundle.is_some_and(|bundle| good.contains(&bundle)) {
            let keys: Vec<_> = data.keys().collect();
            let version = version.resource_version().unwrap_or_default();
            self.wrong.push(format!(
                "ConfigMap {name} version {version}: no known good bundle, keys {keys:?}"
            ));
        }
    }
}

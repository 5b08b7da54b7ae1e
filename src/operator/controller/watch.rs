//! The watches of a controller: of PolicyImages, and of the ConfigMaps that carry our label.
//!
//! Neither can fail by what it receives: see [`received`](crate::operator::received). Neither can fail because the
//! other does: each backs off by itself after a failure, and emits nothing but events. An object of which a part cannot
//! be read is reported once ([`faults`]); a watch that keeps failing makes the replica unready ([`health`]).

mod faults;
pub(crate) mod health;
mod pause;
mod policy_image;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use self::faults::Faults;
use self::health::{WatchHealth, WatchReporter};
use self::pause::Pause;
use self::policy_image::WatchedPolicyImage;
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::{FIELD_MANAGER, MANAGED_BY_LABEL, REQUESTED_AT_ANNOTATIONS};
use crate::operator::identity::policy_image_owners;
use crate::operator::metrics::{Metrics, WatchedKind};
use crate::operator::received::ConfigMapMetadata;

/// Most objects of one response. An object can hold more than a megabyte, and a response is in memory as a whole, twice.
const PAGE_SIZE: u32 = 25;

/// Most characters of an annotation that are kept: one more than are compared and reported.
const ANNOTATION_LIMIT: usize = 257;

/// What is watched, and where the health of the watches is reported.
#[derive(Clone)]
pub(crate) struct WatchScope {
    /// The API server.
    pub client: Client,
    /// The only namespace, or all.
    pub namespace: Option<String>,
    /// Notified when a watch fails.
    pub health: WatchHealth,
    /// Counts objects that cannot be read.
    pub metrics: Arc<Metrics>,
}

impl WatchScope {
    /// PolicyImages, with the metadata in use. One whose spec cannot be read is included, and marked as such.
    pub(crate) fn policy_images(&self) -> impl Stream<Item = Event<PolicyImage>> + Send + use<> {
        let mut faults = Faults::new(WatchedKind::PolicyImages, Arc::clone(&self.metrics));
        self.events::<WatchedPolicyImage>(Config::default(), WatchedKind::PolicyImages)
            .filter_map(move |event| {
                ready(map(event, |watched, gone| {
                    let WatchedPolicyImage { mut object, fault } = watched;
                    if !faults.note(&object.metadata, fault, gone) {
                        return None;
                    }
                    slim_policy_image(&mut object.metadata);
                    Some(object)
                }))
            })
    }

    /// ConfigMaps that carry our label. One that names no PolicyImage as an owner, whoever labelled it, is reported as
    /// deleted: it need not be stored, and the object that delivered it is still notified.
    pub(crate) fn config_maps(&self) -> impl Stream<Item = Event<ConfigMapMetadata>> + Send + use<> {
        let mut faults = Faults::new(WatchedKind::ConfigMaps, Arc::clone(&self.metrics));
        let selector = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}");
        self.events::<ConfigMapMetadata>(Config::default().labels(&selector), WatchedKind::ConfigMaps)
            .filter_map(move |event| {
                ready(map(event, |mut config_map, gone| {
                    if !faults.note(&config_map.metadata, None, gone) {
                        return None;
                    }
                    slim_config_map(&mut config_map.metadata);
                    Some(config_map)
                }))
            })
            .map(without_foreign)
    }

    /// Events of one watch. Failures are logged and reported, and the watch restarts after a backoff.
    fn events<K>(&self, config: Config, kind: WatchedKind) -> impl Stream<Item = Event<K>> + Send + use<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + 'static,
    {
        let api: Api<K> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut reporter: WatchReporter = self.health.watch(kind, self.namespace.clone());
        let config = config.page_size(PAGE_SIZE);
        restarted_when_expired(move || watcher(api.clone(), config.clone()))
            .backoff(Pause::default())
            .filter_map(move |event| ready(reporter.report(event)))
    }
}

/// The events of a watch that begins anew, with a list, where the API server says that the version to continue from has
/// expired. kube-runtime does so where the server says it within a watch; where that is the response to the request for
/// one, it would ask for the same version for ever.
fn restarted_when_expired<K, S>(start: impl Fn() -> S) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    S: Stream<Item = watcher::Result<Event<K>>>,
{
    let first = Box::pin(start());
    stream::unfold((first, start), |(mut events, start)| async move {
        let event = events.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == 410
        {
            events = Box::pin(start());
        }
        Some((event, (events, start)))
    })
}

/// The event with its object converted by `change`, which receives whether the object is gone; none where it drops it.
fn map<K, L>(event: Event<K>, change: impl FnOnce(K, bool) -> Option<L>) -> Option<Event<L>> {
    match event {
        Event::Apply(object) => change(object, false).map(Event::Apply),
        Event::InitApply(object) => change(object, false).map(Event::InitApply),
        Event::Delete(object) => change(object, true).map(Event::Delete),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

fn without_foreign(event: Event<ConfigMapMetadata>) -> Event<ConfigMapMetadata> {
    match event {
        Event::Apply(found) | Event::InitApply(found) if policy_image_owners(&found.metadata).next().is_none() => {
            Event::Delete(found)
        }
        event => event,
    }
}

/// Annotations can be large, and only those that request a run are used.
fn slim_policy_image(metadata: &mut ObjectMeta) {
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| REQUESTED_AT_ANNOTATIONS.contains(&key.as_str()));
    for value in annotations.values_mut() {
        *value = value.chars().take(ANNOTATION_LIMIT).collect();
    }
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    metadata.labels = None;
    metadata.managed_fields = None;
    metadata.owner_references = None;
}

fn slim_config_map(metadata: &mut ObjectMeta) {
    metadata.annotations = None;
    metadata.labels = None;
    metadata.managed_fields = None;
}

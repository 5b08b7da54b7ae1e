//! Watches, and the loop that turns their events into runs.

pub mod queue;
pub mod runner;

use std::collections::HashMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::api::spec::PolicyImage;
use super::api::{FIELD_MANAGER, GROUP, MANAGED_BY_LABEL};
use super::context::{ConfigMaps, Context};
use super::reconcile::status;
use super::slot::{Slot, Slots};
use super::turn;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::chain;
use queue::{NamespacedName, Priority};
use runner::{Reconciler, SharedQueue};

/// Runs under way for each that may be at work: what waits for a registry needs little but a connection.
const IN_FLIGHT_PER_SLOT: usize = 16;

/// How soon an object is run again whose run panicked before it could say so.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// The two watches of one namespace, or of all, filled by [`run`].
pub struct Watches {
    namespace: Option<String>,
    listed: oneshot::Sender<()>,
    policy_images: (Store<PolicyImage>, reflector::store::Writer<PolicyImage>),
    config_maps: (ConfigMaps, reflector::store::Writer<PartialObjectMeta<ConfigMap>>),
}

/// What the rest of the program sees of the watches.
pub struct View {
    /// Sends when the first list is complete.
    pub listed: oneshot::Receiver<()>,
    /// The objects.
    pub policy_images: Store<PolicyImage>,
}

impl Watches {
    /// Watches of one namespace, or of all.
    #[must_use]
    pub fn new(namespace: Option<String>) -> (Self, View) {
        let (announce, listed) = oneshot::channel();
        let policy_images = reflector::store();
        let view = View {
            listed,
            policy_images: policy_images.0.clone(),
        };
        (
            Self {
                namespace,
                listed: announce,
                policy_images,
                config_maps: reflector::store(),
            },
            view,
        )
    }
}

/// Runs objects until `stop`, then waits for the runs under way. Ends before `stop` only where a watch ended, which is a
/// bug.
pub async fn run<P: Ports>(watches: Vec<Watches>, context: Arc<Context<P>>, stop: impl Future<Output = ()>) {
    let queue = Arc::new(SharedQueue::new(context.concurrency * IN_FLIGHT_PER_SLOT));
    let slots = Slots::new(context.concurrency);
    // Aborted when this ends.
    let mut feeds = JoinSet::new();
    let mut views = Vec::new();
    for watches in watches {
        let (objects, config_maps) = (watches.policy_images.0, watches.config_maps.0);
        let namespace = watches.namespace.as_deref();
        let changes = policy_images(&context, namespace, watches.policy_images.1);
        feeds.spawn(feed_objects(changes, Arc::clone(&context), Arc::clone(&queue), watches.listed));
        let changes = config_map_changes(&context, namespace, watches.config_maps.1);
        feeds.spawn(feed_owners(changes, Arc::clone(&context), Arc::clone(&queue)));
        views.push((objects, config_maps));
    }
    let reconciler = Arc::new(PolicyImages { context, views });
    tokio::select! {
        () = runner::run(&queue, &slots, &reconciler, stop) => {}
        _ = feeds.join_next() => {}
    }
}

/// Runs what the queue hands out.
struct PolicyImages<P> {
    context: Arc<Context<P>>,
    /// What each of the watches shows.
    views: Vec<(Store<PolicyImage>, ConfigMaps)>,
}

impl<P: Ports> Reconciler for PolicyImages<P> {
    async fn reconcile(&self, object: &NamespacedName, slot: Slot) -> Option<Duration> {
        let key = ObjectRef::new(&object.name).within(&object.namespace);
        let mut views = self.views.iter();
        // Not there: deleted by now.
        let (object, config_maps) = views.find_map(|(objects, maps)| Some((objects.get(&key)?, maps)))?;
        turn::take(&object, &self.context, config_maps, slot).await
    }

    fn panicked(&self) -> Duration {
        self.context.metrics.panicked();
        AFTER_PANIC
    }

    fn waiting(&self, objects: usize) {
        self.context.metrics.waiting(objects);
    }
}

/// Adds objects whose trigger changed. Those of a list are added when it is complete: the store shows them from then on.
async fn feed_objects<P>(
    changes: impl Stream<Item = Result<WatchEvent<PolicyImage>, watcher::Error>>,
    context: Arc<Context<P>>,
    queue: Arc<SharedQueue>,
    listed: oneshot::Sender<()>,
) {
    let mut changes = pin!(changes);
    let (mut seen, mut list, mut listed) = (HashMap::new(), HashMap::new(), Some(listed));
    while let Some(event) = changes.next().await {
        match event {
            Err(error) => log_failed_watch(&error),
            Ok(WatchEvent::Init) => list.clear(),
            Ok(WatchEvent::InitApply(object)) => {
                list.insert(named(&object.metadata), trigger_key(&object));
            }
            Ok(WatchEvent::InitDone) => {
                let added = list.iter().filter(|(name, trigger)| seen.get(*name) != Some(*trigger));
                queue.add(added.map(|(name, _)| name.clone()), Priority::Routine);
                seen = std::mem::take(&mut list);
                // Whoever waits for it may be gone by now, on the way out.
                let _ = listed.take().map(|listed| listed.send(()));
            }
            Ok(WatchEvent::Apply(object)) => {
                let (name, trigger) = (named(&object.metadata), trigger_key(&object));
                if seen.insert(name.clone(), trigger) != Some(trigger) {
                    queue.add([name], Priority::Routine);
                }
            }
            Ok(WatchEvent::Delete(object)) => {
                seen.remove(&named(&object.metadata));
                forget(&context, &object);
            }
        }
    }
}

/// Adds the owners of ConfigMaps that somebody else changed or deleted. What we wrote ourselves is passed over.
async fn feed_owners<P>(
    changes: impl Stream<Item = Result<WatchEvent<PartialObjectMeta<ConfigMap>>, watcher::Error>>,
    context: Arc<Context<P>>,
    queue: Arc<SharedQueue>,
) {
    let mut changes = pin!(changes);
    while let Some(event) = changes.next().await {
        let (metadata, priority) = match event {
            Err(error) => {
                log_failed_watch(&error);
                continue;
            }
            Ok(WatchEvent::Init | WatchEvent::InitDone) => continue,
            Ok(WatchEvent::InitApply(object)) => (object.metadata, Priority::Routine),
            Ok(WatchEvent::Apply(object) | WatchEvent::Delete(object)) => (object.metadata, Priority::Restoration),
        };
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let owners = metadata.owner_references.iter().flatten();
        let owners = owners
            .filter(|owner| owner.kind == "PolicyImage" && owner.api_version.split('/').next() == Some(GROUP))
            .filter(|owner| !context.memory.wrote(namespace, &owner.name, &metadata))
            .map(|owner| NamespacedName::new(namespace, &owner.name));
        queue.add(owners, priority);
    }
}

fn log_failed_watch(error: &watcher::Error) {
    tracing::warn!(error = chain(error), "a watch failed and is started again");
}

fn named(metadata: &ObjectMeta) -> NamespacedName {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    NamespacedName::new(namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The same as long as neither the spec nor the annotation that asks for a run changes. Our own status patches change
/// neither.
fn trigger_key(object: &PolicyImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        &object.metadata.uid,
        object.metadata.generation,
        status::requested_at(object),
    )
        .hash(&mut hasher);
    hasher.finish()
}

fn forget<P>(context: &Context<P>, object: &PolicyImage) {
    let namespace = object.namespace().unwrap_or_default();
    context
        .memory
        .forget(&namespace, &object.name_any(), &object.uid().unwrap_or_default());
}

fn policy_images<P>(
    context: &Context<P>,
    namespace: Option<&str>,
    writer: reflector::store::Writer<PolicyImage>,
) -> impl Stream<Item = Result<WatchEvent<PolicyImage>, watcher::Error>> + use<P> {
    watch(api(&context.client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut PolicyImage| object.managed_fields_mut().clear())
        .reflect(writer)
}

fn config_map_changes<P>(
    context: &Context<P>,
    namespace: Option<&str>,
    writer: reflector::store::Writer<PartialObjectMeta<ConfigMap>>,
) -> impl Stream<Item = Result<WatchEvent<PartialObjectMeta<ConfigMap>>, watcher::Error>> + use<P> {
    let selector = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}");
    watch(
        api(&context.client, namespace),
        watcher::Config::default().labels(&selector),
    )
    .default_backoff()
    .modify(|object: &mut PartialObjectMeta<ConfigMap>| object.managed_fields_mut().clear())
    .reflect(writer)
}

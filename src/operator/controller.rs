//! Watches, and the loop that turns their events into runs.

pub mod feed;
pub mod queue;
pub mod runner;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::api::spec::PolicyImage;
use super::api::{FIELD_MANAGER, MANAGED_BY_LABEL};
use super::context::{ConfigMaps, Context};
use super::slot::{Slot, Slots};
use super::turn;
use crate::pipeline::ports::Ports;
use queue::NamespacedName;
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
        let (memory, added) = (Arc::clone(&context), Arc::clone(&queue));
        feeds.spawn(async move {
            feed::objects(changes, &added, watches.listed, |object| forget(&memory, object)).await;
        });
        let changes = config_map_changes(&context, namespace, watches.config_maps.1);
        let (memory, added) = (Arc::clone(&context), Arc::clone(&queue));
        feeds.spawn(async move {
            let wrote = |namespace: &str, name: &str, found: &ObjectMeta| memory.memory.wrote(namespace, name, found);
            feed::owners(changes, &added, wrote).await;
        });
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
        Box::pin(turn::take(&object, &self.context, config_maps, slot)).await
    }

    fn panicked(&self) -> Duration {
        self.context.metrics.panicked();
        AFTER_PANIC
    }

    fn waiting(&self, objects: usize) {
        self.context.metrics.waiting(objects);
    }
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
) -> impl Stream<Item = Result<Event<PolicyImage>, watcher::Error>> + use<P> {
    watch(api(&context.client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut PolicyImage| object.managed_fields_mut().clear())
        .reflect(writer)
}

fn config_map_changes<P>(
    context: &Context<P>,
    namespace: Option<&str>,
    writer: reflector::store::Writer<PartialObjectMeta<ConfigMap>>,
) -> impl Stream<Item = Result<Event<PartialObjectMeta<ConfigMap>>, watcher::Error>> + use<P> {
    let selector = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}");
    watch(
        api(&context.client, namespace),
        watcher::Config::default().labels(&selector),
    )
    .default_backoff()
    .modify(|object: &mut PartialObjectMeta<ConfigMap>| object.managed_fields_mut().clear())
    .reflect(writer)
}

//! Watches, and the loop that turns their events into runs.

pub mod context;
pub mod reconciler;
pub mod state;
pub mod trigger;

use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::oneshot;

use self::context::{ConfigMaps, Context};
use super::api::spec::PolicyImage;
use super::api::{FIELD_MANAGER, MANAGED_BY_LABEL, Request};
use super::identity::ObjectKey;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::chain;

/// The two watches of one controller, filled by [`run`].
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

/// Runs objects until `shutdown`, then waits for the runs under way.
pub async fn run<P: Ports>(
    watches: Watches,
    client: Client,
    context: Arc<Context<P>>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Watches {
        namespace,
        listed,
        policy_images: (store, writer),
        config_maps: (config_maps, config_map_writer),
    } = watches;
    let (forgetful, mut listed) = (Arc::clone(&context), Some(listed));
    let objects = api(&client, namespace.as_deref());
    let triggers = watch(objects, watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut PolicyImage| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect_ok(move |event| match event {
            WatchEvent::Delete(object) => forget(&forgetful, object),
            // Whoever waits for it may be gone by now, on the way out.
            WatchEvent::InitDone => drop(listed.take().map(|listed| listed.send(()))),
            WatchEvent::Apply(_) | WatchEvent::Init | WatchEvent::InitApply(_) => {}
        })
        .applied_objects()
        .predicate_filter(trigger_key, PredicateConfig::default());
    let owned = owned_config_maps(&client, namespace.as_deref(), config_map_writer);
    let reconciler = move |object: Arc<PolicyImage>, context: Arc<Context<P>>| {
        let config_maps = config_maps.clone();
        async move { Ok::<_, Infallible>(reconciler::reconcile(&object, &context, &config_maps).await) }
    };
    Controller::for_stream(triggers, store)
        .owns_stream(owned)
        // No bound here: the slots of the context bound all controllers together, and show who waits.
        .graceful_shutdown_on(shutdown)
        .run(reconciler, |_, _: &Infallible, _| Action::await_change(), context)
        .for_each(async |result| {
            if let Err(error) = result {
                log_trigger(&error);
            }
        })
        .await;
}

/// A trigger for an object that is gone by now is nothing; a watch that fails is.
fn log_trigger<E: std::error::Error + 'static>(error: &kube::runtime::controller::Error<Infallible, E>) {
    if matches!(error, kube::runtime::controller::Error::ObjectNotFound(_)) {
        tracing::debug!(error = chain(error), "the object is gone");
    } else {
        tracing::warn!(error = chain(error), "a watch failed and is started again");
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

/// A change of the spec or of the annotation that asks for a run. Our own status patches change neither.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a predicate")]
fn trigger_key(object: &PolicyImage) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, Request::of(object)).hash(&mut hasher);
    Some(hasher.finish())
}

fn forget<P>(context: &Context<P>, object: &PolicyImage) {
    if let Ok(key) = ObjectKey::of(&object.metadata) {
        context.states.forget(&key);
    }
}

/// ConfigMaps that carry our label. Most events are about what we wrote ourselves; the trigger sees to those.
fn owned_config_maps(
    client: &Client,
    namespace: Option<&str>,
    writer: reflector::store::Writer<PartialObjectMeta<ConfigMap>>,
) -> impl Stream<Item = Result<PartialObjectMeta<ConfigMap>, watcher::Error>> + use<> {
    let api: Api<PartialObjectMeta<ConfigMap>> = api(client, namespace);
    let selector = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}");
    watch(api, watcher::Config::default().labels(&selector))
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
}

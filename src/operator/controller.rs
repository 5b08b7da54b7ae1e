//! The loop that turns the events of the watches into runs.

pub mod watch;

pub mod context;
pub mod reconciler;
pub mod state;
pub mod trigger;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _};
use tokio::sync::oneshot;

use self::context::{ConfigMaps, Context};
use self::state::StateCache;
use self::watch::WatchScope;
use super::api::Request;
use super::api::spec::PolicyImage;
use super::identity::ObjectKey;
use super::received::ConfigMapMetadata;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::chain;

/// The two watches of one controller, filled by [`run`].
pub struct Watches {
    scope: WatchScope,
    listed: oneshot::Sender<()>,
    policy_images: (Store<PolicyImage>, reflector::store::Writer<PolicyImage>),
    config_maps: (ConfigMaps, reflector::store::Writer<ConfigMapMetadata>),
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
    pub fn new(scope: WatchScope) -> (Self, View) {
        let (announce, listed) = oneshot::channel();
        let policy_images = reflector::store();
        let view = View {
            listed,
            policy_images: policy_images.0.clone(),
        };
        (
            Self {
                scope,
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
    context: Arc<Context<P>>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Watches {
        scope,
        listed,
        policy_images: (store, writer),
        config_maps: (config_maps, config_map_writer),
    } = watches;
    let (forgetful, mut listed) = (Arc::clone(&context), Some(listed));
    let triggers = scope
        .policy_images()
        .reflect(writer)
        .inspect_ok(move |event| match event {
            WatchEvent::Delete(object) => forget(&forgetful, object),
            // Whoever waits for it may be gone by now, on the way out.
            WatchEvent::InitDone => drop(listed.take().map(|listed| listed.send(()))),
            WatchEvent::Apply(_) | WatchEvent::Init | WatchEvent::InitApply(_) => {}
        })
        .applied_objects()
        .predicate_filter(trigger_key, PredicateConfig::default());
    let owned = owned_config_maps(&scope, config_map_writer);
    let states = Arc::clone(&context);
    let delivered_by = move |config_map: ConfigMapMetadata| delivered_by(&states.states, config_map.meta());
    let reconciler = move |object: Arc<PolicyImage>, context: Arc<Context<P>>| {
        let config_maps = config_maps.clone();
        async move { Ok::<_, Infallible>(reconciler::reconcile(&object, &context, &config_maps).await) }
    };
    Controller::for_stream(triggers, store)
        .watches_stream(owned, delivered_by)
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

/// The watches log by themselves what goes wrong with them. A trigger for an object that is gone by now is nothing.
fn log_trigger<E: std::error::Error + 'static>(error: &kube::runtime::controller::Error<Infallible, E>) {
    if matches!(error, kube::runtime::controller::Error::ObjectNotFound(_)) {
        tracing::debug!(error = chain(error), "the object is gone");
    } else {
        tracing::warn!(error = chain(error), "a trigger failed");
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

/// The objects that a ConfigMap concerns: the one that delivered to it, and those that it names as owners. Whoever takes
/// the owner reference out must not take it out of sight.
fn delivered_by(states: &StateCache, config_map: &ObjectMeta) -> Vec<ObjectRef<PolicyImage>> {
    let (Some(namespace), Some(name)) = (&config_map.namespace, &config_map.name) else {
        return Vec::new();
    };
    let owners = config_map.owner_references.iter().flatten();
    let owners = owners
        .filter(|owner| owner.kind == "PolicyImage")
        .map(|owner| owner.name.clone());
    let names: BTreeSet<String> = owners.chain(states.delivered_by(namespace, name)).collect();
    names
        .into_iter()
        .map(|name| ObjectRef::new(&name).within(namespace))
        .collect()
}

/// ConfigMaps that carry our label. Most events are about what we wrote ourselves; the trigger sees to those.
fn owned_config_maps(
    scope: &WatchScope,
    writer: reflector::store::Writer<ConfigMapMetadata>,
) -> impl Stream<Item = watcher::Result<ConfigMapMetadata>> + use<> {
    scope.config_maps().reflect(writer).touched_objects()
}

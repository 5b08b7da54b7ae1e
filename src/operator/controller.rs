//! The controller: watches feed a queue, the queue hands out objects, and each run is a task.
//!
//! ```text
//! watch → feed → queue → runner → a slot and a task for each run → reconciler
//!                  ↑                                                   |
//!                  └──────────────── when it is due again ─────────────┘
//! ```

pub(super) mod context;
mod deadline;
pub(super) mod feed;
mod next_state;
pub(super) mod queue;
pub(super) mod reconciler;
pub(super) mod runner;
pub(super) mod state;
pub(super) mod trigger;
pub(super) mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::context::Context;
use self::runner::{Reconciler, SharedQueue};
use self::watch::WatchScope;
use super::api::spec::PolicyImage;
use super::delivery::ConfigMaps;
use super::identity::NamespacedName;
use super::received::ConfigMapMetadata;
use super::slot::{Slot, Slots};
use crate::pipeline::ports::Ports;

/// Runs under way per slot: a run that waits for a registry needs little but a connection.
const IN_FLIGHT_PER_SLOT: usize = 4;

/// How soon an object is run again whose run panicked before it could report it.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// The two watches of one namespace, or of all, filled by [`run`].
pub(super) struct Watches {
    scope: WatchScope,
    listed: oneshot::Sender<()>,
    policy_images: (Store<PolicyImage>, reflector::store::Writer<PolicyImage>),
    config_maps: (ConfigMaps, reflector::store::Writer<ConfigMapMetadata>),
}

/// What the rest of the program sees of the watches.
pub(super) struct View {
    /// Sends when the first list is complete.
    pub listed: oneshot::Receiver<()>,
    /// The objects.
    pub policy_images: Store<PolicyImage>,
}

impl Watches {
    /// Watches of what `scope` says.
    #[must_use]
    pub(super) fn new(scope: WatchScope) -> (Self, View) {
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

/// Runs objects until `stop`, then waits for the runs under way. Ends before `stop` only where a watch ended, which is
/// a bug.
pub(super) async fn run<P: Ports>(watches: Vec<Watches>, context: Arc<Context<P>>, stop: impl Future<Output = ()>) {
    let queue = Arc::new(SharedQueue::new(context.concurrency * IN_FLIGHT_PER_SLOT));
    let slots = Slots::new(context.concurrency);
    // Aborted when this ends.
    let mut feeds = JoinSet::new();
    let mut views = Vec::new();
    for watches in watches {
        let (objects, writer) = watches.policy_images;
        let changes = watches.scope.policy_images().inspect(stored_by(writer));
        let (states, added) = (Arc::clone(&context), Arc::clone(&queue));
        feeds.spawn(async move { feed::objects(changes, &added, watches.listed, &states.states).await });
        let (config_maps, writer) = watches.config_maps;
        let changes = watches.scope.config_maps().inspect(stored_by(writer));
        let (states, added) = (Arc::clone(&context), Arc::clone(&queue));
        feeds.spawn(async move { feed::config_maps(changes, &added, &states.states).await });
        views.push((objects, config_maps));
    }
    let reconciler = Arc::new(PolicyImageReconciler { context, views });
    tokio::select! {
        () = runner::run(&queue, &slots, &reconciler, stop) => {}
        _ = feeds.join_next() => {}
    }
}

/// Stores what an event shows, before it is passed on.
fn stored_by<K>(mut writer: reflector::store::Writer<K>) -> impl FnMut(&Event<K>)
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    move |event| writer.apply_watcher_event(event)
}

/// Runs what the queue hands out.
struct PolicyImageReconciler<P> {
    context: Arc<Context<P>>,
    /// What each of the watches shows.
    views: Vec<(Store<PolicyImage>, ConfigMaps)>,
}

impl<P: Ports> Reconciler for PolicyImageReconciler<P> {
    async fn reconcile(&self, object: &NamespacedName, slot: Slot) -> Option<Duration> {
        let key = ObjectRef::new(&object.name).within(object.namespace.as_str());
        let mut views = self.views.iter();
        // Not in the store: deleted by now.
        let (found, objects, config_maps) =
            views.find_map(|(objects, maps)| Some((objects.get(&key)?, objects, maps)))?;
        let next = Box::pin(reconciler::reconcile(&found, &self.context, objects, config_maps, slot)).await;
        if objects.get(&key).is_none() {
            // Deleted during the run, which then stored its state once more.
            self.context.states.forget(object);
            return None;
        }
        next
    }

    fn panicked(&self) -> Duration {
        self.context.metrics.panicked();
        AFTER_PANIC
    }

    fn waiting(&self, objects: usize) {
        self.context.metrics.waiting(objects);
    }
}

#[cfg(test)]
mod tests;

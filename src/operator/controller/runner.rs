//! The loop from the queue to the runs.
//!
//! kube-runtime's `Controller` keeps all runs under way in one task and polls every one of them whenever any of them
//! wakes, so the price of an object grows with the number of objects. Here a run is a task of its own, only runs that
//! were given a slot are tasks, and what waits is an entry of [`WorkQueue`].
//!
//! Two bounds, because waiting for a registry and working cost different things: [`WorkQueue`] bounds the runs under
//! way and shares them between namespaces, [`Slots`] bounds those at work. A run starts with a slot and gives it back
//! while it waits for the network. The loop takes one object from the queue and then waits for its slot, so that new
//! runs do not pile up in front of those that are ready to continue.
//!
//! Knows nothing of Kubernetes: [`Reconciler`] does.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::queue::{Priority, WorkQueue};
use crate::operator::identity::NamespacedName;
use crate::operator::slot::{Slot, Slots};

/// Runs objects.
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// Runs an object once, and returns how soon it is due again; none where only a change wakes it.
    fn reconcile(&self, object: &NamespacedName, slot: Slot) -> impl Future<Output = Option<Duration>> + Send;

    /// A run panicked: how soon the object is run again.
    fn panicked(&self) -> Duration;

    /// Reports how many objects wait for their turn.
    fn waiting(&self, objects: usize);
}

/// A queue with many producers and one consumer.
#[derive(Debug)]
pub(crate) struct SharedQueue {
    queue: Mutex<WorkQueue>,
    changed: Notify,
}

impl SharedQueue {
    /// A queue that lets at most `capacity` runs be under way.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::new(WorkQueue::new(capacity)),
            changed: Notify::new(),
        }
    }

    /// Requests runs as soon as it is the objects' turn.
    pub(crate) fn add(&self, objects: impl IntoIterator<Item = NamespacedName>, priority: Priority) {
        let mut queue = self.lock();
        for object in objects {
            queue.add(object, priority);
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn done(&self, object: NamespacedName, next: Option<Duration>) {
        self.lock().done(object, next.map(|delay| Instant::now() + delay));
        self.changed.notify_one();
    }

    /// Waits until a run may start. `observe` receives how many objects wait, whenever that may have changed.
    async fn next(&self, observe: impl Fn(usize)) -> NamespacedName {
        loop {
            let (object, due) = {
                let mut queue = self.lock();
                let object = queue.next(Instant::now());
                observe(queue.waiting());
                (object, queue.next_due())
            };
            match (object, due) {
                (Some(object), _) => return object,
                // Either way the queue is checked again.
                (None, Some(due)) => drop(tokio::time::timeout_at(due, self.changed.notified()).await),
                (None, None) => self.changed.notified().await,
            }
        }
    }

    /// Takes all that may start, for tests.
    #[cfg(test)]
    pub(super) fn drain(&self) -> Vec<String> {
        let mut queue = self.lock();
        let mut names = Vec::new();
        while let Some(object) = queue.next(Instant::now()) {
            names.push(format!("{}/{}", object.namespace, object.name));
            queue.done(object, None);
        }
        names
    }

    fn lock(&self) -> MutexGuard<'_, WorkQueue> {
        // Nothing panics between two changes that belong together.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs objects until `stop`, then waits for the runs under way. Where this is dropped, they end at once.
pub(crate) async fn run<R: Reconciler>(
    queue: &Arc<SharedQueue>,
    slots: &Slots,
    reconciler: &Arc<R>,
    stop: impl Future<Output = ()>,
) {
    let mut runs = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let start = async {
            let object = queue.next(|waiting| reconciler.waiting(waiting)).await;
            let slot = slots.take(object.namespace.as_str().into()).await;
            (object, slot)
        };
        let (object, slot) = tokio::select! {
            () = &mut stop => break,
            started = start => started,
        };
        runs.spawn(run_task(Arc::clone(queue), Arc::clone(reconciler), object, slot));
        while runs.try_join_next().is_some() {}
    }
    while runs.join_next().await.is_some() {}
}

/// The task of one run. A panic ends it and nothing else: without the entry in the queue that follows, the object would
/// never be run again. Panics inside the steps are caught earlier, and status reports them.
async fn run_task<R: Reconciler>(queue: Arc<SharedQueue>, reconciler: Arc<R>, object: NamespacedName, slot: Slot) {
    let run = AssertUnwindSafe(reconciler.reconcile(&object, slot)).catch_unwind();
    let next = run.await.unwrap_or_else(|_| Some(reconciler.panicked()));
    queue.done(object, next);
}

#[cfg(test)]
mod tests;

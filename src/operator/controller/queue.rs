//! Whose run is next: a work queue that shares its capacity between namespaces.
//!
//! Like client-go's work queues it holds an object once, however often it is added; an object added while it runs is
//! run once more afterwards; and an object whose next run is due later waits for it here. What client-go's do not have:
//!
//! * Namespaces with work take turns, so ten thousand objects of one do not go before one object of another.
//! * A namespace may have as many runs under way as there is capacity left free. Alone it gets half; of `n` busy ones
//!   each gets one part in `n + 1`, and as much stays free for the next namespace. Hosts that hang thus use up the
//!   share of their own namespace, and no namespace can take all capacity.
//! * A namespace with no run under way may start one even if the capacity is used up: forty namespaces with one object
//!   each on a dead host must not stop the forty-first. [`OVERFLOW`] bounds these.
//! * A [`Priority::Restoration`] goes before the rest of its namespace and may use twice that share, so a ConfigMap is
//!   restored while all other runs of its namespace hang.
//!
//! The share is the dynamic threshold by which switches divide a shared buffer (Choudhury and Hahne, 1998). An object
//! that waits costs two small entries and its name. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use crate::operator::identity::{Namespace, NamespacedName};

/// Most runs beyond the capacity, each the only one of its namespace when it started. Nearly all of them wait for a
/// registry, and cost a connection and some ten KiB.
const OVERFLOW: usize = 512;

/// Which of a namespace's objects goes first. The order of the variants is the order of the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// What was delivered was changed or deleted by another client.
    Restoration,
    /// Everything else.
    Routine,
}

/// Where an object stands in its namespace: by priority, then by order of arrival.
type Place = (Priority, u64);

/// What an object is waiting for.
#[derive(Debug)]
enum State {
    /// Its time.
    Delayed(Instant),
    /// Its turn.
    Ready(Place),
    /// The end of its run; then another where it was added meanwhile.
    Running(Option<Priority>),
}

/// A namespace with something ready or under way.
#[derive(Debug, Default)]
struct NamespaceQueue {
    ready: BTreeMap<Place, NamespacedName>,
    in_flight: usize,
}

impl NamespaceQueue {
    /// The object whose turn it is, if the namespace may have one more run under way while `free` others could start, and
    /// `overflow` more that are the only ones of their namespaces.
    fn take(&mut self, free: usize, overflow: usize) -> Option<NamespacedName> {
        let first = self.ready.first_entry()?;
        let share = match first.key().0 {
            Priority::Restoration => free.saturating_mul(2),
            Priority::Routine => free,
        };
        let may_start = self.in_flight < share || (self.in_flight == 0 && overflow > 0);
        may_start.then(|| first.remove())
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct WorkQueue {
    capacity: usize,
    in_flight: usize,
    waiting: usize,
    arrivals: u64,
    objects: HashMap<NamespacedName, State>,
    delayed: BTreeSet<(Instant, NamespacedName)>,
    namespaces: HashMap<Namespace, NamespaceQueue>,
    /// The namespaces that have something ready, each once.
    turns: VecDeque<Namespace>,
}

impl WorkQueue {
    /// A queue that lets `capacity` runs be under way, and one of each further namespace.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            in_flight: 0,
            waiting: 0,
            arrivals: 0,
            objects: HashMap::new(),
            delayed: BTreeSet::new(),
            namespaces: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Objects that wait for their turn.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests a run as soon as it is the object's turn.
    pub(crate) fn add(&mut self, object: NamespacedName, priority: Priority) {
        match self.objects.get_mut(&object) {
            Some(State::Running(again)) => *again = Some(again.map_or(priority, |before| before.min(priority))),
            Some(State::Ready((before, _))) if *before <= priority => {}
            Some(State::Ready((before, arrival))) => {
                let (old, new) = ((*before, *arrival), (priority, *arrival));
                *before = priority;
                if let Some(namespace) = self.namespaces.get_mut(&object.namespace) {
                    namespace.ready.remove(&old);
                    namespace.ready.insert(new, object);
                }
            }
            Some(State::Delayed(due)) => {
                let due = *due;
                self.delayed.remove(&(due, object.clone()));
                self.make_ready(object, priority);
            }
            None => self.make_ready(object, priority),
        }
    }

    /// The object whose run starts now, if one may. [`WorkQueue::done`] must follow.
    pub(crate) fn next(&mut self, now: Instant) -> Option<NamespacedName> {
        self.wake_up(now);
        let free = self.capacity.saturating_sub(self.in_flight);
        let overflow = (self.capacity + OVERFLOW).saturating_sub(self.in_flight);
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(namespace) = self.namespaces.get_mut(&name) else {
                continue;
            };
            let taken = namespace.take(free, overflow);
            if taken.is_some() {
                namespace.in_flight += 1;
                self.in_flight += 1;
                self.waiting -= 1;
            }
            if !namespace.ready.is_empty() {
                self.turns.push_back(name);
            }
            if let Some(object) = taken {
                self.objects.insert(object.clone(), State::Running(None));
                return Some(object);
            }
        }
        None
    }

    /// A run ended; the next is due at `next`, or at once where the object was added meanwhile. An object with neither
    /// is removed.
    pub(crate) fn done(&mut self, object: NamespacedName, next: Option<Instant>) {
        let Some(State::Running(again)) = self.objects.remove(&object) else {
            return;
        };
        self.in_flight -= 1;
        if let Some(namespace) = self.namespaces.get_mut(&object.namespace) {
            namespace.in_flight -= 1;
            if namespace.in_flight == 0 && namespace.ready.is_empty() {
                self.namespaces.remove(&object.namespace);
            }
        }
        if let Some(priority) = again {
            self.make_ready(object, priority);
        } else if let Some(due) = next {
            self.delayed.insert((due, object.clone()));
            self.objects.insert(object, State::Delayed(due));
        }
    }

    /// When the first of the objects that wait for their time is due.
    #[must_use]
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(due, _)| *due)
    }

    fn wake_up(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now)
            && let Some((_, object)) = self.delayed.pop_first()
        {
            self.make_ready(object, Priority::Routine);
        }
    }

    fn make_ready(&mut self, object: NamespacedName, priority: Priority) {
        let place = (priority, self.arrivals);
        self.arrivals += 1;
        self.waiting += 1;
        let namespace = self.namespaces.entry(object.namespace.clone()).or_default();
        if namespace.ready.is_empty() {
            self.turns.push_back(object.namespace.clone());
        }
        namespace.ready.insert(place, object.clone());
        self.objects.insert(object, State::Ready(place));
    }
}

#[cfg(test)]
mod tests;

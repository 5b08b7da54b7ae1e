use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Objects whose name says what their runs do; counts the runs.
#[derive(Default)]
struct Scripted {
    runs: Mutex<BTreeMap<String, usize>>,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
    waiting: AtomicUsize,
}

impl Scripted {
    fn runs(&self, name: &str) -> usize {
        self.runs.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    async fn work(&self) {
        let at_work = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_work.fetch_max(at_work, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.at_work.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reconciler for Scripted {
    async fn reconcile(&self, object: &NamespacedName, mut slot: Slot) -> Option<Duration> {
        *self.runs.lock().unwrap().entry(object.name.to_string()).or_default() += 1;
        self.work().await;
        match object.name.split('-').next().unwrap() {
            "hangs" => slot.release_during(pending()).await,
            "panics" => panic!("as asked"),
            "again" => return Some(Duration::from_mins(1)),
            "waits" => slot.release_during(tokio::time::sleep(Duration::from_secs(1))).await,
            _ => {}
        }
        self.work().await;
        None
    }

    fn panicked(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn waiting(&self, objects: usize) {
        self.waiting.store(objects, Ordering::SeqCst);
    }
}

/// Lets `test` talk to a runner of `slots` slots and `capacity` runs, and stops it.
async fn with_runner(slots: usize, capacity: usize, test: impl AsyncFnOnce(&SharedQueue, &Scripted)) {
    let (queue, reconciler) = (Arc::new(SharedQueue::new(capacity)), Arc::new(Scripted::default()));
    let slots = Slots::new(slots);
    tokio::select! {
        () = run(&queue, &slots, &reconciler, pending()) => unreachable!("nobody asked it to stop"),
        () = test(&queue, &reconciler) => {}
    }
}

fn objects(namespace: &str, kind: &str, count: usize) -> Vec<NamespacedName> {
    (0..count)
        .map(|number| NamespacedName::new(namespace, &format!("{kind}-{number}")))
        .collect()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn objects_that_hang_hold_up_no_other_namespace() {
    with_runner(2, 32, async |queue, reconciler| {
        queue.add(objects("a", "hangs", 300), Priority::Routine);
        pass(10).await;
        queue.add(objects("b", "works", 100), Priority::Routine);
        pass(10).await;
        assert!((0..100).all(|number| reconciler.runs(&format!("works-{number}")) == 1));
        // And a restoration of their own namespace goes through, too.
        queue.add(objects("a", "works-restored", 1), Priority::Restoration);
        pass(1).await;
        assert_eq!(reconciler.runs("works-restored-0"), 1);
        assert_eq!(reconciler.waiting.load(Ordering::SeqCst), 300 - 16);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn as_many_work_as_there_are_slots_however_many_wait() {
    with_runner(3, 60, async |queue, reconciler| {
        queue.add(objects("a", "waits", 200), Priority::Routine);
        pass(60).await;
        assert!((0..200).all(|number| reconciler.runs(&format!("waits-{number}")) == 1));
        assert_eq!(reconciler.most_at_work.load(Ordering::SeqCst), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_slot_is_enough() {
    with_runner(1, 16, async |queue, reconciler| {
        queue.add(objects("a", "waits", 3), Priority::Routine);
        pass(10).await;
        queue.add(objects("a", "works", 3), Priority::Routine);
        pass(1).await;
        assert!((0..3).all(|number| reconciler.runs(&format!("works-{number}")) == 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_object_is_run_again_when_it_is_due() {
    with_runner(1, 16, async |queue, reconciler| {
        queue.add(objects("a", "again", 1), Priority::Routine);
        pass(59).await;
        assert_eq!(reconciler.runs("again-0"), 1);
        pass(120).await;
        assert_eq!(reconciler.runs("again-0"), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_run_and_nothing_else() {
    with_runner(1, 16, async |queue, reconciler| {
        queue.add(objects("a", "panics", 1), Priority::Routine);
        queue.add(objects("a", "works", 1), Priority::Routine);
        pass(90).await;
        assert_eq!((reconciler.runs("works-0"), reconciler.runs("panics-0")), (1, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_runs_under_way_and_starts_no_more() {
    let (queue, reconciler) = (Arc::new(SharedQueue::new(16)), Arc::new(Scripted::default()));
    queue.add(objects("a", "waits", 100), Priority::Routine);
    let stop = tokio::time::sleep(Duration::from_millis(500));
    run(&queue, &Slots::new(2), &reconciler, stop).await;
    let ran = reconciler.runs.lock().unwrap().len();
    assert_eq!(ran, 8);
    assert_eq!(reconciler.at_work.load(Ordering::SeqCst), 0);
}

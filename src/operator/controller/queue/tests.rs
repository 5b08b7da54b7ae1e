use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn object(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap();
    NamespacedName::new(namespace, name)
}

/// The objects that start at `now`, in order.
fn started(queue: &mut WorkQueue, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| queue.next(now))
        .map(|object| format!("{}/{}", object.namespace, object.name))
        .collect()
}

/// How many of each namespace start at `now`.
fn counts(queue: &mut WorkQueue, now: Instant) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    while let Some(object) = queue.next(now) {
        *counts.entry(object.namespace.to_string()).or_default() += 1;
    }
    counts
}

fn fill(queue: &mut WorkQueue, namespace: &str, objects: usize) {
    for number in 0..objects {
        queue.add(NamespacedName::new(namespace, &number.to_string()), Priority::Routine);
    }
}

#[test]
fn namespaces_take_turns() {
    let (mut queue, now) = (WorkQueue::new(100), Instant::now());
    for text in ["a/1", "a/2", "a/3", "b/1", "c/1", "b/2"] {
        queue.add(object(text), Priority::Routine);
    }
    let order = ["a/1", "b/1", "c/1", "a/2", "b/2", "a/3"];
    assert_eq!(started(&mut queue, now), order);
}

/// Each namespace comes when those before it have all they may have.
#[rstest]
#[case::alone(&["a"], &[50])]
#[case::two(&["a", "b"], &[50, 25])]
#[case::many_leave_something_for_the_next(&["a", "b", "c", "d", "e"], &[50, 25, 13, 6, 3])]
fn no_namespace_has_more_under_way_than_it_leaves_free(#[case] namespaces: &[&str], #[case] expected: &[usize]) {
    let (mut queue, now) = (WorkQueue::new(100), Instant::now());
    for (namespace, expected) in namespaces.iter().zip(expected) {
        fill(&mut queue, namespace, 300);
        assert_eq!(counts(&mut queue, now)[*namespace], *expected, "{namespace}");
    }
}

#[test]
fn busy_namespaces_come_to_have_equal_shares() {
    let (mut queue, now) = (WorkQueue::new(90), Instant::now());
    let mut running = VecDeque::new();
    fill(&mut queue, "a", 1000);
    running.extend(std::iter::from_fn(|| queue.next(now)));
    assert_eq!(running.len(), 45);
    fill(&mut queue, "b", 1000);
    for _ in 0..200 {
        running.extend(std::iter::from_fn(|| queue.next(now)));
        let ended = running.pop_front().unwrap();
        queue.done(ended, None);
    }
    running.extend(std::iter::from_fn(|| queue.next(now)));
    let of_a = running.iter().filter(|object| object.namespace.as_str() == "a").count();
    assert!((29..=31).contains(&of_a), "{of_a} of {}", running.len());
    assert_eq!(running.len(), 60);
}

#[test]
fn a_restoration_goes_first_and_finds_room_where_other_runs_of_its_namespace_hang() {
    let (mut queue, now) = (WorkQueue::new(100), Instant::now());
    fill(&mut queue, "a", 300);
    assert_eq!(counts(&mut queue, now)["a"], 50);
    queue.add(object("a/299"), Priority::Restoration);
    queue.add(object("a/edited"), Priority::Restoration);
    queue.add(object("a/routine"), Priority::Routine);
    assert_eq!(started(&mut queue, now), ["a/299", "a/edited"]);
}

/// Each has one object on a host that is dead.
#[test]
fn however_many_namespaces_hang_the_next_one_may_start() {
    let (mut queue, now) = (WorkQueue::new(4), Instant::now());
    for number in 0..4 + OVERFLOW {
        let object = NamespacedName::new(&format!("n{number}"), "hangs");
        queue.add(object.clone(), Priority::Routine);
        assert_eq!(queue.next(now), Some(object));
    }
    queue.add(object("n0/second"), Priority::Routine);
    queue.add(object("too/many"), Priority::Routine);
    assert_eq!(queue.next(now), None);
    queue.done(object("n1/hangs"), None);
    assert_eq!(started(&mut queue, now), ["too/many"]);
}

#[test]
fn restorations_cannot_take_everything_either() {
    let (mut queue, now) = (WorkQueue::new(100), Instant::now());
    for number in 0..300 {
        queue.add(NamespacedName::new("a", &number.to_string()), Priority::Restoration);
    }
    assert_eq!(counts(&mut queue, now)["a"], 67);
}

#[test]
fn an_object_is_held_once_and_runs_once_more_where_it_is_added_while_it_runs() {
    let (mut queue, now) = (WorkQueue::new(10), Instant::now());
    queue.add(object("a/1"), Priority::Routine);
    queue.add(object("a/1"), Priority::Routine);
    assert_eq!(queue.waiting(), 1);
    assert_eq!(started(&mut queue, now), ["a/1"]);
    queue.add(object("a/1"), Priority::Routine);
    queue.add(object("a/1"), Priority::Restoration);
    queue.add(object("a/2"), Priority::Routine);
    assert_eq!(started(&mut queue, now), ["a/2"]);
    queue.done(object("a/1"), Some(now + Duration::from_hours(1)));
    assert_eq!(started(&mut queue, now), ["a/1"]);
    queue.done(object("a/1"), None);
    assert_eq!((started(&mut queue, now), queue.next_due()), (vec![], None));
}

#[test]
fn an_object_waits_for_its_time_unless_it_is_added_before() {
    let (mut queue, now) = (WorkQueue::new(10), Instant::now());
    let due = now + Duration::from_secs(5);
    for text in ["a/1", "a/2"] {
        queue.add(object(text), Priority::Routine);
        queue.next(now);
        queue.done(object(text), Some(due));
    }
    assert_eq!((started(&mut queue, now), queue.next_due()), (vec![], Some(due)));
    queue.add(object("a/2"), Priority::Routine);
    assert_eq!(started(&mut queue, now), ["a/2"]);
    assert_eq!(started(&mut queue, due), ["a/1"]);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn nothing_is_kept_of_objects_that_are_done() {
    let (mut queue, now) = (WorkQueue::new(10), Instant::now());
    for number in 0..100 {
        let object = NamespacedName::new(&format!("n{number}"), "1");
        queue.add(object.clone(), Priority::Routine);
        queue.next(now);
        queue.done(object, None);
    }
    assert!(queue.objects.is_empty() && queue.delayed.is_empty());
    assert!(queue.namespaces.is_empty() && queue.turns.is_empty());
}

/// What a test does to the queue.
#[derive(Debug, Clone)]
enum Step {
    Add(u8, u8, Priority),
    Start,
    End(usize, Option<u64>),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(Priority::Routine), Just(Priority::Restoration)];
    prop_oneof![
        3 => (0..5u8, 0..8u8, priority).prop_map(|(namespace, name, priority)| Step::Add(namespace, name, priority)),
        3 => Just(Step::Start),
        2 => (any::<usize>(), proptest::option::of(0..20u64)).prop_map(|(which, next)| Step::End(which, next)),
        1 => (0..20u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// An object never runs twice at a time, the capacity holds but for one run of a namespace, whoever has nothing under
    /// way is not held up, and nothing that was asked for is lost.
    #[test]
    fn the_queue_keeps_its_promises(steps in proptest::collection::vec(step(), 0..300), capacity in 1..12usize) {
        let (mut queue, mut now) = (WorkQueue::new(capacity), Instant::now());
        let (mut running, mut asked): (Vec<NamespacedName>, BTreeSet<NamespacedName>) = Default::default();
        for step in steps {
            match step {
                Step::Add(namespace, name, priority) => {
                    let object = NamespacedName::new(&namespace.to_string(), &name.to_string());
                    asked.insert(object.clone());
                    queue.add(object, priority);
                }
                Step::Start => {
                    if let Some(object) = queue.next(now) {
                        let is_first = running.iter().all(|other| other.namespace != object.namespace);
                        prop_assert!(!running.contains(&object) && (running.len() < capacity || is_first));
                        asked.remove(&object);
                        running.push(object);
                    } else {
                        let idle = asked.iter().find(|object| {
                            !running.iter().any(|other| other.namespace == object.namespace)
                        });
                        prop_assert_eq!(idle, None);
                    }
                }
                Step::End(which, next) if !running.is_empty() => {
                    let object = running.swap_remove(which % running.len());
                    queue.done(object, next.map(|seconds| now + Duration::from_secs(seconds)));
                }
                Step::End(..) => {}
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
        }
        for object in running {
            queue.done(object, None);
        }
        while let Some(object) = queue.next(now) {
            asked.remove(&object);
            queue.done(object, None);
        }
        prop_assert_eq!(asked, BTreeSet::new());
    }
}

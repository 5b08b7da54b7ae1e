//! From the events of watches to the objects that are added to the queue.
//!
//! The stores that the runs read must be filled from the same events before they arrive here.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;

use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::oneshot;

use super::queue::Priority;
use super::runner::SharedQueue;
use super::state::StateCache;
use crate::operator::api::ReconcileRequest;
use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::{NamespacedName, policy_image_owners};

/// Adds objects when their spec changes or a run is requested, and sends `listed` when the first list is complete.
///
/// Those of a list are added when it is complete, because the store shows them from then on. The `states` of deleted
/// objects are dropped, also where an object was deleted while the watch was down.
pub(crate) async fn objects(
    changes: impl Stream<Item = Event<PolicyImage>>,
    queue: &SharedQueue,
    listed: oneshot::Sender<()>,
    states: &StateCache,
) {
    let mut changes = pin!(changes);
    let (mut seen, mut list, mut listed) = (HashMap::new(), HashMap::new(), Some(listed));
    while let Some(event) = changes.next().await {
        match event {
            Event::Init => list.clear(),
            Event::InitApply(object) => {
                list.extend(NamespacedName::of(&object.metadata).map(|name| (name, trigger_key(&object))));
            }
            Event::InitDone => {
                let added = list.iter().filter(|(name, key)| seen.get(*name) != Some(*key));
                queue.add(added.map(|(name, _)| name.clone()), Priority::Routine);
                for gone in seen.keys().filter(|name| !list.contains_key(*name)) {
                    states.forget(gone);
                }
                seen = std::mem::take(&mut list);
                // The receiver may be gone by now, during shutdown.
                let _ = listed.take().map(|listed| listed.send(()));
            }
            Event::Apply(object) => {
                let key = trigger_key(&object);
                if let Ok(name) = NamespacedName::of(&object.metadata)
                    && seen.insert(name.clone(), key) != Some(key)
                {
                    queue.add([name], Priority::Routine);
                }
            }
            Event::Delete(object) => {
                if let Ok(name) = NamespacedName::of(&object.metadata) {
                    seen.remove(&name);
                    states.forget(&name);
                }
            }
        }
    }
}

/// Adds the PolicyImages that a changed ConfigMap names as its owners, and the one that `states` says delivered it: its
/// owner reference may be what was changed. Most changes are our own writes; the trigger filters those.
///
/// Those of a list are added when it is complete, because the store shows them from then on. So is every object that
/// delivered a ConfigMap: one that was deleted while the watch was down is in no list, and has no event.
pub(crate) async fn config_maps<K: ResourceExt>(
    changes: impl Stream<Item = Event<K>>,
    queue: &SharedQueue,
    states: &StateCache,
) {
    let mut changes = pin!(changes);
    let mut list: Option<BTreeSet<NamespacedName>> = None;
    while let Some(event) = changes.next().await {
        match event {
            Event::Init => list = Some(BTreeSet::new()),
            Event::InitDone => {
                // After a start or a lost connection: most are unchanged.
                let listed = list.take().unwrap_or_default();
                queue.add(listed.into_iter().chain(states.deliverers()), Priority::Routine);
            }
            Event::InitApply(config_map) | Event::Apply(config_map) | Event::Delete(config_map) => {
                let objects = deliverers(config_map.meta(), states);
                match &mut list {
                    Some(list) => list.extend(objects),
                    None => queue.add(objects, Priority::Restoration),
                }
            }
        }
    }
}

/// The objects that may have delivered a ConfigMap.
fn deliverers(config_map: &ObjectMeta, states: &StateCache) -> BTreeSet<NamespacedName> {
    let Ok(name) = NamespacedName::of(config_map) else {
        return BTreeSet::new();
    };
    let owners = policy_image_owners(config_map).map(|owner| name.sibling(&owner.name));
    owners.chain(states.deliverer(&name)).collect()
}

/// The same as long as neither the spec nor the annotation that requests a run changes. Our own status patches change
/// neither.
fn trigger_key(object: &PolicyImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, ReconcileRequest::of(object)).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::controller::state::ObjectState;
    use crate::operator::delivery::config_map::testing::delivered_to;
    use crate::operator::identity::ObjectKey;
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn object(name: &str, generation: i64) -> PolicyImage {
        let manifest = json!({
            "apiVersion": "opcr.io/v1alpha1",
            "kind": "PolicyImage",
            "metadata": { "namespace": "a", "name": name, "uid": name, "generation": generation },
            "spec": { "image": "ghcr.io/acme/policy" },
        });
        serde_json::from_value(manifest).unwrap()
    }

    /// What is added by the events, in order.
    async fn added(events: Vec<Event<PolicyImage>>) -> Vec<String> {
        let queue = SharedQueue::new(1000);
        let (listed, _) = oneshot::channel();
        objects(stream::iter(events), &queue, listed, &StateCache::default()).await;
        let mut names = queue.drain();
        names.sort_unstable();
        names
    }

    fn deliverer(states: &StateCache, config_map: &str) -> Option<String> {
        let object = states.deliverer(&NamespacedName::new("a", config_map));
        object.map(|object| object.name.to_string())
    }

    /// Remembers that the object `name` delivered the ConfigMap `config_map`.
    fn delivered(states: &StateCache, name: &str, config_map: &str) {
        let key = ObjectKey {
            object: NamespacedName::new("a", name),
            uid: name.into(),
        };
        let state = ObjectState {
            config_maps: delivered_to(config_map),
            ..ObjectState::default()
        };
        states.put(&key, state);
    }

    #[tokio::test]
    async fn objects_of_a_list_are_added_when_it_is_complete() {
        let mut events = vec![
            Event::Init,
            Event::InitApply(object("1", 1)),
            Event::InitApply(object("2", 1)),
        ];
        assert_eq!(added(events.clone()).await, [""; 0]);
        events.push(Event::InitDone);
        assert_eq!(added(events).await, ["a/1", "a/2"]);
    }

    #[tokio::test]
    async fn only_changes_that_request_a_run_are_added() {
        let (queue, (listed, is_listed)) = (SharedQueue::new(1000), oneshot::channel());
        let first = vec![Event::Init, Event::InitApply(object("1", 1)), Event::InitDone];
        // The status, then a list that shows nothing new, then the spec.
        let second = vec![
            Event::Apply(object("1", 1)),
            Event::Init,
            Event::InitApply(object("1", 1)),
            Event::InitDone,
        ];
        let third = vec![Event::Apply(object("1", 2))];
        let seen = std::sync::Mutex::new(Vec::new());
        let events = stream::iter([first, second, third].concat()).map(|event| {
            seen.lock().unwrap().push(queue.drain());
            event
        });
        objects(events, &queue, listed, &StateCache::default()).await;
        assert!(is_listed.await.is_ok());
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.concat(), ["a/1"]);
        assert_eq!(queue.drain(), ["a/1"]);
    }

    #[tokio::test]
    async fn what_was_deleted_is_forgotten_and_added_when_it_is_made_again() {
        let (queue, (listed, _)) = (SharedQueue::new(1000), oneshot::channel());
        let states = StateCache::default();
        delivered(&states, "1", "1-bundle");
        let events = vec![Event::Apply(object("1", 1)), Event::Delete(object("1", 1))];
        objects(stream::iter(events), &queue, listed, &states).await;
        assert_eq!(deliverer(&states, "1-bundle"), None);
        assert_eq!(queue.drain(), ["a/1"]);
    }

    #[tokio::test]
    async fn what_was_deleted_while_nobody_watched_is_forgotten() {
        let (queue, (listed, _)) = (SharedQueue::new(1000), oneshot::channel());
        let states = StateCache::default();
        delivered(&states, "1", "1-bundle");
        delivered(&states, "2", "2-bundle");
        let (one, two) = (Event::InitApply(object("1", 1)), Event::InitApply(object("2", 1)));
        let lists = vec![
            Event::Init,
            one,
            two.clone(),
            Event::InitDone,
            Event::Init,
            two,
            Event::InitDone,
        ];
        objects(stream::iter(lists), &queue, listed, &states).await;
        assert_eq!(deliverer(&states, "1-bundle"), None);
        assert_eq!(deliverer(&states, "2-bundle").as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn owners_of_what_was_changed_are_added_and_who_delivered_what_has_no_owner_any_more() {
        let config_map = |name: &str, owners: &[&str]| {
            let owners: Vec<_> = owners
                .iter()
                .map(|version| json!({ "apiVersion": version, "kind": "PolicyImage", "name": name, "uid": "1" }))
                .collect();
            let manifest = json!({ "metadata": { "namespace": "a", "name": name, "ownerReferences": owners } });
            serde_json::from_value::<ConfigMap>(manifest).unwrap()
        };
        let ours = |name| config_map(name, &["opcr.io/v1alpha1"]);
        let states = StateCache::default();
        delivered(&states, "robbed", "without-owner");
        let events = vec![
            Event::Init,
            Event::InitApply(ours("listed")),
            Event::InitDone,
            Event::Apply(config_map("foreign", &["example.com/v1"])),
            Event::Delete(ours("deleted")),
            Event::Apply(ours("edited")),
            Event::Delete(config_map("without-owner", &[])),
        ];
        let queue = SharedQueue::new(1000);
        config_maps(stream::iter(events), &queue, &states).await;
        // Restorations first.
        assert_eq!(queue.drain(), ["a/robbed", "a/deleted", "a/edited", "a/listed"]);
    }

    #[tokio::test]
    async fn config_maps_are_compared_with_a_list_when_it_is_complete() {
        let owner = json!([{ "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "name": "listed", "uid": "1" }]);
        let manifest = json!({ "metadata": { "namespace": "a", "name": "listed", "ownerReferences": owner } });
        let config_map: ConfigMap = serde_json::from_value(manifest).unwrap();
        let (queue, states) = (SharedQueue::new(1000), StateCache::default());
        delivered(&states, "robbed", "deleted-meanwhile");
        let mut events = vec![Event::Init, Event::InitApply(config_map)];
        config_maps(stream::iter(events.clone()), &queue, &states).await;
        assert_eq!(queue.drain(), [""; 0], "the store shows what was before");
        events.push(Event::InitDone);
        config_maps(stream::iter(events), &queue, &states).await;
        assert_eq!(queue.drain(), ["a/listed", "a/robbed"]);
    }
}

//! From the events of watches to the objects that are to be run.
//!
//! The stores that the runs look into must be filled from the same events before they come here.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;

use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::oneshot;

use super::queue::{NamespacedName, Priority};
use super::runner::SharedQueue;
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::{GROUP, Request};
use crate::pipeline::reason::chain;

/// Adds objects when their spec changes or somebody asks for a run, and sends `listed` when the first list is complete.
///
/// Those of a list are added when it is complete, because the store shows them from then on. `forget` is told of objects
/// that are deleted.
pub async fn objects(
    changes: impl Stream<Item = watcher::Result<Event<PolicyImage>>>,
    queue: &SharedQueue,
    listed: oneshot::Sender<()>,
    forget: impl Fn(&PolicyImage),
) {
    let mut changes = pin!(changes);
    let (mut seen, mut list, mut listed) = (HashMap::new(), HashMap::new(), Some(listed));
    while let Some(event) = changes.next().await {
        match event {
            Err(error) => log_failure(&error),
            Ok(Event::Init) => list.clear(),
            Ok(Event::InitApply(object)) => {
                list.insert(named(&object.metadata), trigger_key(&object));
            }
            Ok(Event::InitDone) => {
                let added = list.iter().filter(|(name, key)| seen.get(*name) != Some(*key));
                queue.add(added.map(|(name, _)| name.clone()), Priority::Routine);
                seen = std::mem::take(&mut list);
                // Whoever waits for it may be gone by now, on the way out.
                let _ = listed.take().map(|listed| listed.send(()));
            }
            Ok(Event::Apply(object)) => {
                let (name, key) = (named(&object.metadata), trigger_key(&object));
                if seen.insert(name.clone(), key) != Some(key) {
                    queue.add([name], Priority::Routine);
                }
            }
            Ok(Event::Delete(object)) => {
                seen.remove(&named(&object.metadata));
                forget(&object);
            }
        }
    }
}

/// Adds the PolicyImages that own what changed. Most events are about what we wrote ourselves; the trigger sees to those.
pub async fn owners<K: ResourceExt>(changes: impl Stream<Item = watcher::Result<Event<K>>>, queue: &SharedQueue) {
    let mut changes = pin!(changes);
    while let Some(event) = changes.next().await {
        let (object, priority) = match event {
            Err(error) => {
                log_failure(&error);
                continue;
            }
            Ok(Event::Init | Event::InitDone) => continue,
            // After a start or a lost connection: most are as they were.
            Ok(Event::InitApply(object)) => (object, Priority::Routine),
            Ok(Event::Apply(object) | Event::Delete(object)) => (object, Priority::Restoration),
        };
        let metadata = object.meta();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let owners = metadata.owner_references.iter().flatten();
        let owners = owners
            .filter(|owner| owner.kind == "PolicyImage" && owner.api_version.split('/').next() == Some(GROUP))
            .map(|owner| NamespacedName::new(namespace, &owner.name));
        queue.add(owners, priority);
    }
}

fn log_failure(error: &watcher::Error) {
    tracing::warn!(error = chain(error), "a watch failed and is started again");
}

fn named(metadata: &ObjectMeta) -> NamespacedName {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    NamespacedName::new(namespace.unwrap_or_default(), name.unwrap_or_default())
}

/// The same as long as neither the spec nor the annotation that asks for a run changes. Our own status patches change
/// neither.
fn trigger_key(object: &PolicyImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, Request::of(object)).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
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
        objects(stream::iter(events).map(Ok), &queue, listed, |_| {}).await;
        let mut names = queue.drain();
        names.sort_unstable();
        names
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
    async fn only_what_asks_for_a_run_is_added() {
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
            Ok(event)
        });
        objects(events, &queue, listed, |_| {}).await;
        assert!(is_listed.await.is_ok());
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.concat(), ["a/1"]);
        assert_eq!(queue.drain(), ["a/1"]);
    }

    #[tokio::test]
    async fn an_object_that_is_made_again_is_added_and_the_old_one_is_forgotten() {
        let (queue, (listed, _)) = (SharedQueue::new(1000), oneshot::channel());
        let forgotten = std::sync::Mutex::new(Vec::new());
        let events = vec![Event::Apply(object("1", 1)), Event::Delete(object("1", 1))];
        let forget = |object: &PolicyImage| forgotten.lock().unwrap().push(object.name_any());
        objects(stream::iter(events).map(Ok), &queue, listed, forget).await;
        assert_eq!(forgotten.into_inner().unwrap(), ["1"]);
        assert_eq!(queue.drain(), ["a/1"]);
    }

    #[tokio::test]
    async fn owners_of_what_somebody_changed_are_added() {
        let config_map = |name: &str, api_version: &str| {
            let owner = json!({ "apiVersion": api_version, "kind": "PolicyImage", "name": name, "uid": "1" });
            let manifest = json!({ "metadata": { "namespace": "a", "name": name, "ownerReferences": [owner] } });
            serde_json::from_value::<ConfigMap>(manifest).unwrap()
        };
        let ours = |name| config_map(name, "opcr.io/v1alpha1");
        let events = vec![
            Event::InitApply(ours("listed")),
            Event::Apply(config_map("foreign", "example.com/v1")),
            Event::Delete(ours("deleted")),
            Event::Apply(ours("edited")),
        ];
        let queue = SharedQueue::new(1000);
        owners(stream::iter(events).map(Ok), &queue).await;
        // Restorations first.
        assert_eq!(queue.drain(), ["a/deleted", "a/edited", "a/listed"]);
    }
}

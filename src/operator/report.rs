//! Writes what a run found out: one patch of status, and an event where something changed that a person should know.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource as _};
use serde_json::{Map, Value, json};

use super::api::condition::READY;
use super::api::spec::PolicyImage;
use super::api::status::PolicyImageStatus;
use super::kube_error::describe;
use super::received::{MetadataOnly, Received};

/// Most bytes of an event's note; the API server refuses more than 1024.
const NOTE_LIMIT: usize = 1000;

/// Patches the status if it differs. The patch holds only what differs, and only applies to the version of the object
/// that the run has seen: an object that was changed or recreated meanwhile keeps its status.
///
/// # Errors
/// Whatever the API server says.
pub async fn patch_status(client: &Client, object: &PolicyImage, new: &PolicyImageStatus) -> Result<bool, kube::Error> {
    let old = object.status.clone().unwrap_or_default();
    let (old, new) = (to_value(&old)?, to_value(new)?);
    let Some(difference) = difference(&old, &new) else {
        return Ok(false);
    };
    let (Some(namespace), Some(name)) = (&object.metadata.namespace, &object.metadata.name) else {
        return Ok(false);
    };
    let patch = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": difference });
    // The answer is of no use, and its managed fields may be such that no PolicyImage could be read from it.
    let api: Api<Received<PolicyImage, MetadataOnly>> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams {
        field_manager: Some(super::api::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &parameters, &Patch::Merge(patch))
        .await
        .map(|_| true)
}

fn to_value(status: &PolicyImageStatus) -> Result<Value, kube::Error> {
    serde_json::to_value(status).map_err(kube::Error::SerdeError)
}

/// The JSON merge patch (RFC 7396) that leads from `old` to `new`; none where they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let removed = old
                .keys()
                .filter(|key| !new.contains_key(*key))
                .map(|key| (key.clone(), Value::Null));
            let changed = new.iter().filter_map(|(key, value)| {
                difference(old.get(key).unwrap_or(&Value::Null), value).map(|patch| (key.clone(), patch))
            });
            Some(Value::Object(removed.chain(changed).collect::<Map<_, _>>()))
        }
        _ => Some(new.clone()),
    }
}

/// The event that goes with the change from the old status to the new one. A repeated failure is no news, and neither is
/// a look that found nothing new.
#[must_use]
pub fn event(object: &PolicyImage, new: &PolicyImageStatus) -> Option<Event> {
    let digest = |status: &PolicyImageStatus| status.source.as_ref().map(|source| source.digest.clone());
    let ready = |status: &PolicyImageStatus| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY)
            .cloned()
    };
    let old = object.status.clone().unwrap_or_default();
    let now = ready(new)?;
    let told =
        ready(&old).is_some_and(|before| (before.status, before.reason) == (now.status.clone(), now.reason.clone()));
    if told && digest(&old) == digest(new) {
        return None;
    }
    let mut note = now.message;
    let cut = (0..=NOTE_LIMIT.min(note.len()))
        .rev()
        .find(|at| note.is_char_boundary(*at))
        .unwrap_or_default();
    note.truncate(cut);
    Some(Event {
        type_: if now.status == "False" {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: now.reason,
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// Publishes an event. Events are a courtesy: one that is refused is logged and forgotten.
pub async fn publish(client: &Client, reporter: &Reporter, object: &PolicyImage, event: &Event) {
    let reference: ObjectReference = object.object_ref(&());
    // A recorder that lives longer counts what has the same reason as one event, and shows the first note for all:
    // a second delivery would be told with the digest of the first.
    let recorder = Recorder::new(client.clone(), reporter.clone());
    if let Err(error) = recorder.publish(event, &reference).await {
        tracing::warn!(error = describe(&error), "an event was not published");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::equal(json!({"a": 1}), json!({"a": 1}), None)]
    #[case::added(json!({}), json!({"a": 1}), Some(json!({"a": 1})))]
    #[case::removed(json!({"a": 1, "b": 2}), json!({"b": 2}), Some(json!({"a": null})))]
    #[case::nested(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "d": 3}}), Some(json!({"a": {"c": null, "d": 3}})))]
    #[case::lists_are_whole(json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]})))]
    fn a_merge_patch_holds_only_the_difference(#[case] old: Value, #[case] new: Value, #[case] patch: Option<Value>) {
        assert_eq!(difference(&old, &new), patch);
    }
}

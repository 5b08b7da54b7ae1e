//! The event that goes with a new status.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};

use crate::operator::api::condition::READY;
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::kube_error::describe;

/// Most bytes of an event's note; the API server refuses more than 1024.
const NOTE_LIMIT: usize = 1000;

/// The event that goes with the change from the old status to the new one. A repeated failure emits no event, and
/// neither does a run that found nothing new.
pub(super) fn event(object: &PolicyImage, new: &PolicyImageStatus) -> Option<Event> {
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
    let unchanged =
        ready(&old).is_some_and(|before| (before.status, before.reason) == (now.status.clone(), now.reason.clone()));
    if unchanged && digest(&old) == digest(new) {
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
pub(super) async fn publish(client: &Client, reporter: &Reporter, object: &PolicyImage, event: &Event) {
    let reference: ObjectReference = object.object_ref(&());
    // A recorder that lives longer counts what has the same reason as one event, and shows the first note for all:
    // a second delivery would be reported with the digest of the first.
    let recorder = Recorder::new(client.clone(), reporter.clone());
    if let Err(error) = recorder.publish(event, &reference).await {
        tracing::warn!(error = describe(&error), "an event was not published");
    }
}

//! The status of objects. Everything there is to report about an object goes through the one [`StatusWriter`].

mod event;
mod next;
mod patch;

use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::runtime::events::Reporter;
use kube::{Api, ResourceExt as _};

use super::api::spec::PolicyImage;
use super::identity::{ObjectKey, resource_version_number};
use super::kube_error::describe;
use super::received::{MetadataOnly, Received};
use super::steps::outcome::Outcome;
use super::write_gate::WriteGate;

pub(super) use next::next;

/// The only writer of status and events.
pub(super) struct StatusWriter {
    gate: WriteGate,
    reporter: Reporter,
}

/// The result of writing a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// The object shows it already.
    UpToDate,
    /// The object was patched, to this version where the server counts versions.
    Patched(Option<u64>),
    /// Nobody needs it: the object is gone, or another replica may be the leader.
    Skipped,
    /// Nothing was reported, because a conflict is tried again first.
    Withheld,
    /// Another client changed what the run saw, so that a new run is needed.
    Conflict,
    /// The API server did not accept it.
    Failed,
}

impl StatusWrite {
    /// The resource version that the patch created, where there was one and the server counts versions.
    #[must_use]
    pub(super) fn version(self) -> Option<u64> {
        match self {
            Self::Patched(version) => version,
            Self::UpToDate | Self::Skipped | Self::Withheld | Self::Conflict | Self::Failed => None,
        }
    }
}

impl StatusWriter {
    /// Writes through `gate`; events are from `reporter`.
    #[must_use]
    pub(super) fn new(gate: WriteGate, reporter: Reporter) -> Self {
        Self { gate, reporter }
    }

    /// Reports on `object` how a run ended: one patch, none where the status is up to date, and an event where
    /// something changed that a user should know.
    pub(super) async fn write(&self, object: &PolicyImage, outcome: &Outcome) -> StatusWrite {
        let new = next(object, outcome, Timestamp::now());
        let old = object.status.clone().unwrap_or_default();
        let (Ok(key), Ok(client)) = (ObjectKey::of(&object.metadata), self.gate.client()) else {
            return StatusWrite::Skipped;
        };
        let patch = match patch::merge_patch(key.uid.as_str(), &old, &new) {
            Ok(Some(patch)) => patch,
            Ok(None) => return StatusWrite::UpToDate,
            Err(error) => return failed(object, &kube::Error::SerdeError(error)),
        };
        // Only the resource version of the response is used, and its managed fields may be such that no PolicyImage
        // decodes.
        let api: Api<Received<PolicyImage, MetadataOnly>> = Api::namespaced(client.clone(), key.namespace());
        let patched = api
            .patch_status(key.name(), &patch::parameters(), &Patch::Merge(patch))
            .await;
        let version = match patched {
            Ok(patched) => resource_version_number(&patched.metadata),
            Err(kube::Error::Api(status)) if status.code == 404 => return StatusWrite::Skipped,
            Err(kube::Error::Api(status)) if status.code == 409 => return StatusWrite::Conflict,
            Err(error) => return failed(object, &error),
        };
        if let (Some(event), Ok(client)) = (event::event(object, &new), self.gate.client()) {
            event::publish(client, &self.reporter, object, &event).await;
        }
        StatusWrite::Patched(version)
    }
}

fn failed(object: &PolicyImage, error: &kube::Error) -> StatusWrite {
    let (namespace, name) = (object.namespace(), object.name_any());
    tracing::warn!(namespace, name, error = describe(error), "the status was not written");
    StatusWrite::Failed
}

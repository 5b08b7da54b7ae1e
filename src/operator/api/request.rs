//! What requests a run.

use super::spec::PolicyImage;
use super::status::PolicyImageStatus;

/// Annotations that request a run at once when their value changes; the first that is set counts.
pub const REQUESTED_AT_ANNOTATIONS: [&str; 2] = ["reconcile.opcr.io/requestedAt", "reconcile.fluxcd.io/requestedAt"];

/// Most characters of the annotation that count: its value is repeated in status.
const VALUE_LIMIT: usize = 256;

/// What an object requests, by its spec and by the annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ReconcileRequest {
    /// The object's generation, which changes with its spec.
    pub generation: Option<i64>,
    /// The value of the annotation that requests a run at once.
    pub requested_at: Option<String>,
}

impl ReconcileRequest {
    /// What `object` requests now.
    #[must_use]
    pub fn of(object: &PolicyImage) -> Self {
        let annotations = object.metadata.annotations.as_ref();
        let requested_at = REQUESTED_AT_ANNOTATIONS
            .iter()
            .find_map(|key| annotations?.get(*key))
            .map(|value| value.chars().take(VALUE_LIMIT).collect());
        Self {
            generation: object.metadata.generation,
            requested_at,
        }
    }

    /// What `status` says was handled last. An annotation that was removed since requests nothing.
    #[must_use]
    pub fn last_handled(&self, status: Option<&PolicyImageStatus>) -> Self {
        let handled = status.and_then(|status| status.last_handled_reconcile_at.clone());
        Self {
            generation: status.and_then(|status| status.observed_generation),
            requested_at: self.requested_at.is_some().then_some(handled).flatten(),
        }
    }
}

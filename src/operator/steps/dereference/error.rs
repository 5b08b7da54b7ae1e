//! Why something that a spec names cannot be used.

use std::time::Duration;

use super::reader::ReadError;
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most bytes of all values that one object refers to, those of its ServiceAccount included. Each run holds them all in
/// memory, so fifty values of the largest size would be fifty times as much.
pub const MAX_REFERENCE_BYTES: usize = 2 << 20;

/// Most pull secrets of one object, those of its ServiceAccount included: an API server does not limit the latter.
pub const MAX_PULL_SECRETS: usize = 32;

/// How soon an absent reference is looked up again.
pub(super) const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// Why something that the spec names cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DereferenceError {
    /// The text cannot be the name of an object, and could lead out of the namespace.
    #[error("{kind} '{name}' is not the name of an object in this namespace; correct '{field}'")]
    Name {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// What is written, cut.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// Over [`MAX_PULL_SECRETS`].
    #[error(
        "{found} pull secrets, and at most {MAX_PULL_SECRETS} are tried; shorten 'spec.imagePullSecrets' or the imagePullSecrets of ServiceAccount 'spec.serviceAccountName'"
    )]
    CountPullSecrets {
        /// How many are named.
        found: usize,
    },
    /// It is not there.
    #[error("{kind} '{name}' does not exist in this namespace; '{field}' names it")]
    FindObject {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// It has no such key.
    #[error("{kind} '{name}' has no key '{key}'; '{field}' names it")]
    FindKey {
        /// Secret or ConfigMap.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
        /// The field that names it.
        field: &'static str,
    },
    /// The value is not text, or too large.
    #[error("key '{key}' of {kind} '{name}' is not UTF-8 text of at most 1 MiB")]
    ReadText {
        /// Secret or ConfigMap.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// Over [`MAX_REFERENCE_BYTES`].
    #[error(
        "the pull secrets, certificates and keys that the spec names have more than 2 MiB together; name fewer, or shorter ones"
    )]
    LimitBytes,
    /// It could not be read.
    #[error("{kind} '{name}' cannot be read: {source}")]
    Read {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the API server said.
        source: ReadError,
    },
}

impl Classify for DereferenceError {
    fn reason(&self) -> Reason {
        match self {
            Self::FindObject { .. } | Self::FindKey { .. } => Reason::ReferenceNotFound,
            Self::Name { .. }
            | Self::CountPullSecrets { .. }
            | Self::ReadText { .. }
            | Self::LimitBytes
            | Self::Read {
                source: ReadError::Decode(_),
                ..
            } => Reason::ReferenceInvalid,
            Self::Read { .. } => Reason::KubernetesApiFailed,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::FindObject { .. } | Self::FindKey { .. } => Disposition::WaitFor(ABSENT_RETRY),
            Self::Name { .. } | Self::CountPullSecrets { .. } | Self::ReadText { .. } | Self::LimitBytes => {
                Disposition::Stalled
            }
            Self::Read { source, .. } => match source {
                ReadError::Forbid(_) | ReadError::Decode(_) => Disposition::Stalled,
                ReadError::Temporary(_) => Disposition::Retry,
            },
        }
    }
}

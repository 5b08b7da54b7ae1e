//! Why a ConfigMap cannot be used, or was not written.

use std::time::Duration;

use crate::domain::bundle::BundleError;
use crate::operator::identity::MissingField;
use crate::operator::kube_error::KubeError;
use crate::operator::write_gate::LeadershipLost;
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// How soon a ConfigMap of a deleted namesake is checked again: garbage collection is on its way.
const NAMESAKE_RETRY: Duration = Duration::from_secs(5);

/// Why the target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Another object owns it, or none.
    #[error(
        "ConfigMap '{name}' exists and is not owned by this PolicyImage, so it is not touched; delete it, or choose another 'spec.delivery.configMap.name'"
    )]
    Foreign {
        /// Its name.
        name: String,
    },
    /// It belongs to a deleted object of our name.
    #[error(
        "ConfigMap '{name}' belongs to a deleted PolicyImage of the same name and is not touched; it is garbage-collected soon"
    )]
    Namesake {
        /// Its name.
        name: String,
    },
    /// It holds a delivery of another process, which may know a newer version of the object.
    #[error(
        "ConfigMap '{name}' holds a delivery of another operator process; it is checked again before it is replaced"
    )]
    DeliveredByOther {
        /// Its name.
        name: String,
    },
    /// The API server did not show it.
    #[error(transparent)]
    Read(KubeError),
    /// The API server showed it without what a precondition needs.
    #[error("ConfigMap '{name}' cannot be identified: {source}")]
    Identify {
        /// Its name.
        name: String,
        /// What is missing.
        source: MissingField,
    },
    /// Another replica may lead.
    #[error(transparent)]
    LeadershipLost(#[from] LeadershipLost),
}

impl ObserveError {
    /// Whether it is treated as a conflict: a new run, and not a failure.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::DeliveredByOther { .. })
    }
}

impl Classify for ObserveError {
    fn reason(&self) -> Reason {
        match self {
            Self::Foreign { .. } | Self::Namesake { .. } => Reason::NotOwned,
            Self::Read(error) => error.reason(),
            Self::DeliveredByOther { .. } | Self::Identify { .. } => Reason::KubernetesApiFailed,
            Self::LeadershipLost(error) => error.reason(),
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Foreign { .. } => Disposition::Stalled,
            Self::Namesake { .. } => Disposition::WaitFor(NAMESAKE_RETRY),
            Self::Read(error) => error.disposition(),
            Self::DeliveredByOther { .. } | Self::Identify { .. } => Disposition::Retry,
            Self::LeadershipLost(error) => error.disposition(),
        }
    }
}

/// Why the bundle was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The bundle does not fit.
    #[error(
        "the bundle has {size} bytes and a ConfigMap holds at most {limit} with its metadata; leave tests and unused data out of the bundle, or split it into several policy images"
    )]
    FitConfigMap {
        /// The bundle's size.
        size: u64,
        /// What would fit.
        limit: u64,
    },
    /// The ConfigMap is immutable.
    #[error("ConfigMap '{0}' is immutable and holds something else; delete it, and it is created again")]
    ChangeImmutable(String),
    /// The bytes could not be read back.
    #[error(transparent)]
    ReadBundle(BundleError),
    /// The API server did not accept it.
    #[error(transparent)]
    Write(KubeError),
    /// The API server accepted it, and did not return its version.
    #[error("ConfigMap '{name}' cannot be identified: {source}")]
    Identify {
        /// Its name.
        name: String,
        /// What is missing.
        source: MissingField,
    },
    /// Another replica may lead.
    #[error(transparent)]
    LeadershipLost(#[from] LeadershipLost),
}

impl ApplyError {
    /// Whether the ConfigMap changed between the read and the write, so that reading it again helps.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Write(error) if error.code() == Some(409))
    }
}

impl Classify for ApplyError {
    fn reason(&self) -> Reason {
        match self {
            Self::FitConfigMap { .. } => Reason::TooLarge,
            Self::ChangeImmutable(_) => Reason::Immutable,
            Self::ReadBundle(error) => error.reason(),
            Self::Write(error) => error.reason(),
            Self::Identify { .. } => Reason::KubernetesApiFailed,
            Self::LeadershipLost(error) => error.reason(),
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::FitConfigMap { .. } | Self::ChangeImmutable(_) => Disposition::Stalled,
            Self::Identify { .. } => Disposition::Retry,
            Self::ReadBundle(error) => error.disposition(),
            Self::Write(error) => error.disposition(),
            Self::LeadershipLost(error) => error.disposition(),
        }
    }
}

//! Delivery of verified bundles: one module for each kind of target.

mod cluster;
pub(super) mod config_map;

use serde_json::Value;

use super::api::status::DeliveryStatus;
use super::identity::ObjectKey;
use crate::domain::bundle::Bundle;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;
use config_map::{ApplyError, ConfigMapStates, ObserveError, Observed};

pub(super) use cluster::{Cluster, ConfigMaps};
pub(super) use config_map::ConfigMapDelivery;

/// One place that a plan delivers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A ConfigMap in the object's namespace.
    ConfigMap(ConfigMapDelivery),
}

/// A delivery that does not hold what it should, as it was observed.
#[derive(Debug)]
pub enum OutdatedDelivery<'a> {
    /// A ConfigMap.
    ConfigMap(&'a ConfigMapDelivery, Observed),
}

impl Delivery {
    /// The most bytes of a bundle that it could take; what its metadata leaves may be less.
    #[must_use]
    pub fn largest_bundle(&self) -> u64 {
        match self {
            Self::ConfigMap(_) => config_map::MAX_CONFIG_MAP_BYTES,
        }
    }

    /// The place in a few words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::ConfigMap(target) => format!("ConfigMap '{}'", target.name),
        }
    }

    /// What status shows of it.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        match self {
            Self::ConfigMap(target) => target.status(),
        }
    }

    /// The object that it makes of `bundle`, which comes from `revision`.
    ///
    /// # Errors
    /// [`ApplyError`] where the bundle does not fit or cannot be read.
    pub fn manifest(&self, revision: &Revision, bundle: &Verified<Bundle>) -> Result<Value, ApplyError> {
        match self {
            Self::ConfigMap(target) => target.manifest(revision, bundle),
        }
    }

    /// Looks whether it holds `bundle`, which comes from `revision`, where status has `recorded` a delivery. Returns what is
    /// to be applied; none where it is in place.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn observe(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        recorded: Option<&DeliveryStatus>,
        revision: &Revision,
        bundle: &Digest,
    ) -> Result<Option<OutdatedDelivery<'_>>, ObserveError> {
        match self {
            Self::ConfigMap(target) => {
                let outdated = target
                    .observe_content(cluster, states, recorded, revision, bundle)
                    .await?;
                Ok(outdated.map(|observed| OutdatedDelivery::ConfigMap(target, observed)))
            }
        }
    }
}

impl OutdatedDelivery<'_> {
    /// Delivers `bundle`, which comes from `revision`, and remembers it as the last good one of this place.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply(
        self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        revision: &Revision,
        bundle: &Verified<Bundle>,
    ) -> Result<(), ApplyError> {
        match self {
            Self::ConfigMap(target, observed) => target.deliver(cluster, states, revision, bundle, &observed).await,
        }
    }
}

/// Whether the watch shows every ConfigMap of `states` as we left it.
#[must_use]
pub(super) fn is_intact(cluster: Cluster<'_>, namespace: &str, states: &ConfigMapStates) -> bool {
    states.is_intact(|name, version| cluster.shows(namespace, name, version))
}

/// Removes what is left of `owner` at places that are none of `deliveries` any more: where status has `recorded` the
/// bundle, and where this process put it, if status could not be written since.
///
/// # Errors
/// [`ApplyError`].
pub(super) async fn prune_previous(
    cluster: Cluster<'_>,
    owner: &ObjectKey,
    deliveries: &[Delivery],
    recorded: Option<&DeliveryStatus>,
    states: &mut ConfigMapStates,
) -> Result<(), ApplyError> {
    let targets: Vec<_> = deliveries.iter().map(|Delivery::ConfigMap(target)| target).collect();
    for previous in config_map::previous(owner, &targets, recorded, states) {
        previous.prune(cluster).await?;
        states.forget(&previous.name);
    }
    Ok(())
}

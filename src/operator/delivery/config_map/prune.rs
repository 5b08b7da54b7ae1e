//! Removes the ConfigMaps that an earlier spec asked for.

use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::error::ApplyError;
use super::observe::is_owned;
use super::state::ConfigMapStates;
use super::target::ConfigMapDelivery;
use crate::operator::api::status::DeliveryStatus;
use crate::operator::delivery::Cluster;
use crate::operator::identity::ObjectKey;
use crate::operator::kube_error::KubeError;
use crate::operator::received::ConfigMapMetadata;

/// The ConfigMaps of `owner` that are none of `targets`, and where a bundle may still be: where status says that it is,
/// and where this process put it, if status could not be written since.
#[must_use]
pub(crate) fn previous(
    owner: &ObjectKey,
    targets: &[&ConfigMapDelivery],
    recorded: Option<&DeliveryStatus>,
    states: &ConfigMapStates,
) -> Vec<ConfigMapDelivery> {
    let recorded = recorded.and_then(|status| ConfigMapDelivery::recorded(owner.clone(), status));
    let remembered = states.names().map(|name| ConfigMapDelivery::named(owner.clone(), name));
    let mut previous: Vec<ConfigMapDelivery> = Vec::new();
    for candidate in recorded.into_iter().chain(remembered) {
        let is_named = |other: &ConfigMapDelivery| other.name == candidate.name;
        if !targets.iter().any(|target| is_named(target)) && !previous.iter().any(is_named) {
            previous.push(candidate);
        }
    }
    previous
}

impl ConfigMapDelivery {
    /// Deletes the ConfigMap, where the bundle was before the spec changed, if it is still ours.
    ///
    /// # Errors
    /// [`ApplyError::Write`], [`ApplyError::LeadershipLost`].
    pub async fn prune(&self, cluster: Cluster<'_>) -> Result<(), ApplyError> {
        let failed = |error| ApplyError::Write(KubeError::new(format!("remove ConfigMap '{}'", self.name), error));
        let api: Api<ConfigMapMetadata> = Api::namespaced(cluster.gate.client()?.clone(), self.owner.namespace());
        let Some(found) = api.get_opt(&self.name).await.map_err(failed)? else {
            return Ok(());
        };
        if !is_owned(&found.metadata, &self.owner.uid) {
            return Ok(());
        }
        let preconditions = Preconditions {
            uid: found.metadata.uid,
            resource_version: found.metadata.resource_version,
        };
        let parameters = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api: Api<ConfigMapMetadata> = Api::namespaced(cluster.gate.client()?.clone(), self.owner.namespace());
        match api.delete(&self.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests;

//! The target as it is now, and whether it is ours.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;

use super::error::ObserveError;
use super::live::{LiveConfigMap, Observed};
use super::state::ConfigMapState;
use super::target::ConfigMapDelivery;
use crate::operator::api::GROUP;
use crate::operator::identity::Uid;
use crate::operator::kube_error::KubeError;
use crate::operator::received::{ConfigMapBody, Received};
use crate::operator::write_gate::WriteGate;

impl ConfigMapDelivery {
    /// Observes the target. What was applied before is not read again while its watch shows the same version.
    ///
    /// # Errors
    /// [`ObserveError`] where it is not ours, or cannot be read.
    pub async fn observe(
        &self,
        gate: &WriteGate,
        state: &ConfigMapState,
        watched: Option<&ObjectMeta>,
    ) -> Result<Observed, ObserveError> {
        if let (Some(applied), Some(watched)) = (&state.applied, watched)
            && applied.is_at(self)
            && applied.is_version(watched)
        {
            return Ok(Observed::Ours(applied.live.clone()));
        }
        let api: Api<Received<ConfigMap, ConfigMapBody>> =
            Api::namespaced(gate.client()?.clone(), self.owner.namespace());
        let found = api.get_opt(&self.name).await;
        let found = found
            .map_err(|error| ObserveError::Read(KubeError::new(format!("read ConfigMap '{}'", self.name), error)))?;
        found.map_or(Ok(Observed::Absent), |config_map| {
            self.check_owner(config_map.into()).map(Observed::Ours)
        })
    }

    fn check_owner(&self, config_map: ConfigMap) -> Result<LiveConfigMap, ObserveError> {
        let (metadata, name) = (&config_map.metadata, self.name.clone());
        if !is_owned(metadata, &self.owner.uid) {
            return Err(if controllers(metadata).any(|owner| owner.name == self.owner.name()) {
                ObserveError::Namesake { name }
            } else {
                ObserveError::Foreign { name }
            });
        }
        LiveConfigMap::read(config_map, self).map_err(|source| ObserveError::Identify { name, source })
    }
}

/// Whether the PolicyImage with this UID controls the object.
pub(super) fn is_owned(metadata: &ObjectMeta, uid: &Uid) -> bool {
    controllers(metadata).any(|owner| owner.uid == uid.as_str())
}

fn controllers(metadata: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    metadata.owner_references.iter().flatten().filter(|owner| {
        owner.controller == Some(true)
            && owner.kind == "PolicyImage"
            && owner.api_version.split('/').next() == Some(GROUP)
    })
}

#[cfg(test)]
mod tests;

//! The target as it is now, and whether it is ours.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;

use super::error::ObserveError;
use super::live::{LiveConfigMap, Observed};
use super::state::ConfigMapStates;
use super::target::ConfigMapDelivery;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::api::status::DeliveryStatus;
use crate::operator::delivery::Cluster;
use crate::operator::identity::{Uid, policy_image_owners};
use crate::operator::kube_error::KubeError;
use crate::operator::received::{ConfigMapBody, Received};

impl ConfigMapDelivery {
    /// Observes the target. What was applied before is not read again while its watch shows the same version.
    ///
    /// # Errors
    /// [`ObserveError`] where it is not ours, or cannot be read.
    pub(super) async fn observe(
        &self,
        cluster: Cluster<'_>,
        states: &ConfigMapStates,
    ) -> Result<Observed, ObserveError> {
        let applied = states.applied(self);
        if let Some(live) = applied.filter(|live| cluster.shows(self.owner.namespace(), &self.name, &live.version)) {
            return Ok(Observed::Ours(live.clone()));
        }
        let api: Api<Received<ConfigMap, ConfigMapBody>> =
            Api::namespaced(cluster.gate.client()?.clone(), self.owner.namespace());
        let found = api.get_opt(&self.name).await;
        let found = found
            .map_err(|error| ObserveError::Read(KubeError::new(format!("read ConfigMap '{}'", self.name), error)))?;
        found.map_or(Ok(Observed::Absent), |config_map| {
            self.check_owner(config_map.into()).map(Observed::Ours)
        })
    }

    /// Observes whether the target holds `bundle`, which comes from `revision`. Returns what is there where it does not.
    /// One that neither `states` know of nor status has `recorded` is taken for absent without a request: creating it fails
    /// if it is there.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn observe_content(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        recorded: Option<&DeliveryStatus>,
        revision: &Revision,
        bundle: &Digest,
    ) -> Result<Option<Observed>, ObserveError> {
        let is_recorded = recorded.is_some_and(|recorded| recorded.config_map.name == self.name);
        if !is_recorded && !states.contains(self) {
            return Ok(Some(Observed::Absent));
        }
        let observed = self.observe(cluster, states).await?;
        match observed {
            Observed::Ours(live) if live.holds(self, revision, bundle) => {
                states.record(self, live);
                states.record_revision(self, revision);
                Ok(None)
            }
            // By an earlier leader, for a version of the object that our watch may not show yet. It gets the time of a new
            // run to do so, or what was published would be taken back for a moment.
            Observed::Ours(live) if live.is_delivery() && states.note_other(self, &live) => {
                let name = self.name.clone();
                Err(ObserveError::DeliveredByOther { name })
            }
            outdated => Ok(Some(outdated)),
        }
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
    policy_image_owners(metadata).filter(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests;

//! Writes the ConfigMap.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::error::ApplyError;
use super::live::{LiveConfigMap, Observed};
use super::state::{ConfigMapStates, LastGood};
use super::target::ConfigMapDelivery;
use crate::domain::bundle::Bundle;
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;
use crate::operator::api::FIELD_MANAGER;
use crate::operator::delivery::Cluster;
use crate::operator::identity::{MissingField, ObjectVersion};
use crate::operator::kube_error::KubeError;
use crate::operator::received::ConfigMapMetadata;
use crate::operator::write_gate::WriteGate;

impl ConfigMapDelivery {
    /// Applies the ConfigMap with `bundle`, which then is the last good one.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn deliver(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        revision: &Revision,
        bundle: &Verified<Bundle>,
        observed: &Observed,
    ) -> Result<(), ApplyError> {
        self.apply(cluster, states, revision, bundle, observed).await?;
        states.record_revision(self, revision);
        states.record_last_good(LastGood {
            target: self.clone(),
            revision: revision.clone(),
            bundle: bundle.clone(),
            refused: false,
        });
        Ok(())
    }

    /// Applies the ConfigMap with `bundle`, and remembers how it was left. After a conflict that is not known.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub(super) async fn apply(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        revision: &Revision,
        bundle: &Verified<Bundle>,
        observed: &Observed,
    ) -> Result<(), ApplyError> {
        // Before the write, because the deadline can end it anywhere.
        states.attempt(self, bundle.value().facts().digest);
        let applied = self.apply_to(observed, cluster.gate, revision, bundle).await;
        match applied {
            Ok(live) => {
                states.record(self, live);
                Ok(())
            }
            Err(error) => {
                if error.is_conflict() {
                    states.mark_outdated(self);
                }
                // The response to a write may be an error although it took effect: a conflict, too, if it was repeated.
                if !matches!(error, ApplyError::Write(_)) {
                    states.forget_attempt(self);
                }
                Err(error)
            }
        }
    }

    /// Applies the ConfigMap over what was observed, and returns what is there afterwards.
    ///
    /// One that exists is changed only in the very version that was seen to be ours. One that was absent is created
    /// without force; if another client created it in between, the fields that we added are released.
    async fn apply_to(
        &self,
        observed: &Observed,
        gate: &WriteGate,
        revision: &Revision,
        bundle: &Verified<Bundle>,
    ) -> Result<LiveConfigMap, ApplyError> {
        let mut object = self.manifest(revision, bundle)?;
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        if let Observed::Ours(live) = observed {
            if live.immutable {
                return Err(ApplyError::ChangeImmutable(self.name.clone()));
            }
            parameters = parameters.force();
            let version = self.prune_foreign_keys(gate, live).await?;
            object["metadata"]["uid"] = Value::from(version.uid.as_str());
            object["metadata"]["resourceVersion"] = Value::from(version.resource_version);
        }
        let applied = self.write(gate, &parameters, &Patch::Apply(object)).await?;
        if *observed == Observed::Absent && !is_sole_manager(&applied) {
            self.release_fields(gate, &parameters, applied.uid.as_deref()).await?;
            return Err(ApplyError::CreatedByOther(self.name.clone()));
        }
        let live = LiveConfigMap::of(applied, self).map_err(|source| self.unidentified(source))?;
        Ok(LiveConfigMap {
            content: Some(bundle.value().facts().digest),
            ..live
        })
    }

    /// Removes what others put beside our key, which OPA would read too and server-side apply leaves alone; returns the
    /// version afterwards.
    async fn prune_foreign_keys(&self, gate: &WriteGate, live: &LiveConfigMap) -> Result<ObjectVersion, ApplyError> {
        let Some(removal) = &live.removal else {
            return Ok(live.version.clone());
        };
        let mut patch = removal.clone();
        patch["metadata"] =
            json!({ "uid": live.version.uid.as_str(), "resourceVersion": live.version.resource_version });
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let metadata = self.write(gate, &parameters, &Patch::Merge(patch)).await?;
        ObjectVersion::of(&metadata).map_err(|source| self.unidentified(source))
    }

    /// Applies a configuration without any field, which removes all that we own and nothing else. With the UID, because
    /// applied to an object deleted meanwhile it would create a ConfigMap that nobody owns, and that blocks our own.
    async fn release_fields(
        &self,
        gate: &WriteGate,
        parameters: &PatchParams,
        uid: Option<&str>,
    ) -> Result<(), ApplyError> {
        let metadata = json!({ "name": self.name, "uid": uid });
        let empty = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        self.write(gate, parameters, &Patch::Apply(empty)).await.map(drop)
    }

    async fn write(
        &self,
        gate: &WriteGate,
        parameters: &PatchParams,
        patch: &Patch<Value>,
    ) -> Result<ObjectMeta, ApplyError> {
        let api: Api<ConfigMapMetadata> = Api::namespaced(gate.client()?.clone(), self.owner.namespace());
        let written = api.patch(&self.name, parameters, patch).await;
        let failed = |error| ApplyError::Write(KubeError::new(format!("write ConfigMap '{}'", self.name), error));
        Ok(written.map_err(failed)?.metadata)
    }

    fn unidentified(&self, source: MissingField) -> ApplyError {
        ApplyError::Identify {
            name: self.name.clone(),
            source,
        }
    }
}

/// Whether no other client has ever written to the object.
fn is_sole_manager(applied: &ObjectMeta) -> bool {
    applied
        .managed_fields
        .iter()
        .flatten()
        .all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

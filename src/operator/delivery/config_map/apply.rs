//! Writes the ConfigMap.

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Resource as _};
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

/// Asks for the metadata of what was created, and not for a megabyte that was just sent.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

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

    /// Writes the ConfigMap over what was observed, and returns what is there afterwards.
    async fn apply_to(
        &self,
        observed: &Observed,
        gate: &WriteGate,
        revision: &Revision,
        bundle: &Verified<Bundle>,
    ) -> Result<LiveConfigMap, ApplyError> {
        let object = self.manifest(revision, bundle)?;
        let written = match observed {
            Observed::Absent => self.create(gate, &object).await?,
            Observed::Ours(live) => self.change(gate, object, live).await?,
        };
        let live = LiveConfigMap::of(written, self).map_err(|source| self.unidentified(source))?;
        Ok(LiveConfigMap {
            content: Some(bundle.value().facts().digest),
            ..live
        })
    }

    /// Creates the ConfigMap. One that exists, whoever it belongs to, is a conflict and is not touched, which server-side
    /// apply cannot promise: nobody has to look first.
    async fn create(&self, gate: &WriteGate, object: &Value) -> Result<ObjectMeta, ApplyError> {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let namespace = Some(self.owner.namespace());
        let request = Request::new(ConfigMapMetadata::url_path(&(), namespace));
        let request = request.create(&parameters, object.to_string().into_bytes());
        let mut request = request.map_err(|error| self.not_written(kube::Error::BuildRequest(error)))?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static(METADATA_ONLY));
        let created = gate.client()?.request::<ConfigMapMetadata>(request).await;
        Ok(created.map_err(|error| self.not_written(error))?.metadata)
    }

    /// Changes the ConfigMap in the very version that was seen to be ours.
    async fn change(
        &self,
        gate: &WriteGate,
        mut object: Value,
        live: &LiveConfigMap,
    ) -> Result<ObjectMeta, ApplyError> {
        if live.immutable {
            return Err(ApplyError::ChangeImmutable(self.name.clone()));
        }
        let version = self.take_over_creation(gate, live).await?;
        let version = self.prune_foreign_keys(gate, live, version).await?;
        object["metadata"]["uid"] = Value::from(version.uid.as_str());
        object["metadata"]["resourceVersion"] = Value::from(version.resource_version);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.write(gate, &parameters, &Patch::Apply(object)).await
    }

    /// Makes the apply that follows remove the labels and annotations of an earlier spec that creating the ConfigMap set.
    async fn take_over_creation(&self, gate: &WriteGate, live: &LiveConfigMap) -> Result<ObjectVersion, ApplyError> {
        let Some(creation) = live.creation.filter(|_| live.has_more_than(self)) else {
            return Ok(live.version.clone());
        };
        let patch = json!([
            { "op": "replace", "path": "/metadata/uid", "value": live.version.uid.as_str() },
            { "op": "replace", "path": "/metadata/resourceVersion", "value": live.version.resource_version },
            creation.takeover(),
        ]);
        let patch = serde_json::from_value(patch).map_err(|error| self.not_written(kube::Error::SerdeError(error)))?;
        let metadata = self.write(gate, &by_us(), &Patch::Json::<Value>(patch)).await?;
        ObjectVersion::of(&metadata).map_err(|source| self.unidentified(source))
    }

    /// Removes what others put beside our key, which OPA would read too and server-side apply leaves alone; returns the
    /// version afterwards.
    async fn prune_foreign_keys(
        &self,
        gate: &WriteGate,
        live: &LiveConfigMap,
        version: ObjectVersion,
    ) -> Result<ObjectVersion, ApplyError> {
        let Some(removal) = &live.removal else {
            return Ok(version);
        };
        let mut patch = removal.clone();
        patch["metadata"] = json!({ "uid": version.uid.as_str(), "resourceVersion": version.resource_version });
        let parameters = by_us();
        let metadata = self.write(gate, &parameters, &Patch::Merge(patch)).await?;
        ObjectVersion::of(&metadata).map_err(|source| self.unidentified(source))
    }

    async fn write(
        &self,
        gate: &WriteGate,
        parameters: &PatchParams,
        patch: &Patch<Value>,
    ) -> Result<ObjectMeta, ApplyError> {
        let api: Api<ConfigMapMetadata> = Api::namespaced(gate.client()?.clone(), self.owner.namespace());
        let written = api.patch(&self.name, parameters, patch).await;
        Ok(written.map_err(|error| self.not_written(error))?.metadata)
    }

    fn not_written(&self, error: kube::Error) -> ApplyError {
        ApplyError::Write(KubeError::new(format!("write ConfigMap '{}'", self.name), error))
    }

    fn unidentified(&self, source: MissingField) -> ApplyError {
        ApplyError::Identify {
            name: self.name.clone(),
            source,
        }
    }
}

/// Parameters of a patch that is not an apply.
fn by_us() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

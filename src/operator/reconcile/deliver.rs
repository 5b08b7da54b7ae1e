//! Step 7: writes the ConfigMap.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::decide::{annotations, labels};
use super::observe::{LiveConfigMap, Observed, is_owned};
use super::validate::Target;
use crate::domain::bundle::{Bundle, BundleError};
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;
use crate::operator::api::FIELD_MANAGER;
use crate::operator::kube_error::KubeError;
use crate::operator::received::ConfigMapMetadata;
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most bytes that Kubernetes keeps in one ConfigMap. Names and annotations are counted too, so that the API server never
/// has to refuse.
pub const MAX_CONFIG_MAP_BYTES: u64 = 1 << 20;

/// Why the bundle was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
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
    #[error("ConfigMap '{0}' is immutable and holds something else; delete it, and it is written anew")]
    ChangeImmutable(String),
    /// Somebody created the ConfigMap at the same moment.
    #[error("ConfigMap '{0}' was created by somebody else just now; what we added to it was taken back")]
    Conflict(String),
    /// The bytes could not be read back.
    #[error(transparent)]
    ReadBundle(BundleError),
    /// The API server did not take it.
    #[error(transparent)]
    Write(KubeError),
}

impl Classify for DeliverError {
    fn reason(&self) -> Reason {
        match self {
            Self::FitConfigMap { .. } => Reason::TooLarge,
            Self::ChangeImmutable(_) => Reason::Immutable,
            Self::Conflict(_) => Reason::NotOwned,
            Self::ReadBundle(error) => error.reason(),
            Self::Write(error) => error.reason(),
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::FitConfigMap { .. } | Self::ChangeImmutable(_) => Disposition::Stalled,
            Self::Conflict(_) => Disposition::Retry,
            Self::ReadBundle(error) => error.disposition(),
            Self::Write(error) => error.disposition(),
        }
    }
}

/// The ConfigMap that `target` asks for.
///
/// # Errors
/// [`DeliverError::FitConfigMap`] or [`DeliverError::ReadBundle`].
pub fn config_map(target: &Target, revision: &Revision, bundle: &Verified<Bundle>) -> Result<Value, DeliverError> {
    let facts = bundle.value().facts();
    let labels = labels(target);
    let annotations = annotations(target, revision, &facts.digest);
    let metadata_bytes =
        |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let overhead = target.key.len() + target.name.len() + metadata_bytes(&labels) + metadata_bytes(&annotations);
    let limit = MAX_CONFIG_MAP_BYTES.saturating_sub(overhead as u64);
    if facts.size > limit {
        return Err(DeliverError::FitConfigMap {
            size: facts.size,
            limit,
        });
    }
    let bytes = bundle.bytes(limit).map_err(DeliverError::ReadBundle)?;
    let key = &target.key;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": target.name,
            "namespace": target.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "opcr.io/v1alpha1",
                "kind": "PolicyImage",
                "name": target.owner.name,
                "uid": target.owner.uid,
                "controller": true,
            }],
        },
        "binaryData": { key: STANDARD.encode(bytes) },
    }))
}

/// Applies the ConfigMap, and answers what is there afterwards.
///
/// One that exists is changed only in the very version that was seen to be ours. One that was absent is created without
/// force; if somebody else created it in between, all that we added is taken back. ConfigMaps of `previous_config_maps`, where the
/// bundle was before the spec changed, are removed afterwards.
///
/// # Errors
/// [`DeliverError`].
pub async fn deliver(
    client: &Client,
    target: &Target,
    revision: &Revision,
    bundle: &Verified<Bundle>,
    observed: &Observed,
    previous_config_maps: &[String],
) -> Result<LiveConfigMap, DeliverError> {
    let mut object = config_map(target, revision, bundle)?;
    let mut parameters = PatchParams::apply(FIELD_MANAGER);
    if let Observed::Ours(existing) = observed {
        if existing.immutable {
            return Err(DeliverError::ChangeImmutable(target.name.clone()));
        }
        parameters = parameters.force();
        object["metadata"]["uid"] = Value::from(existing.uid.clone());
        object["metadata"]["resourceVersion"] = Value::from(prune_foreign_keys(client, target, existing).await?);
    }
    let applied = apply(client, target, &parameters, &object).await?;
    if *observed == Observed::Absent && !only_ours(&applied) {
        release_fields(client, target, &parameters, applied.uid.as_deref()).await?;
        return Err(DeliverError::Conflict(target.name.clone()));
    }
    for previous in previous_config_maps.iter().filter(|previous| **previous != target.name) {
        prune_previous(client, target, previous).await?;
    }
    Ok(LiveConfigMap {
        uid: applied.uid.clone().unwrap_or_default(),
        resource_version: applied.resource_version.clone().unwrap_or_default(),
        content: Some(bundle.value().facts().digest),
        labels: applied.labels.unwrap_or_default(),
        annotations: applied.annotations.unwrap_or_default(),
        removal: None,
        immutable: false,
    })
}

/// Removes what others put beside our key, which OPA would read too and server-side apply leaves alone; answers the
/// resource version afterwards.
async fn prune_foreign_keys(
    client: &Client,
    target: &Target,
    existing: &LiveConfigMap,
) -> Result<String, DeliverError> {
    let Some(removal) = &existing.removal else {
        return Ok(existing.resource_version.clone());
    };
    let mut patch = removal.clone();
    patch["metadata"] = json!({ "uid": existing.uid, "resourceVersion": existing.resource_version });
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let metadata = write(client, target, &parameters, &Patch::Merge(patch)).await?;
    Ok(metadata.resource_version.unwrap_or_default())
}

async fn apply(
    client: &Client,
    target: &Target,
    parameters: &PatchParams,
    object: &Value,
) -> Result<ObjectMeta, DeliverError> {
    write(client, target, parameters, &Patch::Apply(object.clone())).await
}

async fn write(
    client: &Client,
    target: &Target,
    parameters: &PatchParams,
    patch: &Patch<Value>,
) -> Result<ObjectMeta, DeliverError> {
    let api: Api<ConfigMapMetadata> = Api::namespaced(client.clone(), &target.namespace);
    let written = api.patch(&target.name, parameters, patch).await;
    let failed = |error| DeliverError::Write(KubeError::new(format!("write ConfigMap '{}'", target.name), error));
    Ok(written.map_err(failed)?.metadata)
}

/// Whether nobody else has ever written to the object.
fn only_ours(applied: &ObjectMeta) -> bool {
    applied
        .managed_fields
        .iter()
        .flatten()
        .all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Applies a configuration without any field, which removes all that we own and nothing else. With the UID, because
/// applied to what has been deleted meanwhile it would create a ConfigMap that nobody owns, and that is in our way.
async fn release_fields(
    client: &Client,
    target: &Target,
    parameters: &PatchParams,
    uid: Option<&str>,
) -> Result<(), DeliverError> {
    let metadata = json!({ "name": target.name, "uid": uid });
    let empty = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    apply(client, target, parameters, &empty).await.map(drop)
}

/// Deletes the ConfigMap that was delivered under another name before the spec changed, if it is still ours.
async fn prune_previous(client: &Client, target: &Target, previous: &str) -> Result<(), DeliverError> {
    let api: Api<ConfigMapMetadata> = Api::namespaced(client.clone(), &target.namespace);
    let failed = |error| DeliverError::Write(KubeError::new(format!("remove ConfigMap '{previous}'"), error));
    let Some(found) = api.get_opt(previous).await.map_err(failed)? else {
        return Ok(());
    };
    if !is_owned(&found.metadata, &target.owner.uid) {
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
    match api.delete(previous, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;

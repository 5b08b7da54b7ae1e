//! Step 4a: what is at the target now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::memory::AppliedConfigMap;
use super::validate::Target;
use crate::domain::digest::Digest;
use crate::operator::api::GROUP;
use crate::operator::kube_error::KubeError;
use crate::operator::received::{ConfigMapBody, Received};
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// How soon a ConfigMap of a deleted namesake is looked at again: garbage collection is on its way.
const NAMESAKE_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// The target as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// There is no such ConfigMap.
    Absent,
    /// It is ours.
    Ours(LiveConfigMap),
}

impl Observed {
    /// Our ConfigMap, if there is one.
    #[must_use]
    pub fn into_existing(self) -> Option<LiveConfigMap> {
        match self {
            Self::Absent => None,
            Self::Ours(existing) => Some(existing),
        }
    }
}

/// Our ConfigMap as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConfigMap {
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// The digest of what the target's key holds; none where the key is missing or others are beside it.
    pub content: Option<Digest>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The merge patch that removes what others put beside our key, if there is anything.
    pub removal: Option<Value>,
    /// Whether it is immutable.
    pub immutable: bool,
}

/// Why the target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// It belongs to somebody else.
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
    /// It could not be read.
    #[error(transparent)]
    Read(KubeError),
}

impl Classify for ObserveError {
    fn reason(&self) -> Reason {
        match self {
            Self::Foreign { .. } | Self::Namesake { .. } => Reason::NotOwned,
            Self::Read(error) => error.reason(),
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Foreign { .. } => Disposition::Stalled,
            Self::Namesake { .. } => Disposition::WaitFor(NAMESAKE_RETRY),
            Self::Read(error) => error.disposition(),
        }
    }
}

/// Looks at the target. What was delivered before is not read again while its watch shows the same version.
///
/// # Errors
/// [`ObserveError`] where it is not ours, or cannot be read.
pub async fn observe(
    client: &Client,
    target: &Target,
    delivered: Option<&AppliedConfigMap>,
    watched: Option<&ObjectMeta>,
) -> Result<Observed, ObserveError> {
    if let (Some(delivered), Some(watched)) = (delivered, watched)
        && delivered.is(target, watched)
    {
        return Ok(Observed::Ours(delivered.existing.clone()));
    }
    let api: Api<Received<ConfigMap, ConfigMapBody>> = Api::namespaced(client.clone(), &target.namespace);
    let found = api.get_opt(&target.name).await;
    let found = found
        .map_err(|error| ObserveError::Read(KubeError::new(format!("read ConfigMap '{}'", target.name), error)))?;
    found.map_or(Ok(Observed::Absent), |config_map| {
        existing(config_map.into(), target).map(Observed::Ours)
    })
}

fn existing(config_map: ConfigMap, target: &Target) -> Result<LiveConfigMap, ObserveError> {
    let metadata = config_map.metadata;
    if !is_owned(&metadata, &target.owner.uid) {
        let name = target.name.clone();
        return Err(if is_namesake(&metadata, &target.owner.name) {
            ObserveError::Namesake { name }
        } else {
            ObserveError::Foreign { name }
        });
    }
    let binary_data = config_map.binary_data.unwrap_or_default();
    let content = binary_data.get(&target.key).map(|bytes| Digest::of(&bytes.0));
    let beside = binary_data.keys().filter(|key| **key != target.key);
    let beside: Map<String, Value> = beside.map(|key| (key.clone(), Value::Null)).collect();
    let intact = beside.is_empty() && config_map.data.unwrap_or_default().is_empty();
    Ok(LiveConfigMap {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        content: content.filter(|_| intact),
        removal: (!intact).then(|| json!({ "data": null, "binaryData": beside })),
        immutable: config_map.immutable.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
    })
}

/// Whether the PolicyImage with this UID controls the object.
#[must_use]
pub fn is_owned(metadata: &ObjectMeta, uid: &str) -> bool {
    controllers(metadata).any(|owner| owner.uid == uid)
}

fn is_namesake(metadata: &ObjectMeta, name: &str) -> bool {
    controllers(metadata).any(|owner| owner.name == name)
}

fn controllers(
    metadata: &ObjectMeta,
) -> impl Iterator<Item = &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    metadata.owner_references.iter().flatten().filter(|owner| {
        owner.controller == Some(true)
            && owner.kind == "PolicyImage"
            && owner.api_version.split('/').next() == Some(GROUP)
    })
}

#[cfg(test)]
mod tests;

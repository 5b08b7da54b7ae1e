//! Objects as an API server sends them, read so that nothing in them can make a response unreadable.
//!
//! An API server accepts more than the types of clients do: whoever may write an object may give its managed fields or
//! a condition a time in the year 9999 or with twelve digits of a second. A list is one response. Read by those types,
//! one such object hides all others. So only what is used is read, each part by itself, and the rest is passed over
//! without being looked at.

mod bounded;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use bounded::{Controller, Lenient, Managers, Texts};

/// An object of kind `K` of which the metadata and `B` were read.
///
/// Of the metadata this is the name, namespace, UID, versions, labels, annotations, the PolicyImage that controls it, who
/// wrote to it, and whether it is being deleted; all else is empty.
pub struct Received<K, B> {
    /// The metadata.
    pub metadata: ObjectMeta,
    /// The rest.
    pub body: B,
    kind: PhantomData<fn() -> K>,
}

/// The part of an object that is read beside its metadata.
pub trait Body: DeserializeOwned + Clone + Send + Sync + 'static {
    /// Whether only the metadata is requested from the API server.
    const METADATA_ONLY: bool = false;
}

/// Nothing but the metadata, and nothing else is requested from the API server.
#[derive(Deserialize, Clone)]
pub struct MetadataOnly {}

impl Body for MetadataOnly {
    const METADATA_ONLY: bool = true;
}

/// A ConfigMap without its data.
pub(super) type ConfigMapMetadata = Received<ConfigMap, MetadataOnly>;

/// A whole ConfigMap.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapBody {
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, ByteString>>,
    immutable: Option<bool>,
}

impl Body for ConfigMapBody {}

impl From<Received<ConfigMap, ConfigMapBody>> for ConfigMap {
    fn from(received: Received<ConfigMap, ConfigMapBody>) -> Self {
        let ConfigMapBody {
            data,
            binary_data,
            immutable,
        } = received.body;
        Self {
            metadata: received.metadata,
            data,
            binary_data,
            immutable,
        }
    }
}

/// Names the object. The body may be that of a Secret.
impl<K, B> fmt::Debug for Received<K, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        formatter.debug_tuple("Received").field(namespace).field(name).finish()
    }
}

impl<K, B: Clone> Clone for Received<K, B> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            body: self.body.clone(),
            kind: PhantomData,
        }
    }
}

impl<'de, K, B: Body> Deserialize<'de> for Received<K, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts<B> {
            #[serde(default)]
            metadata: Metadata,
            #[serde(flatten)]
            body: B,
        }
        let Parts { metadata, body } = Parts::deserialize(deserializer)?;
        Ok(Self {
            metadata: metadata.into(),
            body,
            kind: PhantomData,
        })
    }
}

impl<K, B> Resource for Received<K, B>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    B: Body,
{
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic_type: &()) -> Cow<'_, str> {
        K::kind(dynamic_type)
    }

    fn group(dynamic_type: &()) -> Cow<'_, str> {
        K::group(dynamic_type)
    }

    fn version(dynamic_type: &()) -> Cow<'_, str> {
        K::version(dynamic_type)
    }

    fn plural(dynamic_type: &()) -> Cow<'_, str> {
        K::plural(dynamic_type)
    }

    fn metadata_api() -> bool {
        B::METADATA_ONLY
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The metadata that is used. Each field is any value first, so that one that is wrong does not take the others along.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Value,
    namespace: Value,
    uid: Value,
    resource_version: Value,
    generation: Value,
    deletion_timestamp: Value,
    labels: Lenient<Texts>,
    annotations: Lenient<Texts>,
    owner_references: Lenient<Controller>,
    managed_fields: Lenient<Managers>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            name: text(read.name),
            namespace: text(read.namespace),
            uid: text(read.uid),
            resource_version: text(read.resource_version),
            generation: read.generation.as_i64(),
            // Only whether there is one matters, and the value could be one that has no place in the type.
            deletion_timestamp: (!read.deletion_timestamp.is_null()).then_some(Time(Timestamp::UNIX_EPOCH)),
            labels: read.labels.0.map(|Texts(labels)| labels),
            annotations: read.annotations.0.map(|Texts(annotations)| annotations),
            owner_references: read.owner_references.0.map(|Controller(owner)| vec![owner]),
            managed_fields: read.managed_fields.0.map(|Managers(managers)| managers),
            ..Self::default()
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

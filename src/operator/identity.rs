//! Which object, and which version of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Metadata that lacks a field which an API server always sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the object has no {0}")]
pub struct MissingField(pub &'static str);

/// Identifies one object for all time: an object that is created again under the same name has another UID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl ObjectKey {
    /// The key of the object with this metadata.
    ///
    /// # Errors
    /// [`MissingField`].
    pub fn of(metadata: &ObjectMeta) -> Result<Self, MissingField> {
        Ok(Self {
            name: required(metadata.name.as_ref(), "name")?,
            namespace: required(metadata.namespace.as_ref(), "namespace")?,
            uid: required(metadata.uid.as_ref(), "uid")?,
        })
    }
}

/// One version of one object, as preconditions of writes name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object's UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
}

impl ObjectVersion {
    /// The version that this metadata shows.
    ///
    /// # Errors
    /// [`MissingField`].
    pub fn of(metadata: &ObjectMeta) -> Result<Self, MissingField> {
        Ok(Self {
            uid: required(metadata.uid.as_ref(), "uid")?,
            resource_version: required(metadata.resource_version.as_ref(), "resourceVersion")?,
        })
    }
}

fn required(field: Option<&String>, name: &'static str) -> Result<String, MissingField> {
    field.cloned().ok_or(MissingField(name))
}

/// A resource version as a number, which orders the versions of one object: a larger one is newer. None where a server
/// writes something else; then nothing is known about the order.
#[must_use]
pub(super) fn revision_number(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

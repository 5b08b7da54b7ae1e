//! Which object, and which version of it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::api::GROUP;

/// Metadata that lacks a field which an API server always sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the object has no {0}")]
pub struct MissingField(pub &'static str);

/// The name of a namespace. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Namespace {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The UID of an object: one that is created again under the same name has another. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

/// Identifies an object of a known kind as long as it is not deleted. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name there.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// The object `name` of `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The object with this metadata.
    ///
    /// # Errors
    /// [`MissingField`].
    pub fn of(metadata: &ObjectMeta) -> Result<Self, MissingField> {
        let namespace = required(metadata.namespace.as_ref(), "namespace")?;
        Ok(Self::new(namespace, required(metadata.name.as_ref(), "name")?))
    }

    /// The object `name` of the same namespace.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

/// Identifies one object for all time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// Its namespace and name.
    pub object: NamespacedName,
    /// Its UID.
    pub uid: Uid,
}

impl ObjectKey {
    /// The key of the object with this metadata.
    ///
    /// # Errors
    /// [`MissingField`].
    pub fn of(metadata: &ObjectMeta) -> Result<Self, MissingField> {
        Ok(Self {
            object: NamespacedName::of(metadata)?,
            uid: required(metadata.uid.as_ref(), "uid")?.into(),
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.object.namespace.as_str()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.object.name
    }
}

/// One version of one object, as preconditions of writes name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object's UID.
    pub uid: Uid,
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
            uid: required(metadata.uid.as_ref(), "uid")?.into(),
            resource_version: required(metadata.resource_version.as_ref(), "resourceVersion")?.to_owned(),
        })
    }

    /// Whether this metadata shows the same version.
    #[must_use]
    pub fn is_of(&self, metadata: &ObjectMeta) -> bool {
        metadata.uid.as_deref() == Some(self.uid.as_str())
            && metadata.resource_version.as_deref() == Some(self.resource_version.as_str())
    }
}

/// Whether an object has a complete identity. Without one nothing can be done about it.
#[must_use]
pub(super) fn is_identified(metadata: &ObjectMeta) -> bool {
    let ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        ..
    } = metadata;
    [name, namespace, uid, resource_version]
        .into_iter()
        .all(|field| required(field.as_ref(), "").is_ok())
}

/// The owners of an object that are PolicyImages, of whatever version of the API.
pub(super) fn policy_image_owners(metadata: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    let owners = metadata.owner_references.iter().flatten();
    owners.filter(|owner| is_policy_image(owner))
}

/// Whether the reference is to a PolicyImage, of any version.
pub(super) fn is_policy_image(owner: &OwnerReference) -> bool {
    owner.kind == "PolicyImage" && owner.api_version.split('/').next() == Some(GROUP)
}

fn required<'a>(field: Option<&'a String>, name: &'static str) -> Result<&'a str, MissingField> {
    let present = field.map(String::as_str).filter(|text| !text.is_empty());
    present.ok_or(MissingField(name))
}

/// A resource version as a number, which orders the versions of one object: a larger one is newer. `None` if a server
/// writes something else; then nothing is known about the order.
#[must_use]
pub(super) fn resource_version_number(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

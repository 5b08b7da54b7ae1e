//! Which ConfigMap, and the metadata that it gets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;

use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::api::grammar::is_object_name;
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::status::{ConfigMapStatus, DeliveryStatus};
use crate::operator::api::{BUNDLE_DIGEST_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, SOURCE_ANNOTATION};
use crate::operator::identity::ObjectKey;

/// A ConfigMap to deliver to, in the namespace of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapDelivery {
    /// The PolicyImage that owns it.
    pub owner: ObjectKey,
    /// Name of the ConfigMap.
    pub name: String,
    /// Key in its binaryData.
    pub key: String,
    /// Labels that the user asks for.
    pub labels: BTreeMap<String, String>,
    /// Annotations that the user asks for.
    pub annotations: BTreeMap<String, String>,
}

impl ConfigMapDelivery {
    /// Where `status` says that the last bundle of `owner` went, which may differ from where the spec wants the next
    /// one. Status can be edited: a text that is not an object's name could lead anywhere, and is ignored.
    #[must_use]
    pub fn recorded(owner: ObjectKey, status: &DeliveryStatus) -> Option<Self> {
        let ConfigMapStatus { name, key } = &status.config_map;
        let key = key.clone();
        is_object_name(name).then(|| Self {
            key,
            ..Self::named(owner, name)
        })
    }

    /// The ConfigMap of `owner` with this name, of which nothing else is known.
    pub(super) fn named(owner: ObjectKey, name: &str) -> Self {
        Self {
            owner,
            name: name.to_owned(),
            key: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// What status shows of it.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        DeliveryStatus {
            config_map: ConfigMapStatus {
                name: self.name.clone(),
                key: self.key.clone(),
            },
        }
    }

    /// Whether both mean the same key of the same ConfigMap.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.owner, &self.name, &self.key) == (&other.owner, &other.name, &other.key)
    }

    /// The reference by which the object owns the ConfigMap.
    pub(super) fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: PolicyImage::api_version(&()).into_owned(),
            kind: PolicyImage::kind(&()).into_owned(),
            name: self.owner.name().to_owned(),
            uid: self.owner.uid.as_str().to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    /// The labels of the ConfigMap: the user's and the one that our watch selects by.
    pub(super) fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
        labels
    }

    /// The annotations of the ConfigMap: the user's, the digest of the bundle and the pinned image it comes from.
    pub(super) fn all_annotations(&self, revision: &Revision, bundle: &Digest) -> BTreeMap<String, String> {
        let mut annotations = self.annotations.clone();
        annotations.insert(BUNDLE_DIGEST_ANNOTATION.to_owned(), bundle.to_string());
        annotations.insert(SOURCE_ANNOTATION.to_owned(), revision.to_string());
        annotations
    }
}

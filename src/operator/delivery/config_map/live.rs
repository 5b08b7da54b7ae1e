//! A ConfigMap as it is, and whether that is as it should be. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};

use super::target::ConfigMapDelivery;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::api::{BUNDLE_DIGEST_ANNOTATION, FIELD_MANAGER, SOURCE_ANNOTATION};
use crate::operator::identity::{MissingField, ObjectVersion};

/// The annotations that every delivered ConfigMap has.
const OUR_ANNOTATIONS: [&str; 2] = [BUNDLE_DIGEST_ANNOTATION, SOURCE_ANNOTATION];

/// The target as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// There is no such ConfigMap.
    Absent,
    /// It is ours.
    Ours(LiveConfigMap),
}

/// The entry of the managed fields for what creating the object set. Server-side apply removes only what an earlier apply
/// set and the next one does not want, so this would stay for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreationEntry {
    index: usize,
    is_applied_since: bool,
}

/// Our ConfigMap as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConfigMap {
    /// Which version this is.
    pub version: ObjectVersion,
    /// The digest of what the target's key holds; none where the key is missing or others are beside it.
    pub content: Option<Digest>,
    /// Whether its owner reference names us. People and garbage collection look for the owner by that name.
    pub names_owner: bool,
    /// Its labels. A list, which takes a fifth of a map of so few.
    pub labels: Vec<(String, String)>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// The merge patch that removes what others put beside our key, if there is anything.
    pub removal: Option<Value>,
    /// Whether it is immutable.
    pub immutable: bool,
    /// Where its managed fields have an entry for what our creation of it set.
    pub creation: Option<CreationEntry>,
}

impl LiveConfigMap {
    /// What `config_map` holds, seen from `target`.
    ///
    /// # Errors
    /// [`MissingField`].
    pub(super) fn read(config_map: ConfigMap, target: &ConfigMapDelivery) -> Result<Self, MissingField> {
        let live = Self::of(config_map.metadata, target)?;
        let binary_data = config_map.binary_data.unwrap_or_default();
        let content = binary_data.get(&target.key).map(|bytes| Digest::of(&bytes.0));
        let foreign = binary_data.keys().filter(|key| **key != target.key);
        let foreign: Map<String, Value> = foreign.map(|key| (key.clone(), Value::Null)).collect();
        let intact = foreign.is_empty() && config_map.data.unwrap_or_default().is_empty();
        Ok(Self {
            content: content.filter(|_| intact),
            removal: (!intact).then(|| json!({ "data": null, "binaryData": foreign })),
            immutable: config_map.immutable.unwrap_or_default(),
            ..live
        })
    }

    /// What this metadata says of a ConfigMap, seen from `target`, and nothing about its content.
    ///
    /// # Errors
    /// [`MissingField`].
    pub(super) fn of(metadata: ObjectMeta, target: &ConfigMapDelivery) -> Result<Self, MissingField> {
        let owner = target.owner_reference();
        let is_owner = |found: &OwnerReference| (&found.uid, &found.name) == (&owner.uid, &owner.name);
        let creation = CreationEntry::find(metadata.managed_fields.as_deref().unwrap_or_default());
        Ok(Self {
            version: ObjectVersion::of(&metadata)?,
            content: None,
            names_owner: metadata.owner_references.iter().flatten().any(is_owner),
            labels: metadata.labels.into_iter().flatten().collect(),
            annotations: metadata.annotations.into_iter().flatten().collect(),
            removal: None,
            immutable: false,
            creation,
        })
    }

    /// The bytes of its labels and annotations.
    pub(super) fn metadata_bytes(&self) -> usize {
        let texts = self.labels.iter().chain(&self.annotations);
        texts.map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Forgets the labels and annotations that `target` does not want: other clients may have added any number of them.
    pub(super) fn retain_wanted_by(&mut self, target: &ConfigMapDelivery) {
        let (labels, annotations) = (target.all_labels(), &target.annotations);
        self.labels.retain(|(key, _)| labels.contains_key(key));
        self.annotations
            .retain(|(key, _)| annotations.contains_key(key) || OUR_ANNOTATIONS.contains(&key.as_str()));
        self.labels.shrink_to_fit();
        self.annotations.shrink_to_fit();
    }

    /// Whether it has labels or annotations that `target` does not want. Whose they are is not known.
    pub(super) fn has_more_than(&self, target: &ConfigMapDelivery) -> bool {
        let mut wanted = self.clone();
        wanted.retain_wanted_by(target);
        wanted != *self
    }

    /// Whether it holds what one of our deliveries put there, as far as it says so itself.
    pub(super) fn is_delivery(&self) -> bool {
        let said = self.annotations.iter().find(|(key, _)| key == BUNDLE_DIGEST_ANNOTATION);
        let said = said.and_then(|(_, digest)| digest.parse::<Digest>().ok());
        said.is_some() && said == self.content
    }

    /// Whether it is what delivering `bundle`, which comes from `revision`, to `target` would make of it. What others put
    /// beside our labels and annotations is theirs.
    #[must_use]
    pub fn holds(&self, target: &ConfigMapDelivery, revision: &Revision, bundle: &Digest) -> bool {
        self.names_owner
            && self.content.as_ref() == Some(bundle)
            && contains(&self.labels, &target.all_labels())
            && contains(&self.annotations, &target.all_annotations(revision, bundle))
    }
}

impl CreationEntry {
    fn find(managed_fields: &[ManagedFieldsEntry]) -> Option<Self> {
        let position = |operation: &str| {
            managed_fields.iter().position(|entry| {
                entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some(operation)
            })
        };
        Some(Self {
            index: position("Update")?,
            is_applied_since: position("Apply").is_some(),
        })
    }

    /// The operation of a JSON patch by which the entry becomes that of an apply, or goes where there is one.
    pub(super) fn takeover(self) -> Value {
        let entry = format!("/metadata/managedFields/{}", self.index);
        if self.is_applied_since {
            json!({ "op": "remove", "path": entry })
        } else {
            json!({ "op": "replace", "path": format!("{entry}/operation"), "value": "Apply" })
        }
    }
}

fn contains(actual: &[(String, String)], wanted: &BTreeMap<String, String>) -> bool {
    let is_there = |(key, value)| actual.iter().any(|(actual, holds)| (actual, holds) == (key, value));
    wanted.iter().all(is_there)
}

#[cfg(test)]
mod tests;

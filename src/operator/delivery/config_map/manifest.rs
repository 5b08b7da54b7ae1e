//! The ConfigMap that a delivery asks for. No cluster is needed: `render` prints it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::ApplyError;
use super::target::ConfigMapDelivery;
use crate::domain::bundle::Bundle;
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;

/// Most bytes that Kubernetes keeps in one ConfigMap. Names and annotations are counted too, so that the API server never
/// has to refuse.
pub(crate) const MAX_CONFIG_MAP_BYTES: u64 = 1 << 20;

impl ConfigMapDelivery {
    /// The ConfigMap with `bundle`, which comes from `revision`.
    ///
    /// # Errors
    /// [`ApplyError::FitConfigMap`] or [`ApplyError::ReadBundle`].
    pub fn manifest(&self, revision: &Revision, bundle: &Verified<Bundle>) -> Result<Value, ApplyError> {
        let facts = bundle.value().facts();
        let labels = self.all_labels();
        let annotations = self.all_annotations(revision, &facts.digest);
        let overhead = self.key.len() + self.name.len() + text_bytes(&labels) + text_bytes(&annotations);
        let limit = MAX_CONFIG_MAP_BYTES.saturating_sub(overhead as u64);
        if facts.size > limit {
            return Err(ApplyError::FitConfigMap {
                size: facts.size,
                limit,
            });
        }
        let bytes = bundle.bytes(limit).map_err(ApplyError::ReadBundle)?;
        let key = &self.key;
        Ok(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "namespace": self.owner.namespace(),
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [self.owner_reference()],
            },
            "binaryData": { key: STANDARD.encode(bytes) },
        }))
    }
}

fn text_bytes(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests;

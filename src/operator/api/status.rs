//! What the operator reports. Every doc comment here is the text of `kubectl explain`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a PolicyImage.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PolicyImageStatus {
    /// The generation that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Verified and Delivered are always present after the first run; Reconciling and Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// What the image resolved to when it was last delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,

    /// The bundle that is delivered now. It stays through every failure until another one is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,

    /// The verification of the bundle that is delivered now; absent if none was required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,

    /// Where the bundle was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryStatus>,

    /// Value of the annotation reconcile.opcr.io/requestedAt that the last run handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// A resolved image.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The image in full, with the tag that was followed.
    pub reference: String,
    /// Digest of its manifest or index: pin this to get the same image again.
    pub digest: String,
    /// First 12 digits of the digest.
    pub short_digest: String,
    /// The tag that spec.semver chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver_tag: Option<String>,
}

/// A delivered bundle.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// Digest of the bytes of bundle.tar.gz: the same content has the same digest, whoever packed it.
    pub digest: String,
    /// Number of bytes.
    pub size: i64,
    /// Revision that the bundle's manifest states; often empty.
    pub revision: String,
    /// Roots of OPA's data that the bundle claims; an empty root claims all of it.
    pub roots: Vec<String>,
    /// Rego version that the bundle's manifest states: 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego_version: Option<i32>,
    /// Annotations of the image, shortened to 32 of 256 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A verification.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// Names of the authorities whose signatures were found.
    pub authorities: Vec<String>,
    /// Fingerprint of the keys and rules that were satisfied; it changes when a key does.
    pub trust_digest: String,
}

/// A delivery.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// The ConfigMap.
    pub config_map: ConfigMapStatus,
}

/// A delivered ConfigMap.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapStatus {
    /// Name of the ConfigMap in the object's namespace.
    pub name: String,
    /// Key in its binaryData.
    pub key: String,
}

/// `meta/v1.Condition`, without the long descriptions that the derived schema would copy into the CRD.
fn conditions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "description": "Ready, Verified and Delivered are always present after the first run; Reconciling and Stalled only while true.",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "Type of the condition." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown." },
                "reason": { "type": "string", "maxLength": 1024, "description": "Reason in CamelCase, for programs." },
                "message": { "type": "string", "maxLength": 32768, "description": "What happened, to what, and what to do." },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When status last changed." },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0, "description": "The generation that this condition describes." },
            },
        },
    })
}

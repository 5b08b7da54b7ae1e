//! What a user asks for. Every doc comment here is the text of `kubectl explain`.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "the KubeSchema derive repeats each struct inside a function"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::PolicyImageStatus;

/// Desired state of a PolicyImage.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "opcr.io",
    version = "v1alpha1",
    kind = "PolicyImage",
    plural = "policyimages",
    shortname = "polimg",
    category = "opcr",
    namespaced,
    status = "PolicyImageStatus",
    derive = "PartialEq",
    doc = "PolicyImage fetches an Open Policy Agent bundle from an OCI registry, verifies its signatures and delivers it to a ConfigMap.",
    validation = Rule::new("self.metadata.name.size() <= 246 || (has(self.spec.delivery) && has(self.spec.delivery.configMap) && has(self.spec.delivery.configMap.name))")
        .message("the name is too long to append '-bundle'; shorten metadata.name to 246 characters or set spec.delivery.configMap.name"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type==\"Verified\")].status"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.source.shortDigest"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ConfigMap", type_ = "string", priority = 1, json_path = ".status.delivery.configMap.name"),
    printcolumn(name = "Delivered", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Delivered\")].status"),
    printcolumn(name = "Revision", type_ = "string", priority = 1, json_path = ".status.bundle.revision")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.semver) || (!self.image.contains('@') && !self.image.substring(self.image.lastIndexOf('/') + 1).contains(':'))")
        .message("semver picks the tag; remove the tag or digest from image, or remove semver")
        .field_path(".image"),
    validation = Rule::new("!(has(self.insecure) && self.insecure && has(self.tls))")
        .message("insecure means plain HTTP, which uses no certificates; remove tls or insecure")
        .field_path(".insecure"),
    validation = Rule::new(TIMEOUT_WITHIN_INTERVAL)
        .message("timeout must not be longer than interval")
        .field_path(".timeout"),
)]
pub struct PolicyImageSpec {
    /// The policy image: `[host/]repository[:tag][@sha256:digest]`, without a scheme. No host means Docker Hub; no tag
    /// and no digest mean `latest`. A digest wins over a tag.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("!self.contains('://')")
            .message("image has no scheme; write it as host/repository:tag"),
        validation = Rule::new("self.matches('^[a-zA-Z0-9][a-zA-Z0-9.:_/-]*(@sha256:[0-9a-f]{64})?$')")
            .message("image must be [host/]repository[:tag][@sha256:digest]; a digest is 64 lower-case hex digits"),
    )]
    pub image: String,

    /// A semantic version range, such as `>=1.2.0 <2.0.0` or `1.x`: the highest matching tag is used. Cannot be combined
    /// with a tag or digest in `image`. Pre-releases match only if the range names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub semver: Option<String>,

    /// Secrets of type kubernetes.io/dockerconfigjson in the same namespace, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<NameReference>,

    /// A ServiceAccount in the same namespace whose imagePullSecrets are tried too, after those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub service_account_name: Option<String>,

    /// Certificates for the registry: an additional authority to trust, a client certificate to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Plain HTTP instead of TLS, for registries that have none. It does not mean that certificates go unchecked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,

    /// Signatures required before delivery. If omitted, none is required, and Verified is False (`NotConfigured`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,

    /// How often the tag or range, the keys and the delivered object are checked: 5s to 24h, as in `5m` or `1h30m`.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(INTERVAL_RULE).message("interval is 5s to 24h, written like 90s or 1h30m"))]
    pub interval: String,

    /// How long one run may take: 1s to 10m. Not longer than interval. Absent: 60s, or interval if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(TIMEOUT_RULE)
        .message("timeout is 1s to 10m, written like 90s; without one it is 60s, or the interval if that is shorter"))]
    pub timeout: Option<String>,

    /// If true, the object is not reconciled; what was delivered stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// Where the bundle goes. Absent: to a ConfigMap named after this object with `-bundle` appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,

    /// Why all other fields are empty. Not a field of the API: set if an API server sent a spec that cannot be read.
    #[serde(skip)]
    #[schemars(skip)]
    pub unreadable: Option<UnreadableSpec>,
}

/// Most bytes of a spec as JSON. Every spec is in memory as long as its object exists.
pub const MAX_SPEC_BYTES: usize = 64 << 10;

/// Why a spec is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnreadableSpec {
    /// This version of the operator cannot decode it.
    Field {
        /// The field in which decoding failed.
        field: String,
        /// The field that is missing there.
        missing: Option<String>,
    },
    /// It is so large that a few hundred like it would fill the memory of the operator.
    TooLarge,
}

impl PolicyImageSpec {
    /// The placeholder for a spec that cannot be read. It requests nothing.
    #[must_use]
    pub fn unreadable(cause: UnreadableSpec) -> Self {
        Self {
            image: String::new(),
            semver: None,
            image_pull_secrets: Vec::new(),
            service_account_name: None,
            tls: None,
            insecure: false,
            verify: None,
            interval: default_interval(),
            timeout: None,
            suspend: false,
            delivery: None,
            unreadable: Some(cause),
        }
    }
}

// Patterns are CEL rules, because a rule has a message. Durations are in Go's notation, without signs and fractions; no
// more than five digits, so that none overflows the type that CEL reads it into.
const INTERVAL_RULE: &str = "self.matches('^([0-9]{1,5}(ms|s|m|h))+$') && duration(self) >= duration('5s') && duration(self) <= duration('24h')";
const TIMEOUT_RULE: &str = "self.matches('^([0-9]{1,5}(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('10m')";
/// Silent if one of the two is no duration, which a rule of its own says.
const TIMEOUT_WITHIN_INTERVAL: &str = "!has(self.timeout) || !has(self.interval) || [self.timeout, self.interval].exists(text, !text.matches('^([0-9]{1,5}(ms|s|m|h))+$')) || duration(self.timeout) <= duration(self.interval)";

/// Names of objects: RFC 1123 subdomains.
const NAME_RULE: &str = r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";
const NAME_MESSAGE: &str =
    "write the name of an object in this namespace: a-z, 0-9, '-' and '.', with a letter or digit at both ends";
/// Keys of a Secret or ConfigMap.
const DATA_KEY_RULE: &str = "self.matches('^[-._a-zA-Z0-9]+$')";
const DATA_KEY_MESSAGE: &str = "write a key of letters, digits, '-', '_' and '.' only";

/// The check interval if none is written.
pub const DEFAULT_INTERVAL: &str = "5m";
/// The key of the delivered ConfigMap if none is written.
pub const DEFAULT_BUNDLE_KEY: &str = "bundle.tar.gz";

fn default_interval() -> String {
    DEFAULT_INTERVAL.to_owned()
}

fn default_bundle_key() -> String {
    DEFAULT_BUNDLE_KEY.to_owned()
}

fn default_minimum_matches() -> i32 {
    1
}

/// An object in the same namespace, by name.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct NameReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,
}

/// One key of a Secret or ConfigMap in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct KeyReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub key: String,
}

/// Certificates for the registry.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.caRef) || has(self.certSecretRef)")
    .message("set caRef or certSecretRef, or remove tls"))]
pub struct Tls {
    /// PEM certificates of authorities that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<AuthorityCertificates>,

    /// A Secret of type kubernetes.io/tls with the client certificate (`tls.crt`) and its key (`tls.key`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<NameReference>,
}

/// Where PEM certificates are.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.configMapRef)")
    .message("set exactly one of secretRef and configMapRef"))]
pub struct AuthorityCertificates {
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyReference>,

    /// In a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<KeyReference>,
}

/// Signatures that must be there before the policy is delivered.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minimumMatches) || self.minimumMatches <= self.authorities.size()")
    .message("minimumMatches cannot be more than the number of authorities")
    .field_path(".minimumMatches"))]
pub struct Verify {
    /// How many of the authorities must have signed.
    #[serde(default = "default_minimum_matches")]
    #[schemars(range(min = 1, max = 16))]
    pub minimum_matches: i32,

    /// Who may sign. Each has its own keys; a key may belong to one authority only.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub authorities: Vec<AuthoritySpec>,
}

/// One signer.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySpec {
    /// Name of the authority, shown in status when it has signed.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("write a name of a-z, 0-9 and '-', with a letter or digit at both ends"))]
    pub name: String,

    /// Public keys of the signer, as made by `cosign generate-key-pair`.
    pub key: KeySource,
}

/// Where PEM public keys are. Several keys in one text are all accepted.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.data), has(self.secretRef), has(self.configMapRef)].filter(x, x).size() == 1")
        .message("set exactly one of data, secretRef and configMapRef"),
    // Rules on the whole key, not on data: an error about a text repeats it, and with it a private key.
    validation = Rule::new("!has(self.data) || !self.data.contains('PRIVATE KEY')")
        .message("this is a private key; put the public key here and treat the private key as leaked")
        .field_path(".data"),
    validation = Rule::new("!has(self.data) || self.data.contains('PRIVATE KEY') || self.data.contains('-----BEGIN PUBLIC KEY-----')")
        .message("data must hold a PEM block 'PUBLIC KEY', as in cosign.pub")
        .field_path(".data"),
)]
pub struct KeySource {
    /// The PEM text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub data: Option<String>,

    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyReference>,

    /// In a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<KeyReference>,
}

/// Where the bundle goes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// A ConfigMap in the same namespace, owned by this object and restored when it is changed or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapDeliverySpec>,
}

/// The ConfigMap that holds the bundle.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapDeliverySpec {
    /// Name of the ConfigMap; by default the name of this object with `-bundle` appended. A ConfigMap that exists and
    /// is not owned by this object is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE), validation = Rule::new("self != 'kube-root-ca.crt'")
        .message("kube-root-ca.crt belongs to Kubernetes; choose another name"))]
    pub name: Option<String>,

    /// Key in binaryData that holds `bundle.tar.gz`.
    #[serde(default = "default_bundle_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE), validation = Rule::new("self != '.' && !self.startsWith('..')")
        .message("key must not be '.' or start with '..'"))]
    pub key: String,

    /// Labels for the ConfigMap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,

    /// Annotations for the ConfigMap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for ConfigMapDeliverySpec {
    fn default() -> Self {
        Self {
            name: None,
            key: default_bundle_key(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// Labels: at most 32, with the grammar of Kubernetes, and none that the operator sets itself.
fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    string_map(
        "Labels for the ConfigMap.",
        &serde_json::json!({ "type": "string", "maxLength": 63, "x-kubernetes-validations": [{
            "rule": "self.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')",
            "message": "write a value of letters, digits, '-', '_' and '.', with a letter or digit at both ends",
        }] }),
    )
}

/// Annotations: at most 32 of 4096 characters, with the keys of Kubernetes, and none that the operator sets itself.
fn annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    string_map(
        "Annotations for the ConfigMap.",
        &serde_json::json!({ "type": "string", "maxLength": 4096 }),
    )
}

fn string_map(description: &str, value: &serde_json::Value) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "description": description,
        "maxProperties": 32,
        "additionalProperties": value,
        "x-kubernetes-validations": [
            {
                "rule": r"self.all(key, key.indexOf('/') <= 253 && key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                "message": "a key is an optional DNS prefix and '/', and a name of at most 63 letters, digits, '-', '_' and '.'",
            },
            {
                "rule": "self.all(key, !key.startsWith('opcr.io/') && key != 'app.kubernetes.io/managed-by')",
                "message": "keys of opcr.io and app.kubernetes.io/managed-by are set by the operator; remove them",
            },
        ],
    })
}

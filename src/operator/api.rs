//! The Kubernetes API: `PolicyImage` in group `opcr.io`, version `v1alpha1`.
//!
//! Every field is bounded, and what can be refused statically is refused at admission by the schema or a CEL rule with a
//! message that says what to do. A field is here only when it works. The manifest in `config/crd/` is generated from
//! these types by `policy-operator crd`.
//!
//! **Conditions** are in [`condition`], what their reasons mean in [`crate::pipeline::reason::Reason`].

pub mod condition;
pub mod crd;
pub mod grammar;
pub mod request;
pub mod spec;
pub mod status;

pub use request::{REQUESTED_AT_ANNOTATIONS, ReconcileRequest};
pub use spec::{PolicyImage, PolicyImageSpec};
pub use status::PolicyImageStatus;

/// The API group.
pub const GROUP: &str = "opcr.io";

/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "policy-operator";

/// Label on every ConfigMap that the operator owns; its watch selects by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Annotation on a delivered ConfigMap: the digest of the bundle's bytes.
pub const BUNDLE_DIGEST_ANNOTATION: &str = "opcr.io/bundle-digest";

/// Annotation on a delivered ConfigMap: where the bundle comes from, pinned by digest.
pub const SOURCE_ANNOTATION: &str = "opcr.io/source";

//! Manifests of policy images: which layer is the bundle.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::revision::Revision;
use super::trust::Verified;

/// Largest manifest or index that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A descriptor: what a manifest says of one piece of content. Only the fields that are used; `urls` is ignored, it
/// would let an image send us anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The content's media type.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// The artifact type, where an index or a referrers list gives one.
    pub artifact_type: Option<String>,
    /// Annotations of the descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// The manifest of a policy image, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyManifest {
    /// The layer that is the OPA bundle.
    pub bundle: Descriptor,
    /// Annotations of the manifest, and those of the layer where the manifest has none of that name.
    pub annotations: BTreeMap<String, String>,
}

/// What a verified digest turned out to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A policy image.
    Image(Verified<PolicyManifest>),
    /// An index; the one child that can be a policy image has to be fetched and opened next.
    Index(Verified<Revision>),
}

/// Why a manifest is refused. Placeholder variants, to be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a policy image.
    #[error("{0}")]
    NotAPolicyImage(String),
}

impl Verified<Revision> {
    /// Reads the manifest whose digest was verified.
    ///
    /// # Errors
    /// [`ManifestError`], also where `bytes` do not hash to the verified digest.
    pub fn open(&self, _media_type: &str, _bytes: &[u8]) -> Result<Opened, ManifestError> {
        Err(ManifestError::NotAPolicyImage("not written yet".into()))
    }
}

//! Manifests of policy images: which layer is the bundle.
//!
//! A policy image is an OCI image manifest with a gzipped tar layer that is an OPA bundle. Which config, artifact type
//! and annotations stand around that layer changed with every release of the tools that make such images, so none of
//! them is relied on. What is taken is what OPA itself takes (`open-policy-agent/opa:v1/download/oci_download.go`): the
//! first layer of the right media type; further layers are ignored.

mod error;
mod select;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::digest::Digest;
use super::revision::ImageRevision;
use super::trust::Verified;
pub use error::ManifestError;

/// Largest manifest or index that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Most manifests of an index, and most layers of a manifest.
pub const MAX_ENTRIES: usize = 64;
/// Most annotations of an image that are kept: as many as a status shows.
pub const MAX_ANNOTATIONS: usize = 32;
/// Most characters of a kept annotation's name, and of its value.
pub const MAX_ANNOTATION_CHARACTERS: usize = 256;

/// The media type of OCI image manifests.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of OCI image indexes.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of Docker image manifests, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of Docker manifest lists.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The layer that OPA and the policy CLI write and read as a bundle.
pub const BUNDLE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer type that others (Trivy's checks) give the same bytes.
pub const OPENPOLICYAGENT_LAYER: &str = "application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip";

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
    /// The artifact type, if an index or a referrers list gives one.
    pub artifact_type: Option<String>,
    /// Annotations of the descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// The manifest of a policy image, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyManifest {
    /// The layer that is the OPA bundle.
    pub bundle: Descriptor,
    /// Annotations of the manifest, and those of the layer if the manifest has none of that name; the first
    /// [`MAX_ANNOTATIONS`], cut to [`MAX_ANNOTATION_CHARACTERS`]. They are kept for as long as the bundle is known, and
    /// nothing but a status reads them.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// What a verified digest turned out to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOrIndex {
    /// A policy image.
    Image(Verified<PolicyManifest>),
    /// An index, whose one manifest of a policy image has to be fetched and opened next.
    Index(Verified<IndexedManifest>),
}

/// The one manifest of an index that can be a policy image. It is no [`ImageRevision`], so it cannot be opened as an index
/// again: an index of indexes ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedManifest {
    descriptor: Descriptor,
}

impl IndexedManifest {
    /// What to fetch, from the repository of the revision.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

impl Verified<ImageRevision> {
    /// Reads the manifest whose digest was verified. `media_type` is the `Content-Type` of the response without
    /// parameters, or empty.
    ///
    /// # Errors
    /// [`ManifestError`], also if `bytes` do not hash to the verified digest.
    pub fn open(&self, media_type: &str, bytes: &[u8]) -> Result<ImageOrIndex, ManifestError> {
        match wire::read(&self.value().digest, media_type, bytes)? {
            wire::Document::Image(image) => Ok(ImageOrIndex::Image(self.carry_over(select::bundle(*image)?))),
            wire::Document::Index(index) => {
                let descriptor = select::indexed_manifest(index)?;
                Ok(ImageOrIndex::Index(self.carry_over(IndexedManifest { descriptor })))
            }
        }
    }
}

impl Verified<IndexedManifest> {
    /// Reads the manifest that the verified index names.
    ///
    /// # Errors
    /// [`ManifestError`], also if `bytes` do not hash to the digest in the index, or are an index again.
    pub fn open(&self, media_type: &str, bytes: &[u8]) -> Result<Verified<PolicyManifest>, ManifestError> {
        let descriptor = &self.value().descriptor;
        if bytes.len() as u64 != descriptor.size {
            return Err(ManifestError::SizeMismatch {
                declared: descriptor.size,
                actual: bytes.len() as u64,
            });
        }
        match wire::read(&descriptor.digest, media_type, bytes)? {
            wire::Document::Image(image) => Ok(self.carry_over(select::bundle(*image)?)),
            wire::Document::Index(_) => Err(ManifestError::NestedIndex),
        }
    }
}

/// Reads an image manifest that is not (or not yet) a policy image: its `subject`, if any, and its layers.
///
/// # Errors
/// [`ManifestError`], also if `bytes` do not hash to `digest` or are an index.
pub fn attachment(
    digest: &Digest,
    media_type: &str,
    bytes: &[u8],
) -> Result<(Option<Digest>, Vec<Descriptor>), ManifestError> {
    match wire::read(digest, media_type, bytes)? {
        wire::Document::Image(image) => Ok((image.subject.map(|subject| subject.digest), image.layers)),
        wire::Document::Index(_) => Err(ManifestError::NestedIndex),
    }
}

#[cfg(test)]
mod tests;

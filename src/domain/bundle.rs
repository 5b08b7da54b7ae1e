//! OPA bundles: reading them within limits, and what we learn from it.

use std::io;
use std::sync::Arc;

use super::artifact::PolicyManifest;
use super::digest::Digest;
use super::trust::Verified;

/// Bytes that are kept somewhere and can be read more than once.
pub trait Content: std::fmt::Debug + Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;
    /// Starts reading at the first byte.
    ///
    /// # Errors
    /// Whatever the store says.
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>>;
}

/// What a bundle may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Compressed bytes.
    pub compressed_bytes: u64,
    /// Bytes after decompression, all entries, headers and padding together.
    pub expanded_bytes: u64,
    /// Expanded bytes per compressed byte.
    pub ratio: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Directories in one path.
    pub path_depth: usize,
    /// Bytes of `.manifest`.
    pub manifest_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed_bytes: 64 << 20,
            expanded_bytes: 100 << 20,
            ratio: 200,
            entries: 10_000,
            path_bytes: 512,
            path_depth: 32,
            manifest_bytes: 1 << 20,
        }
    }
}

/// What reading a bundle tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFacts {
    /// The digest of the `bundle.tar.gz` bytes: the *content identity*.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// `revision` of `.manifest`, empty where there is none.
    pub revision: String,
    /// `roots` of `.manifest`; `[""]` where there are none, which claims all of OPA's data.
    pub roots: Vec<String>,
    /// `rego_version` of `.manifest`: 0 or 1; none where the manifest does not say.
    pub rego_version: Option<u8>,
    /// The paths of all regular files, without a leading slash, sorted.
    pub files: Vec<String>,
}

/// A bundle and where its bytes are.
#[derive(Debug, Clone)]
pub struct Bundle {
    facts: Arc<BundleFacts>,
    content: Arc<dyn Content>,
}

/// Why a bundle is refused. Placeholder variants, to be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Broken.
    #[error("{0}")]
    Invalid(String),
}

impl Bundle {
    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &Arc<BundleFacts> {
        &self.facts
    }
}

impl Verified<PolicyManifest> {
    /// Reads the bundle that the verified manifest names.
    ///
    /// # Errors
    /// [`BundleError`], also where the bytes do not hash to the layer's digest.
    pub fn bundle(&self, content: Arc<dyn Content>, _limits: &Limits) -> Result<Verified<Bundle>, BundleError> {
        let _ = content;
        Err(BundleError::Invalid("not written yet".into()))
    }
}

impl Verified<Bundle> {
    /// The bytes to deliver, hashed once more on the way out of the store.
    ///
    /// # Errors
    /// [`BundleError`] where they cannot be read, are more than `limit`, or are not the verified bytes.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>, BundleError> {
        let _ = (limit, &self.value().content);
        Err(BundleError::Invalid("not written yet".into()))
    }
}

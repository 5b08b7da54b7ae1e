//! From a verified digest to the manifest, and on to the bundle it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocking::{BlockingWork, Interrupted};
use super::ports::{ManifestName, RawManifest, Registry, RegistryError};
use super::reason::{Classify, Disposition, Reason};
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::{ImageOrIndex, ManifestError, PolicyManifest};
use crate::domain::bundle::{Bundle, BundleError, BundleFacts, Limits};
use crate::domain::digest::Digest;
use crate::domain::reference::Repository;
use crate::domain::revision::ImageRevision;
use crate::domain::source::ImageSource;
use crate::domain::trust::Verified;

/// A bundle, and what its image says about it.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// The bundle, with the verification of the digest that led to it.
    pub bundle: Verified<Bundle>,
    /// The image's annotations.
    pub annotations: Arc<BTreeMap<String, String>>,
}

impl Acquired {
    /// About how many bytes it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let facts = self.bundle.value().facts().memory_bytes();
        size_of::<Self>() + facts + annotations_bytes(&self.annotations)
    }

    /// What there is to report about it.
    #[must_use]
    pub fn summary(&self) -> BundleSummary {
        BundleSummary {
            facts: Arc::clone(self.bundle.value().facts()),
            annotations: Arc::clone(&self.annotations),
        }
    }
}

/// What is reported about a bundle: what was found in it, and what its image says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSummary {
    /// What was found in it.
    pub facts: Arc<BundleFacts>,
    /// The image's annotations.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// Why a verified digest does not lead to a bundle.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// The registry did not return what was requested.
    #[error(transparent)]
    Fetch(RegistryError),
    /// The manifest is not that of a policy image.
    #[error(transparent)]
    OpenManifest(ManifestError),
    /// Too large for every delivery, or to be read at all. Nothing of it was fetched.
    #[error("the bundle has {size} bytes, and at most {limit} can be delivered")]
    LimitSize {
        /// The bundle's size, as its manifest says.
        size: u64,
        /// The most that could be delivered.
        limit: u64,
    },
    /// The layer is not a bundle that may be delivered.
    #[error(transparent)]
    ReadBundle(BundleError),
    /// The thread that read the bundle did not complete.
    #[error("reading the bundle was interrupted")]
    Interrupted(#[from] Interrupted),
}

impl Classify for AcquireError {
    fn reason(&self) -> Reason {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::OpenManifest(error) => error.reason(),
            Self::ReadBundle(error) => error.reason(),
            Self::LimitSize { .. } => Reason::TooLarge,
            Self::Interrupted(_) => Reason::Internal,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Fetch(error) => error.disposition(),
            Self::OpenManifest(error) => error.disposition(),
            Self::ReadBundle(error) => error.disposition(),
            Self::LimitSize { .. } => Disposition::Stalled,
            Self::Interrupted(_) => Disposition::Retry,
        }
    }
}

/// Fetches and reads the manifest that a verified revision names, through an index if there is one.
///
/// # Errors
/// [`AcquireError`].
pub(super) async fn open<R: Registry>(
    registry: &R,
    source: &ImageSource,
    revision: &Verified<ImageRevision>,
) -> Result<Verified<PolicyManifest>, AcquireError> {
    let (repository, access) = (&revision.value().repository, source.access());
    let opened = {
        // Gone before the next is waited for: it may be megabytes.
        let raw = fetch(registry, repository, revision.value().digest, access).await?;
        revision.open(&raw.media_type, &raw.bytes)
    };
    match opened.map_err(AcquireError::OpenManifest)? {
        ImageOrIndex::Image(manifest) => Ok(manifest),
        ImageOrIndex::Index(indexed) => {
            let raw = fetch(registry, repository, indexed.value().descriptor().digest, access).await?;
            indexed
                .open(&raw.media_type, &raw.bytes)
                .map_err(AcquireError::OpenManifest)
        }
    }
}

/// About how many bytes annotations take in memory.
pub(super) fn annotations_bytes(annotations: &BTreeMap<String, String>) -> usize {
    let entries = annotations.iter();
    let bytes = entries.map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
    bytes.sum()
}

/// Fetches the bundle that a verified manifest names, from the repository of its revision, and reads it within `limits`.
/// A bundle of more than `largest` bytes, which nothing could take, is not requested.
///
/// # Errors
/// [`AcquireError`].
pub(super) async fn acquire<R: Registry>(
    registry: &R,
    repository: &Repository,
    access: &RegistryAccess,
    manifest: Verified<PolicyManifest>,
    limits: Limits,
    largest: u64,
    blocking: &BlockingWork,
) -> Result<Acquired, AcquireError> {
    let PolicyManifest { bundle, annotations } = manifest.value().clone();
    let limit = largest.min(limits.compressed_bytes);
    if bundle.size > limit {
        let size = bundle.size;
        return Err(AcquireError::LimitSize { size, limit });
    }
    let content = registry.blob(repository, &bundle, access).await;
    let content = content.map_err(AcquireError::Fetch)?;
    // Inflating megabytes would block every other object on this thread.
    let read = blocking.run(&access.tenant, move |token| manifest.bundle(content, &limits, token));
    Ok(Acquired {
        bundle: read.await?.map_err(AcquireError::ReadBundle)?,
        annotations,
    })
}

async fn fetch<R: Registry>(
    registry: &R,
    repository: &Repository,
    digest: Digest,
    access: &RegistryAccess,
) -> Result<RawManifest, AcquireError> {
    registry
        .manifest(repository, &ManifestName::Digest(digest), access)
        .await
        .map_err(AcquireError::Fetch)
}

#[cfg(test)]
mod tests;

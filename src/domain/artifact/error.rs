//! Why a manifest is refused.

use super::{BUNDLE_LAYER, MAX_ENTRIES};
use crate::domain::digest::Digest;

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Over [`super::MAX_MANIFEST_BYTES`].
    #[error("the manifest is larger than 4 MiB")]
    TooLarge,
    /// Over [`MAX_ENTRIES`].
    #[error("the manifest has {found} entries, and at most {MAX_ENTRIES} are read")]
    LimitEntries {
        /// How many there are.
        found: usize,
    },
    /// The bytes do not hash to the digest that was verified.
    #[error("the manifest has digest {actual}, not {expected}; nothing of it was used")]
    DigestMismatch {
        /// The digest that was verified.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// An index gives another size for the manifest.
    #[error("the manifest has {actual} bytes, and its index says {declared}")]
    SizeMismatch {
        /// The size in the index.
        declared: u64,
        /// The size of what came.
        actual: u64,
    },
    /// Not the JSON of a manifest, or JSON that two readers could take differently.
    #[error("the manifest cannot be read: {cause}")]
    ParseJson {
        /// What is wrong with it.
        cause: String,
    },
    /// Not version 2.
    #[error("the manifest has schema version {0}, not 2")]
    SchemaVersion(u64),
    /// A descriptor with a negative size.
    #[error("the manifest gives a size of {0} bytes")]
    NegativeSize(i64),
    /// Neither an image manifest nor an index.
    #[error("'{0}' is neither an image manifest nor an index")]
    MediaType(String),
    /// `Content-Type` and the manifest's own `mediaType` differ.
    #[error("the registry calls the manifest '{header}', and it calls itself '{body}'")]
    MediaTypeMismatch {
        /// The `Content-Type` header.
        header: String,
        /// The manifest's `mediaType`.
        body: String,
    },
    /// Manifest and index at once, or neither.
    #[error("the manifest's 'layers' and 'manifests' do not match its media type")]
    Ambiguous,
    /// An index within an index.
    #[error("the index names another index")]
    NestedIndex,
    /// An index without a candidate.
    #[error("the index names no image manifest")]
    EmptyIndex,
    /// An index with several candidates.
    #[error("the index names {found} image manifests, and policies do not differ by platform")]
    AmbiguousIndex {
        /// How many candidates there are.
        found: usize,
    },
    /// An image of another kind.
    #[error("this is {kind} (layers: {layers}); a policy image has a layer '{BUNDLE_LAYER}' with an OPA bundle")]
    NotAPolicyImage {
        /// What it seems to be.
        kind: &'static str,
        /// The media types of its layers, or "none".
        layers: String,
    },
}

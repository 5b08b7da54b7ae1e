//! OPA bundles: reading them within limits, and what is found in them.
//!
//! A bundle is `bundle.tar.gz` as `opa build` writes it. It is delivered byte for byte and never unpacked here; it is
//! read once, as a stream, to refuse what could hurt its consumers or mean something else to them than to us.
//!
//! **Security invariant:** memory is bounded by [`Limits`], not by the content: nothing of the archive is held but its
//! paths and its `.manifest`, and only until they have been checked.

mod archive;
mod error;
mod header;
mod manifest;
mod paths;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

use std::io::{self, Read as _};
use std::sync::Arc;

use super::artifact::PolicyManifest;
use super::cancellation::CancellationToken;
use super::digest::{Digest, Hasher};
use super::trust::Verified;
pub use error::BundleError;
use stream::HashingReader;

/// Bytes that are kept somewhere and can be read more than once.
pub trait Content: std::fmt::Debug + Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;
    /// Starts reading at the first byte.
    ///
    /// # Errors
    /// The error of the store.
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>>;
    /// Marks the bytes as corrupt, so that they are not handed out again.
    fn discard(&self) {}
}

/// What a bundle may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Compressed bytes.
    pub compressed_bytes: u64,
    /// Bytes after decompression, all entries, headers and padding together.
    pub expanded_bytes: u64,
    /// Expanded bytes per compressed byte. Not applied to the first MiB: tiny bundles compress well.
    pub ratio: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Names in one path, the file's own included.
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

/// What is found in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFacts {
    /// The digest of the `bundle.tar.gz` bytes: the *content identity*.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// `revision` of `.manifest`, empty if there is none.
    pub revision: String,
    /// `roots` of `.manifest`; `[""]` if there are none, which claims all of OPA's data.
    pub roots: Vec<String>,
    /// `rego_version` of `.manifest`: 0 or 1; `None` if the manifest does not say.
    pub rego_version: Option<u8>,
    /// How many regular files there are.
    pub files: usize,
}

impl BundleFacts {
    /// About how many bytes they take in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let roots = self.roots.iter().map(|root| root.len() + size_of::<String>());
        size_of::<Self>() + self.revision.len() + roots.sum::<usize>()
    }
}

/// A bundle and where its bytes are.
#[derive(Debug, Clone)]
pub struct Bundle {
    facts: Arc<BundleFacts>,
    content: Arc<dyn Content>,
}

impl Bundle {
    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &Arc<BundleFacts> {
        &self.facts
    }
}

impl Bundle {
    /// Whether the bytes are still where they were.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.content.open().is_ok()
    }
}

impl Verified<PolicyManifest> {
    /// Reads the bundle that the verified manifest names. Blocks: takes about 3 ms per MiB, unless it is cancelled.
    ///
    /// # Errors
    /// [`BundleError`], also if the bytes do not hash to the layer's digest.
    pub fn bundle(
        &self,
        content: Arc<dyn Content>,
        limits: &Limits,
        token: &CancellationToken,
    ) -> Result<Verified<Bundle>, BundleError> {
        let layer = &self.value().bundle;
        if layer.size > limits.compressed_bytes {
            return Err(BundleError::limit("compressed bytes", limits.compressed_bytes));
        }
        let reader = content.open().map_err(|error| BundleError::read(&error))?;
        let mut source = HashingReader::new(reader, layer.size, token);
        let read = archive::read(&mut source, layer.size, limits);
        // What the bytes are comes before what is wrong with them: damaged on the way, they may be fetched again.
        source.finish(&layer.digest).inspect_err(|error| {
            if *error != BundleError::Cancelled {
                content.discard();
            }
        })?;
        let facts = read?.into_facts(layer.digest, layer.size)?;
        Ok(self.carry_over(Bundle {
            facts: Arc::new(facts),
            content,
        }))
    }
}

impl Verified<Bundle> {
    /// The bytes to deliver, hashed once more on the way out of the store.
    ///
    /// # Errors
    /// [`BundleError`] if they cannot be read, are more than `limit`, or are not the verified bytes.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>, BundleError> {
        let Bundle { facts, content } = self.value();
        if facts.size > limit {
            return Err(BundleError::limit("compressed bytes", limit));
        }
        let mut bytes = Vec::new();
        let reader = content.open().map_err(|error| BundleError::read(&error))?;
        // One byte more than there should be, so that a longer content shows.
        let mut reader = reader.take(facts.size.saturating_add(1));
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| BundleError::read(&error))?;
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        let checked = error::check(hasher.finish(), bytes.len() as u64, &facts.digest, facts.size);
        checked.inspect_err(|_| content.discard())?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;

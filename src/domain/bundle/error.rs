//! Why a bundle is refused.

use std::io;

use crate::domain::digest::Digest;

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The store could not be read.
    #[error("the stored bundle cannot be read: {cause}")]
    Read {
        /// What the operating system said.
        cause: String,
    },
    /// The caller does not wait for the bundle any more.
    #[error("reading the bundle was cancelled")]
    Cancelled,
    /// The bytes do not hash to the verified digest.
    #[error("the bundle has digest {actual}, not {expected}; nothing of it was used")]
    DigestMismatch {
        /// The verified digest.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// There are fewer or more bytes than the manifest says.
    #[error("the bundle does not have the {declared} bytes that its manifest says; nothing of it was used")]
    SizeMismatch {
        /// The size in the manifest.
        declared: u64,
    },
    /// Over one of the [`super::Limits`].
    #[error("the bundle is over the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Not gzip.
    #[error("the layer is {found}, not gzip")]
    NotGzip {
        /// What the first bytes look like.
        found: &'static str,
    },
    /// Damaged gzip.
    #[error("the bundle's gzip is damaged: {cause}")]
    Gzip {
        /// What the decompressor said.
        cause: String,
    },
    /// Bytes after the end of the gzip member or of the archive.
    #[error("there are bytes after the end of {0}, which not every reader would read")]
    TrailingBytes(&'static str),
    /// A header that not every reader interprets alike.
    #[error("entry {entry} of the bundle's archive {cause}")]
    Header {
        /// Which header, counted from 1.
        entry: u64,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A link, device or other entry that is neither file nor directory.
    #[error("'{path}' in the bundle is {kind}; a bundle holds regular files only")]
    EntryKind {
        /// The entry's path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A path that a reader could take to lie elsewhere.
    #[error("the path '{path}' in the bundle {cause}")]
    Path {
        /// The path, cut and escaped.
        path: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// Two entries for one path.
    #[error(
        "'{path}' is in the bundle twice, or differs from another path only in case; readers would differ in which one wins"
    )]
    Duplicate {
        /// The second of the two.
        path: String,
    },
    /// A file where another path needs a directory.
    #[error("'{path}' in the bundle is a file and a directory at once")]
    FileAndDirectory {
        /// The path.
        path: String,
    },
    /// A second manifest.
    #[error("OPA would take '{path}' for the bundle's manifest; only '.manifest' at the root may have that ending")]
    SecondManifest {
        /// Its path.
        path: String,
    },
    /// `.manifest` cannot be read.
    #[error("the bundle's '.manifest' cannot be read: {cause}")]
    Manifest {
        /// What is wrong with it.
        cause: String,
    },
    /// Two roots of which one contains the other.
    #[error("the roots '{one}' and '{other}' in the bundle's '.manifest' overlap, which OPA refuses")]
    OverlappingRoots {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// Data that OPA would refuse.
    #[error("'{path}' lies outside the roots in the bundle's '.manifest', which OPA refuses")]
    OutsideRoots {
        /// The data file.
        path: String,
    },
    /// A delta bundle.
    #[error("this is a delta bundle ('patch.json'), which changes data of a running OPA")]
    Delta,
    /// Nothing that OPA reads.
    #[error("the bundle holds no file that OPA reads ({found})")]
    Empty {
        /// What it holds instead.
        found: String,
    },
}

impl BundleError {
    pub(super) fn limit(what: &'static str, limit: u64) -> Self {
        Self::Limit { what, limit }
    }

    pub(super) fn read(error: &io::Error) -> Self {
        // The kind alone: the text of a store's error may hold paths.
        Self::Read {
            cause: error.kind().to_string(),
        }
    }

    /// An error that came up through a reader: ours, or else the decompressor's.
    pub(super) fn from_stream(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::Gzip {
                cause: error.to_string().chars().take(120).collect(),
            },
        }
    }
}

/// Checks what came against what was verified.
pub(super) fn check(actual: Digest, size: u64, expected: &Digest, declared: u64) -> Result<(), BundleError> {
    if size != declared {
        return Err(BundleError::SizeMismatch { declared });
    }
    if actual != *expected {
        return Err(BundleError::DigestMismatch {
            expected: *expected,
            actual,
        });
    }
    Ok(())
}

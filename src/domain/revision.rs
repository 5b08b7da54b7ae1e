//! What a source resolved to in one run.

use std::fmt;

use super::digest::Digest;
use super::reference::{Repository, Tag};

/// The one content that this run is about, by the kind of its source.
///
/// Every later step uses the digest that the source named when it was resolved, once. Nothing looks at the tag again: a
/// tag may move between two requests, and then one image would be verified and another delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// An image in a registry.
    Image(ImageRevision),
}

impl Revision {
    /// The digest that pins the content: that of the image's manifest or index.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Image(image) => &image.digest,
        }
    }
}

/// The pinned form: `registry.example/acme/policy@sha256:…`.
impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => image.fmt(formatter),
        }
    }
}

/// A repository, and the digest that its tag, version range or pin named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRevision {
    /// Where the image is.
    pub repository: Repository,
    /// The digest of its manifest or index: the *pin*.
    pub digest: Digest,
    /// The tag that was followed; `None` if the reference pins a digest.
    pub tag: Option<Tag>,
}

/// The pinned form: `registry.example/acme/policy@sha256:…`.
impl fmt::Display for ImageRevision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.repository, self.digest)
    }
}

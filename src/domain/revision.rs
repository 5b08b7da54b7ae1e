//! What a source resolved to in one run.

use super::digest::Digest;
use super::reference::{Repository, Tag};

/// The one content that this run is about: a repository, and the digest that its tag, version range or pin named when
/// it was asked, once. Every later step uses the digest; nothing looks at the tag again (a tag may move between two
/// requests, and then one image would be verified and another delivered).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Where the image is.
    pub repository: Repository,
    /// The digest of its manifest or index: the *pin*.
    pub digest: Digest,
    /// The tag that was followed; none where the reference pins a digest.
    pub tag: Option<Tag>,
}

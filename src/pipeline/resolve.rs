//! From a source to the one revision of a run.

use super::ports::{Registry, RegistryError};
use super::reason::{Classify, Disposition, Reason};
use crate::domain::reference::Repository;
use crate::domain::revision::ImageRevision;
use crate::domain::source::{ImageSource, Selection};

/// Why a source does not lead to content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The registry could not be queried.
    #[error(transparent)]
    QueryRegistry(RegistryError),
    /// No tag is in the range.
    #[error("none of the {count} tags of '{repository}' is in the range '{range}'")]
    MatchRange {
        /// The repository.
        repository: Repository,
        /// The range.
        range: String,
        /// How many tags there were.
        count: usize,
    },
}

impl Classify for ResolveError {
    fn reason(&self) -> Reason {
        match self {
            Self::QueryRegistry(error) => error.reason(),
            Self::MatchRange { .. } => Reason::NoMatchingTag,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::QueryRegistry(error) => error.disposition(),
            // As with a tag that is not there yet: a push may follow.
            Self::MatchRange { .. } => Disposition::Retry,
        }
    }
}

/// Resolves `source` with at most two requests to the registry, and none for a digest.
///
/// # Errors
/// [`ResolveError`].
pub(super) async fn resolve<R: Registry>(registry: &R, source: &ImageSource) -> Result<ImageRevision, ResolveError> {
    let (repository, access) = (source.repository(), source.access());
    let tag = match source.selection() {
        Selection::Digest(digest) => {
            return Ok(ImageRevision {
                repository: repository.clone(),
                digest: *digest,
                tag: None,
            });
        }
        Selection::Tag(tag) => tag.clone(),
        Selection::Range(range) => {
            let mut highest = range.highest();
            let listed = registry.tags(repository, access, &mut |tag| highest.offer(tag)).await;
            let count = listed.map_err(ResolveError::QueryRegistry)?;
            highest.into_tag().ok_or_else(|| ResolveError::MatchRange {
                repository: repository.clone(),
                range: range.to_string(),
                count,
            })?
        }
    };
    let digest = registry
        .resolve(repository, &tag, access)
        .await
        .map_err(ResolveError::QueryRegistry)?;
    Ok(ImageRevision {
        repository: repository.clone(),
        digest,
        tag: Some(tag),
    })
}

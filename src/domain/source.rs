//! The source of a policy: a digest, a tag, or a range of versions in a repository.

use std::fmt;
use std::sync::Arc;

use semver::{Version, VersionReq};

use super::access::RegistryAccess;
use super::digest::Digest;
use super::reference::{ImageReference, Repository, Tag};

/// Where a policy comes from, parsed once at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image in a registry.
    Image(ImageSource),
}

/// Images of one repository, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSource {
    repository: Repository,
    selection: Selection,
    /// Shared by all requests of a run.
    access: Arc<RegistryAccess>,
}

/// Which content of the repository is selected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selection {
    /// Exactly this manifest.
    Digest(Digest),
    /// Whatever the tag points at.
    Tag(Tag),
    /// The highest tag in the range.
    Range(VersionRange),
}

/// Why image and range do not form a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A tag or digest beside a range.
    #[error("a version range picks the tag, so image '{0}' can have neither a tag nor a digest")]
    Conflict(String),
    /// The range does not parse.
    #[error("'{range}' is not a version range such as '>=1.2.0 <2.0.0', '1.x' or '^1.2': {cause}")]
    ParseRange {
        /// What was written.
        range: String,
        /// What the grammar objects to.
        cause: String,
    },
}

impl Source {
    /// Whether it names one content for ever, so that a result about it is never out of date.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        match self {
            Self::Image(image) => matches!(image.selection, Selection::Digest(_)),
        }
    }
}

impl ImageSource {
    /// Joins an image reference, an optional version range, and the way to the registry.
    ///
    /// # Errors
    /// [`SourceError`] if both name a version, or the range is no range.
    pub fn new(image: &ImageReference, semver: Option<&str>, access: RegistryAccess) -> Result<Self, SourceError> {
        let selection = match (semver, image.digest(), image.tag()) {
            (Some(range), ..) if image.is_bare() => Selection::Range(VersionRange::parse(range)?),
            (Some(_), ..) => return Err(SourceError::Conflict(image.to_string())),
            (None, Some(digest), _) => Selection::Digest(*digest),
            (None, None, Some(tag)) => Selection::Tag(tag.clone()),
            // A reference has a tag or a digest; the range that allows any release stands for neither.
            (None, None, None) => Selection::Range(VersionRange::parse("*")?),
        };
        Ok(Self {
            repository: image.repository().clone(),
            selection,
            access: Arc::new(access),
        })
    }

    /// The same repository, reached in the same way, and exactly this manifest in it.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            selection: Selection::Digest(digest),
            ..self.clone()
        }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Which content of it is selected.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// How the registry is reached.
    #[must_use]
    pub fn access(&self) -> &RegistryAccess {
        &self.access
    }
}

/// A range of semantic versions: comparators joined by spaces or commas, alternatives joined by `||`. A version without
/// an operator means itself (`1.2.3`) or all it leaves open (`1.2`, `1.x`), as in npm, Helm and Flux.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionRange {
    text: String,
    alternatives: Vec<VersionReq>,
}

impl VersionRange {
    /// Parses a range.
    ///
    /// # Errors
    /// [`SourceError::ParseRange`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let alternatives = text
            .split("||")
            .map(|alternative| comparators(alternative).parse())
            .collect::<Result<Vec<VersionReq>, _>>()
            .map_err(|error| SourceError::ParseRange {
                range: text.chars().take(130).collect(),
                cause: error.to_string(),
            })?;
        Ok(Self {
            text: text.to_owned(),
            alternatives,
        })
    }

    /// Keeps the highest of the tags in the range that it is offered.
    #[must_use]
    pub fn highest(&self) -> HighestTag<'_> {
        HighestTag {
            range: self,
            best: None,
        }
    }

    fn contains(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|range| range.matches(version))
    }
}

/// The highest tag in a range, of those offered so far. A repository has thousands of tags, and one of them is needed.
#[derive(Debug)]
pub struct HighestTag<'a> {
    range: &'a VersionRange,
    best: Option<(Version, Tag)>,
}

impl HighestTag<'_> {
    /// Takes `tag` if it is higher than those before. A tag that is not a version is passed over; a leading `v` is
    /// ignored. Of `1.2.3` and `v1.2.3` the plain one is taken.
    pub fn offer(&mut self, tag: Tag) {
        let is_plain = |tag: &Tag| !tag.as_str().starts_with('v');
        let text = tag.as_str();
        let Ok(version) = Version::parse(text.strip_prefix('v').unwrap_or(text)) else {
            return;
        };
        let is_higher = self
            .best
            .as_ref()
            .is_none_or(|(best, taken)| (&version, is_plain(&tag)) > (best, is_plain(taken)));
        if is_higher && self.range.contains(&version) {
            self.best = Some((version, tag));
        }
    }

    /// The tag, if one was in the range.
    #[must_use]
    pub fn into_tag(self) -> Option<Tag> {
        self.best.map(|(_, tag)| tag)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Rewrites comparators to what the `semver` crate reads: commas between them, no space after an operator, and `=`
/// before a version without one (that crate would read `1.2.3` as `^1.2.3`).
fn comparators(text: &str) -> String {
    let mut rewritten = String::with_capacity(text.len() + 8);
    let mut operator_pending = false;
    for word in text.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        if !rewritten.is_empty() && !operator_pending {
            rewritten.push(',');
        }
        let bare = word.starts_with(|first: char| first.is_ascii_digit());
        let open = word.contains(['x', 'X', '*']);
        if bare && !open && !operator_pending {
            rewritten.push('=');
        }
        rewritten.push_str(word);
        operator_pending = word.chars().all(|letter| "<>=^~".contains(letter));
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const TAGS: &[&str] = &[
        "latest",
        "1.0.0",
        "1.2.0",
        "v1.2.0",
        "1.2.9",
        "1.10.0",
        "2.0.0-rc.1",
        "2.0.0",
        "v2.1.0",
        "sha256-abc",
        "3",
    ];

    #[rstest]
    #[case("*", Some("v2.1.0"))]
    #[case("1.x", Some("1.10.0"))]
    #[case("1.2", Some("1.2.9"))]
    #[case("1.2.0", Some("1.2.0"))]
    #[case("^1.2", Some("1.10.0"))]
    #[case("~1.2.0", Some("1.2.9"))]
    #[case(">=1.2.0 <2.0.0", Some("1.10.0"))]
    #[case(">=1.2.0, <2.0.0", Some("1.10.0"))]
    #[case(">= 1.2.0 < 1.10.0", Some("1.2.9"))]
    #[case("1.0.0 || 2.0.0", Some("2.0.0"))]
    #[case(">=2.0.0-rc.0 <2.0.0", Some("2.0.0-rc.1"))]
    #[case(">=3.0.0", None)]
    fn picks_the_highest_tag_in_the_range(#[case] range: &str, #[case] expected: Option<&str>) {
        let range = VersionRange::parse(range).unwrap();
        for reversed in [false, true] {
            let mut tags: Vec<Tag> = TAGS.iter().map(|tag| tag.parse().unwrap()).collect();
            if reversed {
                tags.reverse();
            }
            let mut highest = range.highest();
            for tag in tags {
                highest.offer(tag);
            }
            assert_eq!(highest.into_tag().as_ref().map(Tag::as_str), expected);
        }
    }

    #[rstest]
    #[case("")]
    #[case("newest")]
    #[case("1.2.3.4")]
    #[case(">>1.0.0")]
    #[case("1.0.0 ||")]
    #[case("1.0 - 2.0")]
    fn refuses_what_is_no_range(#[case] range: &str) {
        assert!(VersionRange::parse(range).is_err(), "{range}");
    }

    #[rstest]
    #[case("ghcr.io/acme/p:1.0")]
    #[case("ghcr.io/acme/p:latest")]
    #[case("ghcr.io/acme/p@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    fn a_range_excludes_tag_and_digest(#[case] image: &str) {
        let error = ImageSource::new(&image.parse().unwrap(), Some("1.x"), RegistryAccess::default()).unwrap_err();
        assert_eq!(error, SourceError::Conflict(image.to_owned()));
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let image = format!("ghcr.io/acme/p:1.0@sha256:{hex}").parse().unwrap();
        let source = ImageSource::new(&image, None, RegistryAccess::default()).unwrap();
        assert!(matches!(source.selection(), Selection::Digest(digest) if digest.hex() == hex));
    }

    proptest! {
        #[test]
        fn never_panics_on_any_range(text in "[ 0-9.x*<>=^~|,v-]{0,40}") {
            let _ = VersionRange::parse(&text);
        }
    }
}

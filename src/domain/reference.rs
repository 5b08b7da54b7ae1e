//! Image references: which repository, and which tag or digest in it.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference;

use super::digest::{Digest, DigestError};

/// A repository in a registry, normalised as Docker does: `acme/policy` is `docker.io/acme/policy`, and `policy` is
/// `docker.io/library/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    path: String,
}

impl Repository {
    /// The registry's host in lower case, with its port if one was written: `ghcr.io`, `registry.acme.example:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path below the host, without a leading slash: `acme/policy`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.host, self.path)
    }
}

/// A tag: at most 128 characters of `[A-Za-z0-9_.-]`, the first neither `.` nor `-`.
/// Source: OCI distribution specification, "Pulling manifests".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which a registry without a referrers API lists what refers to `digest`.
    /// Source: OCI distribution specification, "Referrers tag schema".
    #[must_use]
    pub fn referrers_fallback(digest: &Digest) -> Self {
        Self(format!("sha256-{}", digest.hex()))
    }

    /// The tag under which cosign keeps legacy signatures of `digest`.
    #[must_use]
    pub fn cosign_signatures(digest: &Digest) -> Self {
        Self(format!("sha256-{}.sig", digest.hex()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if word(*first) && rest.len() < 128 && rest.iter().all(|byte| word(*byte) || b".-".contains(byte)) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(ReferenceError::ParseTag(text.chars().take(140).collect())),
        }
    }
}

/// `[host/]repository[:tag][@digest]`. At least one of tag and digest is present; the tag is `latest` only if
/// neither was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
    bare: bool,
}

/// Why a text is not an [`ImageReference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text has a URL scheme.
    #[error("image '{0}' starts with a scheme")]
    Scheme(String),
    /// The text does not follow the grammar.
    #[error("image '{image}' is not '[host/]repository[:tag][@sha256:digest]': {cause}")]
    ParseReference {
        /// What was written.
        image: String,
        /// What the grammar objects to.
        cause: String,
    },
    /// The digest is malformed or uses another algorithm.
    #[error("image '{image}': {source}")]
    ParseDigest {
        /// What was written.
        image: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
    /// A tag that breaks the grammar.
    #[error("tag '{0}' is not 1 to 128 characters of [A-Za-z0-9_.-] that start with a letter, a digit or '_'")]
    ParseTag(String),
}

impl ImageReference {
    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag: as written, or `latest` if neither tag nor digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written. It wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether neither tag nor digest was written.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(300).collect::<String>();
        if text.contains("://") {
            return Err(ReferenceError::Scheme(shown()));
        }
        let parsed = text
            .parse::<Reference>()
            .map_err(|cause| ReferenceError::ParseReference {
                image: shown(),
                cause: cause.to_string(),
            })?;
        let digest = parsed
            .digest()
            .map(str::parse)
            .transpose()
            .map_err(|source| ReferenceError::ParseDigest { image: shown(), source })?;
        let written_tag = text
            .split('@')
            .next()
            .and_then(|name| name.rsplit('/').next())
            .is_some_and(|last| last.contains(':'));
        Ok(Self {
            repository: Repository {
                host: parsed.registry().to_ascii_lowercase(),
                path: parsed.repository().to_owned(),
            },
            tag: parsed.tag().map(str::parse).transpose()?,
            bare: digest.is_none() && !written_tag,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[rstest]
    #[case::official("policy", "docker.io/library/policy:latest", true)]
    #[case::hub("acme/policy:1.0", "docker.io/acme/policy:1.0", false)]
    #[case::legacy_hub("index.docker.io/acme/policy", "docker.io/acme/policy:latest", true)]
    #[case::port("localhost:5000/policy", "localhost:5000/policy:latest", true)]
    #[case::host_case("GHCR.io/acme/policy:V1", "ghcr.io/acme/policy:V1", false)]
    fn normalises_as_docker_does(#[case] text: &str, #[case] normal: &str, #[case] bare: bool) {
        let reference: ImageReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), normal);
        assert_eq!(reference.is_bare(), bare);
    }

    #[test]
    fn keeps_tag_and_digest_side_by_side() {
        let text = format!("ghcr.io/acme/policy:1.0@sha256:{HEX}");
        let reference: ImageReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        assert_eq!(reference.digest().unwrap().hex(), HEX);
        let pinned: ImageReference = format!("ghcr.io/acme/policy@sha256:{HEX}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.is_bare()), (None, false));
    }

    #[rstest]
    #[case::empty("")]
    #[case::scheme("oci://ghcr.io/acme/policy")]
    #[case::upper_case_path("ghcr.io/Acme/policy")]
    #[case::space("ghcr.io/acme/pol icy")]
    #[case::traversal("ghcr.io/../policy")]
    #[case::userinfo("user:secret@ghcr.io/acme/policy")]
    #[case::sha512("ghcr.io/acme/policy@sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case::short_digest("ghcr.io/acme/policy@sha256:e3b0c44298fc1c149afbf4c8996fb924")]
    #[case::upper_digest("ghcr.io/acme/policy@sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")]
    #[case::newline("ghcr.io/acme/policy:1.0\n")]
    fn refuses_what_is_no_reference(#[case] text: &str) {
        assert!(text.parse::<ImageReference>().is_err());
    }

    #[test]
    fn tags_of_signatures_and_referrers_are_derived_from_the_digest() {
        let digest = Digest::of(b"");
        assert_eq!(Tag::referrers_fallback(&digest).as_str(), format!("sha256-{HEX}"));
        assert_eq!(Tag::cosign_signatures(&digest).as_str(), format!("sha256-{HEX}.sig"));
    }

    proptest! {
        #[test]
        fn what_it_writes_it_reads_back(text in "([a-z]{1,5}\\.example(:[1-9][0-9]{1,3})?/)?[a-z]{1,6}(/[a-z0-9]{1,6}){0,2}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,9})?") {
            let reference: ImageReference = text.parse().unwrap();
            let again: ImageReference = reference.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), reference.to_string());
        }

        #[test]
        fn never_panics_on_any_text(text in "\\PC{0,120}") {
            let _ = text.parse::<ImageReference>();
            let _ = text.parse::<Tag>();
        }
    }
}

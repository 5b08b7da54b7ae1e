//! Image references: which repository, and which tag or digest in it.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError};

/// The registry of names without a host.
const DOCKER_HUB: &str = "docker.io";
/// Another name for it.
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
/// Where Docker Hub keeps names without a slash.
const DOCKER_HUB_OFFICIAL: &str = "library/";
/// The tag of names with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Most bytes of a repository's path.
const MAX_PATH_LENGTH: usize = 255;

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

    /// The repository that `[host/]path` means. What stands before the first slash is a host if it cannot be part of a
    /// path, or is `localhost`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(name: &str) -> Result<Self, &'static str> {
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host.to_ascii_lowercase(), path),
            _ => (DOCKER_HUB.to_owned(), name),
        };
        if !is_host(&host) {
            return Err("the host is not a DNS name or an IPv4 address, with or without a port");
        }
        if path.is_empty() {
            return Err("the repository is missing");
        }
        if !path.split('/').all(is_path_component) {
            return Err(
                "the repository is not lower-case letters and digits, joined by '/', '.', '_', '__' or hyphens",
            );
        }
        let is_hub = [DOCKER_HUB, DOCKER_HUB_LEGACY].contains(&host.as_str());
        let host = if is_hub { DOCKER_HUB.to_owned() } else { host };
        let is_official = is_hub && !path.contains('/');
        let path = [if is_official { DOCKER_HUB_OFFICIAL } else { "" }, path].concat();
        if path.len() > MAX_PATH_LENGTH {
            return Err("the repository is longer than 255 characters");
        }
        Ok(Self { host, path })
    }
}

/// Whether the text is a host name, with or without a port.
/// Source: github.com/distribution/reference, `domain`, in lower case.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(is_word)
            && bytes.last().is_some_and(is_word)
            && bytes.iter().all(|byte| is_word(byte) || *byte == b'-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Whether the text is one part of a repository's path: letters and digits, and between two of these one period, one or
/// two underscores, or any number of hyphens.
/// Source: OCI distribution specification, "Pulling manifests", `<name>`.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    let mut separators = text.split(|letter: char| u8::try_from(letter).is_ok_and(is_word));
    ends.into_iter().all(|end| end.is_some_and(is_word)) && separators.all(is_separator)
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
        /// What is wrong with it.
        cause: &'static str,
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
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let repository =
            Repository::parse(name).map_err(|cause| ReferenceError::ParseReference { image: shown(), cause })?;
        let digest: Option<Digest> = digest
            .map(str::parse)
            .transpose()
            .map_err(|source| ReferenceError::ParseDigest { image: shown(), source })?;
        let bare = tag.is_none() && digest.is_none();
        let tag = tag.or(bare.then_some(DEFAULT_TAG)).map(str::parse).transpose()?;
        Ok(Self {
            repository,
            tag,
            digest,
            bare,
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
    #[case::localhost("localhost/policy", "localhost/policy:latest", true)]
    #[case::a_tag_and_no_port("localhost:5000", "docker.io/library/localhost:5000", false)]
    #[case::separators("ghcr.io/a__b/c-d---e/f.g_h", "ghcr.io/a__b/c-d---e/f.g_h:latest", true)]
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
    #[case::upper_case_before_a_slash("Acme/policy")]
    #[case::no_repository("ghcr.io/")]
    #[case::no_name(":1.0")]
    #[case::empty_tag("ghcr.io/acme/policy:")]
    #[case::empty_digest("ghcr.io/acme/policy@")]
    #[case::two_digests(&format!("acme/policy@sha256:{HEX}@sha256:{HEX}"))]
    #[case::empty_component("ghcr.io/acme//policy")]
    #[case::doubled_period("ghcr.io/acme/po..licy")]
    #[case::mixed_separators("ghcr.io/acme/po-_licy")]
    #[case::three_underscores("ghcr.io/acme/po___licy")]
    #[case::separator_at_the_end("ghcr.io/acme/policy-")]
    #[case::underscore_in_the_host("ghcr_.io/acme/policy")]
    #[case::hyphen_at_the_end_of_a_label("ghcr-.io/acme/policy")]
    #[case::empty_port("ghcr.io:/acme/policy")]
    #[case::port_of_letters("ghcr.io:http/acme/policy")]
    #[case::too_long(&format!("ghcr.io/{}", "a".repeat(256)))]
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

        /// Another implementation of the same grammar agrees, except that ours leaves no host and no path to guess.
        #[test]
        fn is_read_as_others_read_it(text in "([a-z]{1,3}|localhost|GHCR)?[a-z.:_-]{0,3}(:[0-9]{0,4})?/?[a-zA-Z0-9._/-]{0,12}(:[a-z0-9_.-]{0,4})?(@sha256:[0-9a-f]{64})?") {
            let other = text.parse::<oci_spec::distribution::Reference>();
            match text.parse::<ImageReference>() {
                Ok(ours) => {
                    let other = other.unwrap();
                    prop_assert_eq!(ours.repository().host(), other.registry().to_ascii_lowercase());
                    prop_assert_eq!(ours.repository().path(), other.repository());
                    prop_assert_eq!(ours.tag().map(Tag::as_str), other.tag());
                    prop_assert_eq!(ours.digest().map(ToString::to_string), other.digest().map(str::to_owned));
                }
                Err(error) => {
                    // Neither the host of a registry nor, in lower case, the beginning of a path.
                    let first = text.split('/').next().unwrap();
                    let is_stricter = other.is_err() || first.contains(|letter: char| letter == '_' || letter.is_uppercase());
                    prop_assert!(is_stricter, "{error}");
                }
            }
        }

        #[test]
        fn never_panics_on_any_text(text in "\\PC{0,120}") {
            let _ = text.parse::<ImageReference>();
            let _ = text.parse::<Tag>();
        }
    }
}

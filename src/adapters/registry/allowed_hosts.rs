//! Which registries may be used.

use std::str::FromStr;

use crate::domain::glob::Glob;

/// An allow-list of hosts; empty, it allows all.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(Vec<HostPattern>);

impl AllowedHosts {
    /// Parses patterns such as `ghcr.io`, `*.acme.example` or `localhost:*`. Empty texts are passed over.
    ///
    /// # Errors
    /// [`HostPatternError`] for the first text that is no pattern.
    pub fn parse(patterns: &[String]) -> Result<Self, HostPatternError> {
        let texts = patterns.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        texts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `host` may be used, written as its reference writes it.
    #[must_use]
    pub fn allow(&self, host: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(host))
    }
}

/// A host, with globs: `ghcr.io`, `*.acme.example`, `localhost:*`.
///
/// It is compared with the host as a reference writes it, in lower case and with its port if one is written; Docker Hub
/// is `docker.io`. `*` stands for any characters, dots too.
#[derive(Debug, Clone)]
struct HostPattern(Glob);

/// Why a text is not a pattern for hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a host such as 'ghcr.io' or '*.acme.example:5000'")]
pub struct HostPatternError(String);

impl HostPattern {
    /// Whether the host matches.
    fn matches(&self, host: &str) -> bool {
        self.0.matches(&host.to_ascii_lowercase())
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_host = !text.is_empty() && !text.contains(['/', '@', ' ', '{', '}']);
        Glob::parse(&text.to_ascii_lowercase())
            .filter(|_| is_host)
            .map(Self)
            .ok_or_else(|| HostPatternError(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::same("ghcr.io", "ghcr.io", true)]
    #[case::case("GHCR.io", "ghcr.io", true)]
    #[case::suffix("ghcr.io", "evil-ghcr.io", false)]
    #[case::prefix("ghcr.io", "ghcr.io.evil.example", false)]
    #[case::dot_is_a_dot("ghcr.io", "ghcrxio", false)]
    #[case::label("*.acme.example", "registry.acme.example", true)]
    #[case::labels("*.acme.example", "a.b.acme.example", true)]
    #[case::bare_domain("*.acme.example", "acme.example", false)]
    #[case::port_not_written("registry.acme.example", "registry.acme.example:5000", false)]
    #[case::any_port("localhost:*", "localhost:5000", true)]
    #[case::no_port("localhost:*", "localhost", false)]
    #[case::everything("*", "ghcr.io", true)]
    fn compares_with_the_host_as_written(#[case] pattern: &str, #[case] host: &str, #[case] expected: bool) {
        assert_eq!(pattern.parse::<HostPattern>().unwrap().matches(host), expected);
    }

    #[rstest]
    #[case::empty("")]
    #[case::url("https://ghcr.io")]
    #[case::path("ghcr.io/acme")]
    #[case::open_class("ghcr[")]
    #[case::alternatives("{ghcr,quay}.io")]
    fn refuses_what_cannot_match_a_host(#[case] text: &str) {
        assert!(text.parse::<HostPattern>().is_err());
    }
}

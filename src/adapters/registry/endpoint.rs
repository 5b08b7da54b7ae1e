//! From a repository to URLs.

use reqwest::Url;

use crate::domain::access::Access;
use crate::domain::reference::Repository;
use crate::pipeline::ports::RegistryError;

/// The URL of something below a repository: `<scheme>://<host>/v2/<repository>/<rest>`. Docker Hub's API has a host of
/// its own.
pub(super) fn url(repository: &Repository, access: &Access, rest: &str) -> Result<Url, RegistryError> {
    let host = match repository.host() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let scheme = if access.insecure { "http" } else { "https" };
    // The grammar of references leaves nothing in host and path that a URL could read otherwise.
    Url::parse(&format!("{scheme}://{host}/v2/{}/{rest}", repository.path())).map_err(|error| RegistryError::Protocol {
        host: repository.host().to_owned(),
        what: repository.path().to_owned(),
        cause: format!("the registry's name makes no URL: {error}"),
    })
}

/// Host and port as they are shown and compared.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether two URLs have the same scheme, host and port: only then does a credential for one go to the other.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    (one.scheme(), one.host_str(), one.port_or_known_default())
        == (other.scheme(), other.host_str(), other.port_or_known_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("policy", false, "https://registry-1.docker.io/v2/library/policy/tags/list")]
    #[case("ghcr.io/acme/policy:1", false, "https://ghcr.io/v2/acme/policy/tags/list")]
    #[case("localhost:5000/policy", true, "http://localhost:5000/v2/policy/tags/list")]
    fn leads_to_the_registrys_api(#[case] image: &str, #[case] insecure: bool, #[case] expected: &str) {
        let reference: crate::domain::reference::ImageReference = image.parse().unwrap();
        let access = Access {
            insecure,
            ..Access::default()
        };
        assert_eq!(
            url(reference.repository(), &access, "tags/list").unwrap().as_str(),
            expected
        );
    }

    #[rstest]
    #[case("https://a.example/x", "https://a.example:443/y", true)]
    #[case("https://a.example/", "https://b.example/", false)]
    #[case("https://a.example/", "https://a.example:8443/", false)]
    #[case("http://a.example/", "https://a.example/", false)]
    fn an_origin_is_scheme_host_and_port(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
        assert_eq!(same_origin(&one.parse().unwrap(), &other.parse().unwrap()), same);
    }
}

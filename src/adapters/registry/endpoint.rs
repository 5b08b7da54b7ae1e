//! From a repository to the URLs that stand for it.

use reqwest::Url;

use super::action::Action;
use crate::domain::digest::Digest;
use crate::domain::reference::Repository;
use crate::pipeline::ports::{ManifestName, RegistryError};

/// Tags requested per page; registries may return fewer.
const TAGS_PER_PAGE: &str = "1000";

/// Where the API of one repository is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    host: String,
    path: String,
    root: Url,
}

impl Endpoint {
    /// HTTPS, or HTTP if `insecure`. Docker Hub's API has another host than its images' names.
    pub(super) fn new(repository: &Repository, insecure: bool) -> Result<Self, RegistryError> {
        let host = repository.host();
        let scheme = if insecure { "http" } else { "https" };
        let api_host = if host == "docker.io" {
            "registry-1.docker.io"
        } else {
            host
        };
        let root = Url::parse(&format!("{scheme}://{api_host}/v2/"))
            .ok()
            .filter(|url| url.username().is_empty() && url.password().is_none() && url.path() == "/v2/")
            .ok_or_else(|| RegistryError::Protocol {
                host: host.to_owned(),
                resource: repository.path().to_owned(),
                cause: "the host is not valid in a URL".to_owned(),
            })?;
        Ok(Self {
            host: host.to_owned(),
            path: repository.path().to_owned(),
            root,
        })
    }

    /// The host as the image names it, for messages.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The repository's path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The registry's own URL.
    pub(super) fn root(&self) -> &Url {
        &self.root
    }

    /// The only scope that a token is requested for, whatever the registry's challenge names.
    pub(super) fn token_scope(&self, action: Action) -> String {
        format!("repository:{}:{}", self.path, action.as_str())
    }

    pub(super) fn manifest(&self, name: &ManifestName) -> Url {
        self.below(&format!("manifests/{name}"))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Url {
        self.below(&format!("blobs/{digest}"))
    }

    pub(super) fn referrers(&self, digest: &Digest) -> Url {
        self.below(&format!("referrers/{digest}"))
    }

    pub(super) fn tags(&self) -> Url {
        let mut url = self.below("tags/list");
        url.set_query(Some(&format!("n={TAGS_PER_PAGE}")));
        url
    }

    /// The grammar of paths, tags and digests leaves nothing that would have to be escaped.
    fn below(&self, rest: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.path));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reference::ImageReference;
    use rstest::rstest;

    fn endpoint(image: &str, insecure: bool) -> Endpoint {
        let reference: ImageReference = image.parse().unwrap();
        Endpoint::new(reference.repository(), insecure).unwrap()
    }

    #[rstest]
    #[case::hub("policy", false, "https://registry-1.docker.io/v2/library/policy/manifests/1.0")]
    #[case::host("ghcr.io/acme/policy", false, "https://ghcr.io/v2/acme/policy/manifests/1.0")]
    #[case::port("registry.example:5000/p", false, "https://registry.example:5000/v2/p/manifests/1.0")]
    #[case::insecure("localhost:5000/p", true, "http://localhost:5000/v2/p/manifests/1.0")]
    fn manifests_are_below_the_api_of_the_host(#[case] image: &str, #[case] insecure: bool, #[case] url: &str) {
        let name = ManifestName::Tag("1.0".parse().unwrap());
        assert_eq!(endpoint(image, insecure).manifest(&name).as_str(), url);
    }

    #[test]
    fn the_token_scope_is_to_pull_this_repository() {
        assert_eq!(
            endpoint("acme/policy", false).token_scope(Action::Pull),
            "repository:acme/policy:pull"
        );
    }

    #[test]
    fn digests_are_not_escaped() {
        let digest = Digest::of(b"");
        let url = endpoint("ghcr.io/acme/policy", false).blob(&digest);
        assert_eq!(url.path(), format!("/v2/acme/policy/blobs/{digest}"));
    }
}

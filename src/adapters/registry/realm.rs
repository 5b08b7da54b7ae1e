//! Which token server a registry may name, and which of them is sent credentials.
//!
//! A realm is text from the network, and credentials go where it points: CVE-2020-15157 and its successors. Rules:
//! - HTTPS, unless the registry itself is reached over plain HTTP; no user name; its query is preserved.
//! - An address inside some network is refused, unless it is exactly the registry's own host and port.
//! - Credentials are sent only to the registry's *site*: the same host, a host above or below it, or one that shares
//!   its registrable domain (`registry-1.docker.io` and `auth.docker.io`, `registry.gitlab.com` and `gitlab.com`). Any
//!   other token server is used anonymously.

use reqwest::Url;

use crate::adapters::network::egress::{host_of, ip_literal, is_internal};
use crate::pipeline::ports::RegistryError;

/// A token server that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    /// Its URL.
    pub(super) url: Url,
    /// Whether it may be sent the credentials for the registry.
    pub(super) is_trusted: bool,
}

/// Why a realm is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RefusedRealm {
    /// It breaks a rule.
    Protocol(&'static str),
    /// It is an internal address.
    Address(String),
}

impl RefusedRealm {
    pub(super) fn into_error(self, host: &str, resource: &str) -> RegistryError {
        match self {
            Self::Address(host) => RegistryError::AddressRefused { host },
            Self::Protocol(cause) => RegistryError::Protocol {
                host: host.to_owned(),
                resource: resource.to_owned(),
                cause: cause.to_owned(),
            },
        }
    }
}

impl Realm {
    /// The realm `text` that `registry` names.
    pub(super) fn named(registry: &Url, text: &str) -> Result<Self, RefusedRealm> {
        let mut url = Url::parse(text).map_err(|_| RefusedRealm::Protocol("the token server is not a valid URL"))?;
        match (url.scheme(), registry.scheme()) {
            ("https", _) | ("http", "http") => {}
            _ => return Err(RefusedRealm::Protocol("the token server does not use HTTPS")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RefusedRealm::Protocol("the token server's URL has a user name in it"));
        }
        let is_registry =
            url.host_str() == registry.host_str() && url.port_or_known_default() == registry.port_or_known_default();
        if !is_registry && ip_literal(&url).is_some_and(is_internal) {
            return Err(RefusedRealm::Address(host_of(&url)));
        }
        url.set_fragment(None);
        let is_trusted = is_same_site(registry, &url);
        Ok(Self { url, is_trusted })
    }
}

fn is_same_site(one: &Url, other: &Url) -> bool {
    let (Some(host), Some(other_host)) = (one.host_str(), other.host_str()) else {
        return false;
    };
    if host == other_host {
        return true;
    }
    if ip_literal(one).is_some() || ip_literal(other).is_some() {
        return false;
    }
    site(host).is_some_and(|own| site(other_host) == Some(own))
}

/// The registrable domain: the last two labels, or three below country domains such as `co.uk`. None for hosts that
/// have fewer. Without a list of public suffixes this errs on the side of sending nothing.
fn site(host: &str) -> Option<&str> {
    let host = host.trim_end_matches('.');
    let labels: Vec<&str> = host.rsplit('.').take(3).collect();
    let count = match labels.as_slice() {
        [top, second, ..] if top.len() == 2 && SECOND_LEVEL.contains(second) => 3,
        _ => 2,
    };
    (labels.len() >= count).then(|| {
        let length: usize = labels[..count].iter().map(|label| label.len() + 1).sum();
        &host[host.len() + 1 - length..]
    })
}

/// Labels under which countries give out names.
const SECOND_LEVEL: [&str; 12] = [
    "ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ne", "net", "or", "org",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn named(registry: &str, realm: &str) -> Result<bool, RefusedRealm> {
        Realm::named(&registry.parse().unwrap(), realm).map(|realm| realm.is_trusted)
    }

    #[rstest]
    #[case::docker_hub("https://registry-1.docker.io", "https://auth.docker.io/token", true)]
    #[case::ghcr("https://ghcr.io", "https://ghcr.io/token", true)]
    #[case::gitlab("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true)]
    #[case::alibaba(
        "https://registry.cn-hangzhou.aliyuncs.com",
        "https://dockerauth.cn-hangzhou.aliyuncs.com/auth",
        true
    )]
    #[case::other_port("https://registry.acme.example", "https://auth.acme.example:8443/token", true)]
    #[case::plain("http://localhost:5000", "http://localhost:5001/token", true)]
    #[case::own_address("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", true)]
    #[case::own_private_address("https://10.0.0.5", "https://10.0.0.5:443/token", true)]
    #[case::other_site("https://registry.acme.example", "https://evil.example2/token", false)]
    #[case::suffix_trick("https://acme.example", "https://evilacme.example/token", false)]
    #[case::country("https://registry.acme.co.uk", "https://evil.co.uk/token", false)]
    #[case::country_same("https://registry.acme.co.uk", "https://auth.acme.co.uk/token", true)]
    #[case::top_level("https://com", "https://evil.com/token", false)]
    #[case::single_labels("http://registry", "http://token/x", false)]
    #[case::public_address("https://192.0.2.1", "https://192.0.2.2/token", false)]
    fn credentials_stay_on_the_registrys_site(#[case] registry: &str, #[case] realm: &str, #[case] trusted: bool) {
        assert_eq!(named(registry, realm), Ok(trusted));
    }

    #[rstest]
    #[case::http("http://registry.example/token")]
    #[case::file("file:///etc/passwd")]
    #[case::ftp("ftp://registry.example/")]
    #[case::user("https://user@registry.example/token")]
    #[case::password("https://:x@registry.example/token")]
    #[case::relative("/token")]
    #[case::empty("")]
    fn realms_that_break_a_rule_are_not_asked(#[case] realm: &str) {
        let refused = named("https://registry.example", realm);
        assert!(matches!(refused, Err(RefusedRealm::Protocol(_))), "{refused:?}");
    }

    #[rstest]
    #[case::metadata("https://169.254.169.254/latest")]
    #[case::loopback("https://127.0.0.1/token")]
    #[case::loopback_v6("https://[::1]/token")]
    #[case::decimal("https://2130706433/token")]
    #[case::mapped("https://[::ffff:10.0.0.1]/token")]
    #[case::private("https://10.0.0.1/token")]
    fn realms_at_internal_addresses_are_not_asked(#[case] realm: &str) {
        let refused = named("https://registry.example", realm);
        assert!(matches!(refused, Err(RefusedRealm::Address(_))), "{refused:?}");
    }

    #[test]
    fn another_port_of_the_registrys_own_address_is_not_asked() {
        let refused = named("http://127.0.0.1:5000", "http://127.0.0.1:5001/token");
        assert!(matches!(refused, Err(RefusedRealm::Address(_))), "{refused:?}");
    }
}

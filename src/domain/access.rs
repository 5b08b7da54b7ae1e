//! How a repository may be reached: credentials, transport settings, and the key that both make up.

pub mod credentials;

use std::fmt;
use std::sync::Arc;

use super::digest::{Digest, Hasher};
use super::reference::Repository;
pub use credentials::{Credentials, Keyring, KeyringError};

/// A value that must never be shown: its `Debug` and everything built on it print a placeholder.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<redacted>")
    }
}

/// On whose behalf work is done, for shares: what one tenant uses up, another must not lack. The operator's tenants are
/// namespaces; a program with one user has the default one. It decides about turns, never about rights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<str>);

impl Default for Tenant {
    fn default() -> Self {
        Self::from("")
    }
}

impl From<&str> for Tenant {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// How one object reaches registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Whose work it is. No part of [`AccessKey`]: tenants with equal access share results.
    pub tenant: Tenant,
    /// Its pull secrets, in kubelet's order.
    pub keyring: Keyring,
    /// How connections are made.
    pub transport: TransportSettings,
}

/// How connections to a host are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransportSettings {
    /// PEM certificates trusted beside the system's, or none.
    pub authorities_pem: Option<String>,
    /// PEM client certificate chain and its private key, or none.
    pub client_certificate: Option<ClientCertificate>,
    /// Plain HTTP instead of TLS. It never means "do not verify certificates".
    pub insecure: bool,
}

impl TransportSettings {
    /// A fingerprint of the settings: accesses that agree on it can share connections.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let certificate = self.client_certificate.as_ref();
        fingerprint([
            if self.insecure { "insecure" } else { "tls" },
            self.authorities_pem.as_deref().unwrap_or_default(),
            certificate
                .map(|certificate| certificate.chain_pem.as_str())
                .unwrap_or_default(),
            certificate
                .map(|certificate| certificate.key_pem.expose())
                .unwrap_or_default(),
        ])
    }
}

/// A client certificate for registries that ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM certificate chain, leaf first.
    pub chain_pem: String,
    /// PEM private key.
    pub key_pem: Secret,
}

/// A fingerprint of *who accesses what, and how*: the repository, the credentials for it and the transport settings.
///
/// **Security invariant:** everything cached in memory or on disk about a repository is cached under its access key, so
/// that a result that one tenant's credentials obtained is never given to another tenant, and a registry that one
/// tenant controls cannot name another tenant's private content by digest and have it served from our cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessKey(Digest);

impl AccessKey {
    /// 64 hex digits, usable as a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl RegistryAccess {
    /// The key of reaching `repository` in this way.
    #[must_use]
    pub fn key(&self, repository: &Repository) -> AccessKey {
        let mut parts = vec![
            repository.host().to_owned(),
            repository.path().to_owned(),
            self.transport.digest().hex(),
        ];
        for credentials in self.keyring.candidates(repository) {
            parts.push(credentials.fingerprint().hex());
        }
        AccessKey(fingerprint(parts.iter().map(String::as_str)))
    }
}

/// Hashes a list of texts so that no two different lists have the same input: each is preceded by its length.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hasher = Hasher::default();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn repository(text: &str) -> Repository {
        text.parse::<crate::domain::reference::ImageReference>()
            .unwrap()
            .repository()
            .clone()
    }

    fn access(password: &str) -> RegistryAccess {
        let json = format!(r#"{{"auths":{{"ghcr.io":{{"username":"acme","password":"{password}"}}}}}}"#);
        RegistryAccess {
            keyring: Keyring::from_docker_config(json.as_bytes()).unwrap(),
            ..RegistryAccess::default()
        }
    }

    #[test]
    fn keys_differ_by_repository_credentials_and_transport() {
        let here = repository("ghcr.io/acme/a");
        let base = access("one").key(&here);
        let with = |transport| RegistryAccess {
            transport,
            ..access("one")
        };
        assert_eq!(base, access("one").key(&here));
        assert_ne!(base, access("two").key(&here));
        assert_ne!(base, access("one").key(&repository("ghcr.io/acme/b")));
        assert_ne!(
            base,
            with(TransportSettings {
                insecure: true,
                ..TransportSettings::default()
            })
            .key(&here)
        );
        assert_ne!(
            base,
            with(TransportSettings {
                authorities_pem: Some("pem".into()),
                ..TransportSettings::default()
            })
            .key(&here)
        );
    }

    #[test]
    fn credentials_for_other_hosts_do_not_split_the_key() {
        let elsewhere = repository("quay.io/acme/a");
        assert_eq!(access("one").key(&elsewhere), RegistryAccess::default().key(&elsewhere));
    }

    #[rstest]
    #[case::boundary(&["ab", "c"], &["a", "bc"])]
    #[case::count(&["a"], &["a", ""])]
    fn fingerprints_tell_lists_apart(#[case] one: &[&str], #[case] other: &[&str]) {
        assert_ne!(fingerprint(one.iter().copied()), fingerprint(other.iter().copied()));
    }

    #[test]
    fn secrets_do_not_print() {
        assert!(!format!("{:?}", access("canary-1").keyring).contains("canary-1"));
    }
}

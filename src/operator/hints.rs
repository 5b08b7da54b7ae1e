//! What a person can do about an error, in the fields and flags of this program.
//!
//! Errors of the layers below state facts, because a command line shares them: they name no field and no flag. What
//! the author of a `PolicyImage`, or the operator's administrator, can do about a fact is said here. Errors of the
//! operator's own steps name their fields themselves.

use crate::domain::bundle::BundleError;
use crate::domain::trust::{TrustError, list};
use crate::pipeline::acquire::AcquireError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::resolve::ResolveError;
use crate::pipeline::verify::VerifyError;

/// What can be done where a source does not lead to content.
#[must_use]
pub(super) fn of_resolve(error: &ResolveError) -> Option<String> {
    match error {
        ResolveError::QueryRegistry(error) => of_registry(error),
        ResolveError::MatchRange { .. } => Some("push a version in it or widen 'spec.semver'".to_owned()),
    }
}

/// What can be done where a revision is not verified.
#[must_use]
pub(super) fn of_verify(error: &VerifyError) -> Option<String> {
    match error {
        VerifyError::Lookup(error) => of_registry(error),
        VerifyError::Untrusted(TrustError::Unsigned { authorities, .. }) => Some(format!(
            "sign it with 'cosign sign --key' and a key of {}",
            list(authorities)
        )),
        VerifyError::Untrusted(TrustError::Mismatch { .. }) => {
            Some("sign it with 'cosign sign --key', or correct the keys in 'spec.verify'".to_owned())
        }
        VerifyError::Untrusted(TrustError::Cancelled) | VerifyError::Interrupted(_) => None,
    }
}

/// What can be done where a verified revision does not give a bundle.
#[must_use]
pub(super) fn of_acquire(error: &AcquireError) -> Option<String> {
    match error {
        AcquireError::Fetch(error) => of_registry(error),
        AcquireError::ReadBundle(BundleError::Read { .. }) => Some("check '--cache-dir' and its disk".to_owned()),
        AcquireError::LimitSize { .. } => {
            Some("leave tests and unused data out of the bundle, or split it into several policy images".to_owned())
        }
        AcquireError::OpenManifest(_) | AcquireError::ReadBundle(_) | AcquireError::Interrupted(_) => None,
    }
}

fn of_registry(error: &RegistryError) -> Option<String> {
    let hint = match error {
        RegistryError::NotFound { .. } => "check the name, push it, or check that the credentials may see it",
        RegistryError::Unauthorized { .. } => {
            "set 'spec.imagePullSecrets' to a Secret with valid credentials for this host"
        }
        RegistryError::Denied { .. } => "grant the account read access to it",
        RegistryError::Tls { .. } => {
            "a private authority goes into 'spec.tls.caRef', a registry without TLS needs 'spec.insecure: true'"
        }
        RegistryError::AddressRefused { .. } => "see '--allow-loopback' and '--deny-private-addresses'",
        RegistryError::NotAllowed { .. } => "see '--allow-registry'",
        RegistryError::Storage { .. } => "check '--cache-dir' and its free space",
        RegistryError::MissingSystemCertificates => {
            "install the package 'ca-certificates' beside the operator, or name a PEM file by its environment variable \
             SSL_CERT_FILE; a registry with an authority of its own needs 'spec.tls.caRef' only"
        }
        RegistryError::TransportSettings { .. } => "correct what 'spec.tls' names",
        RegistryError::RateLimited { .. }
        | RegistryError::Unavailable { .. }
        | RegistryError::Unreachable { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::Protocol { .. } => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_fact_has_the_same_hint_in_every_step() {
        let host = "registry.example".to_owned();
        let error = RegistryError::NotAllowed { host };
        let hint = Some("see '--allow-registry'".to_owned());
        assert_eq!(of_resolve(&ResolveError::QueryRegistry(error.clone())), hint);
        assert_eq!(of_verify(&VerifyError::Lookup(error.clone())), hint);
        assert_eq!(of_acquire(&AcquireError::Fetch(error)), hint);
    }
}

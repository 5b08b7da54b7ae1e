//! What a person can do about an error, in the fields and flags of this program.
//!
//! Errors of the layers below state facts, because a command line shares them: they name no field and no flag. What
//! follows from a fact for somebody who writes a `PolicyImage`, or runs the operator, is said here. Errors of the
//! operator's own steps name their fields themselves.

use super::reconcile::outcome::StepError;
use crate::domain::bundle::BundleError;
use crate::domain::trust::{TrustError, list};
use crate::pipeline::acquire::AcquireError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::reason::chain;
use crate::pipeline::resolve::ResolveError;
use crate::pipeline::verify::VerifyError;

/// The fact and, where there is one, the hint, on one line: `fact; hint`.
#[must_use]
pub fn explain(error: &StepError) -> String {
    match hint(error) {
        Some(hint) => format!("{}; {hint}", chain(error)),
        None => chain(error),
    }
}

fn hint(error: &StepError) -> Option<String> {
    match error {
        StepError::Resolve(error) => of_resolve(error),
        StepError::Verify(error) => of_verify(error),
        StepError::Acquire(error) => of_acquire(error),
        StepError::DeadlineExceeded(_) => Some("if the registry is slow, raise 'spec.timeout'".to_owned()),
        StepError::Panic => Some("please report it with the operator's log".to_owned()),
        StepError::Dereference(_)
        | StepError::Validate(_)
        | StepError::Observe(_)
        | StepError::Deliver(_)
        | StepError::LeadershipLost => None,
    }
}

fn of_resolve(error: &ResolveError) -> Option<String> {
    match error {
        ResolveError::AskRegistry(error) => of_registry(error),
        ResolveError::MatchRange { .. } => Some("push a version in it or widen 'spec.semver'".to_owned()),
    }
}

fn of_verify(error: &VerifyError) -> Option<String> {
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

fn of_acquire(error: &AcquireError) -> Option<String> {
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
    use insta::assert_snapshot;
    use std::sync::Arc;

    fn host() -> String {
        "registry.example".to_owned()
    }

    fn shown(error: impl Into<StepError>) -> String {
        explain(&error.into())
    }

    #[test]
    fn a_message_is_the_fact_and_then_what_to_do() {
        let error = RegistryError::NotFound {
            host: host(),
            what: "acme/policy:1.0".to_owned(),
        };
        assert_snapshot!(
            shown(Arc::new(ResolveError::AskRegistry(error))),
            @"'acme/policy:1.0' does not exist in registry 'registry.example'; check the name, push it, or check that the credentials may see it"
        );
    }

    #[test]
    fn the_same_fact_has_the_same_hint_in_every_step() {
        let error = RegistryError::NotAllowed { host: host() };
        let hint = "; see '--allow-registry'";
        assert!(shown(Arc::new(ResolveError::AskRegistry(error.clone()))).ends_with(hint));
        assert!(shown(Arc::new(VerifyError::Lookup(error.clone()))).ends_with(hint));
        assert!(shown(Arc::new(AcquireError::Fetch(error))).ends_with(hint));
    }

    #[test]
    fn a_fact_that_nobody_here_can_change_stands_alone() {
        let error = RegistryError::Unavailable {
            host: host(),
            what: "acme/policy:1.0".to_owned(),
            status: 503,
        };
        assert_snapshot!(
            shown(Arc::new(AcquireError::Fetch(error))),
            @"registry 'registry.example' answered 503 for 'acme/policy:1.0'"
        );
    }
}

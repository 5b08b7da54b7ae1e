//! What a person can do about an error, in the fields and flags of this program.
//!
//! Errors of the layers below state facts, because a command line shares them: they name no field and no flag. What
//! the author of a `PolicyImage`, or the operator's administrator, can do about a fact is added here. Errors of the
//! operator's own steps name their fields themselves.

use crate::domain::artifact::ManifestError;
use crate::domain::bundle::BundleError;
use crate::domain::reference::ReferenceError;
use crate::domain::text::quoted_list;
use crate::domain::trust::{PublicKeyError, TrustError, TrustPolicyError};
use crate::pipeline::acquire::AcquireError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::resolve::ResolveError;
use crate::pipeline::verify::VerifyError;

/// What can be done if a source does not lead to content.
#[must_use]
pub(super) fn of_resolve(error: &ResolveError) -> Option<String> {
    match error {
        ResolveError::QueryRegistry(error) => of_registry(error),
        ResolveError::MatchRange { .. } => Some("push a version in it or widen 'spec.semver'".to_owned()),
    }
}

/// What can be done if a revision is not verified.
#[must_use]
pub(super) fn of_verify(error: &VerifyError) -> Option<String> {
    match error {
        VerifyError::Lookup(error) => of_registry(error),
        VerifyError::Untrusted(TrustError::Unsigned { authorities, .. }) => Some(format!(
            "sign it with 'cosign sign --key' and a key of {}",
            quoted_list(authorities)
        )),
        VerifyError::Untrusted(TrustError::Mismatch { .. }) => {
            Some("sign it with 'cosign sign --key', or correct the keys in 'spec.verify'".to_owned())
        }
        VerifyError::Untrusted(TrustError::Cancelled) | VerifyError::Interrupted(_) => None,
    }
}

/// What can be done if a verified revision does not give a bundle.
#[must_use]
pub(super) fn of_acquire(error: &AcquireError) -> Option<String> {
    match error {
        AcquireError::Fetch(error) => of_registry(error),
        AcquireError::OpenManifest(error) => of_manifest(error).map(str::to_owned),
        AcquireError::ReadBundle(error) => of_bundle(error).map(str::to_owned),
        AcquireError::LimitSize { .. } => {
            Some("leave tests and unused data out of the bundle, or split it into several policy images".to_owned())
        }
        AcquireError::Interrupted(_) => None,
    }
}

/// What can be done if the text of `spec.image` is refused.
#[must_use]
pub(super) fn of_reference(error: &ReferenceError) -> Option<&'static str> {
    match error {
        ReferenceError::Scheme(_) => Some("write it as 'host/repository:tag'"),
        ReferenceError::ParseReference { .. } | ReferenceError::ParseDigest { .. } | ReferenceError::ParseTag(_) => {
            None
        }
    }
}

/// What can be done if the keys of an authority are refused.
#[must_use]
pub(super) fn of_key(error: &PublicKeyError) -> Option<&'static str> {
    let hint = match error {
        PublicKeyError::LimitKeys => "split them over several authorities",
        PublicKeyError::PrivateKey => {
            "write its public half ('cosign public-key --key cosign.key') and replace the key if others could read it"
        }
        PublicKeyError::Certificate => "extract its key with 'openssl x509 -pubkey -noout'",
        PublicKeyError::OtherBlock => "convert it with 'openssl pkey -pubin -pubout' or 'ssh-keygen'",
        PublicKeyError::LimitSize
        | PublicKeyError::Empty
        | PublicKeyError::ParsePem { .. }
        | PublicKeyError::Unsupported { .. } => return None,
    };
    Some(hint)
}

/// What can be done if the authorities of `spec.verify` do not form a policy.
#[must_use]
pub(super) fn of_trust_policy(error: &TrustPolicyError) -> Option<&'static str> {
    match error {
        TrustPolicyError::MinimumMatches { .. } => {
            Some("correct 'spec.verify.minimumMatches', or add the authorities that are missing")
        }
        TrustPolicyError::DuplicateName { .. } => Some("give each authority its own name"),
        TrustPolicyError::CountAuthorities { .. }
        | TrustPolicyError::Name { .. }
        | TrustPolicyError::CountKeys { .. }
        | TrustPolicyError::SharedKey { .. } => None,
    }
}

fn of_manifest(error: &ManifestError) -> Option<&'static str> {
    let hint = match error {
        ManifestError::ParseJson { .. } | ManifestError::SchemaVersion(_) | ManifestError::Ambiguous => {
            "push the image again with a tool that follows the OCI specification"
        }
        ManifestError::NestedIndex | ManifestError::EmptyIndex => {
            "push the policy image as one manifest, without a platform"
        }
        ManifestError::AmbiguousIndex { .. } => {
            "push the policy image as one manifest, or pin the one meant by its digest in 'spec.image'"
        }
        ManifestError::NotAPolicyImage { .. } => "build it with 'policy build', or push the output of 'opa build'",
        ManifestError::TooLarge
        | ManifestError::LimitEntries { .. }
        | ManifestError::DigestMismatch { .. }
        | ManifestError::SizeMismatch { .. }
        | ManifestError::NegativeSize(_)
        | ManifestError::MediaType(_)
        | ManifestError::MediaTypeMismatch { .. } => return None,
    };
    Some(hint)
}

fn of_bundle(error: &BundleError) -> Option<&'static str> {
    let hint = match error {
        BundleError::Read { .. } => "check '--cache-dir' and its disk",
        BundleError::NotGzip { .. } => "push the 'bundle.tar.gz' that 'opa build' writes",
        BundleError::Gzip { .. } => "build and push it again",
        BundleError::TrailingBytes(_) | BundleError::Header { .. } => "build it with 'opa build'",
        BundleError::Path { .. } => "rename it and build the bundle again",
        BundleError::Delta => "push a full bundle",
        BundleError::Empty { .. } => "put the files themselves into the layer, not an archive of them",
        BundleError::Cancelled
        | BundleError::DigestMismatch { .. }
        | BundleError::SizeMismatch { .. }
        | BundleError::Limit { .. }
        | BundleError::EntryKind { .. }
        | BundleError::Duplicate { .. }
        | BundleError::FileAndDirectory { .. }
        | BundleError::SecondManifest { .. }
        | BundleError::Manifest { .. }
        | BundleError::OverlappingRoots { .. }
        | BundleError::OutsideRoots { .. } => return None,
    };
    Some(hint)
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
        RegistryError::AddressRefused { .. } => {
            "use a registry at another address, or ask the operator's administrator about '--allow-loopback' and \
             '--deny-private-addresses'"
        }
        RegistryError::NotAllowed { .. } => {
            "use an allowed registry, or ask the operator's administrator to allow this one by '--allow-registry'"
        }
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
    use crate::operator::steps::outcome::StepError;
    use crate::operator::steps::validate::ValidateError;
    use rstest::rstest;
    use std::sync::Arc;

    #[rstest]
    #[case::a_manifest(
        Arc::new(AcquireError::OpenManifest(ManifestError::EmptyIndex)).into(),
        "the index names no image manifest; push the policy image as one manifest, without a platform"
    )]
    #[case::a_bundle(
        Arc::new(AcquireError::ReadBundle(BundleError::Delta)).into(),
        "this is a delta bundle ('patch.json'), which changes data of a running OPA; push a full bundle"
    )]
    #[case::a_reference(
        ValidateError::ParseImage(ReferenceError::Scheme("oci://a/b".to_owned())).into(),
        "spec.image: image 'oci://a/b' starts with a scheme; write it as 'host/repository:tag'"
    )]
    #[case::a_key(
        ValidateError::ReadKey { authority: "release".to_owned(), source: PublicKeyError::Certificate }.into(),
        "the key of authority 'release': a certificate instead of a public key; extract its key with 'openssl x509 -pubkey -noout'"
    )]
    #[case::a_trust_policy(
        ValidateError::CombineAuthorities(TrustPolicyError::DuplicateName { name: "release".to_owned() }).into(),
        "spec.verify: the authority name 'release' is used twice; give each authority its own name"
    )]
    fn a_fact_of_the_domain_is_shown_with_its_hint(#[case] error: StepError, #[case] expected: &str) {
        assert_eq!(error.explain(), expected);
    }

    #[test]
    fn the_same_fact_has_the_same_hint_in_every_step() {
        let host = "registry.example".to_owned();
        let error = RegistryError::NotAllowed { host };
        let hint = Some(
            "use an allowed registry, or ask the operator's administrator to allow this one by '--allow-registry'"
                .to_owned(),
        );
        assert_eq!(of_resolve(&ResolveError::QueryRegistry(error.clone())), hint);
        assert_eq!(of_verify(&VerifyError::Lookup(error.clone())), hint);
        assert_eq!(of_acquire(&AcquireError::Fetch(error)), hint);
    }
}

//! The reason of a failure, and what happens next.
//!
//! Every error of every step answers both questions through [`Classify`], by an exhaustive match, so a new error
//! variant cannot be added without deciding them.

use std::time::Duration;

/// Why an object is in the state it is in: the reason of conditions and events and the label of metrics.
///
/// Reasons are API: users alert on them. Adding one is a feature, renaming one is a breaking change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum Reason {
    /// The bundle is verified as required and delivered.
    Succeeded,
    /// `spec.suspend` is true.
    Suspended,
    /// A run failed and is retried with growing delays.
    ProgressingWithRetry,
    /// `spec.verify` is absent.
    NotConfigured,
    /// The spec contradicts itself or breaks a rule.
    InvalidSpec,
    /// A Secret, ConfigMap or ServiceAccount that the spec names is not there.
    ReferenceNotFound,
    /// A Secret or ConfigMap that the spec names does not contain what it should.
    ReferenceInvalid,
    /// `--require-verification` is set and the object has no `spec.verify`.
    VerificationRequired,
    /// The registry is not on the operator's list of allowed registries.
    RegistryNotAllowed,
    /// The registry's host leads to an address that the operator must not reach.
    AddressRefused,
    /// The registry could not be reached, or failed.
    RegistryUnavailable,
    /// The registry's certificate is not trusted, or the TLS handshake failed.
    TlsFailed,
    /// The registry requires credentials, or did not accept the given ones.
    AuthenticationFailed,
    /// The credentials are known to the registry and do not allow pulling.
    AccessDenied,
    /// The registry limits the rate of requests.
    RateLimited,
    /// The registry has no such repository, tag or digest.
    ImageNotFound,
    /// No tag satisfies `spec.semver`.
    NoMatchingTag,
    /// The registry's response breaks the protocol.
    RegistryProtocolError,
    /// Bytes do not hash to the digest that names them.
    DigestMismatch,
    /// The image is not a policy image.
    NotAPolicyImage,
    /// The bundle breaks a rule that protects its consumers.
    InvalidBundle,
    /// Something is larger than its limit.
    TooLarge,
    /// The image carries no signature.
    Unsigned,
    /// Signatures are there, and none or too few are by the required keys.
    SignatureMismatch,
    /// A signature could not be looked up, so nothing is known about it.
    VerificationUnavailable,
    /// The ConfigMap's name is taken by an object that is not ours.
    NotOwned,
    /// The ConfigMap is immutable and holds something else.
    Immutable,
    /// The API server could not be reached, or refused.
    KubernetesApiFailed,
    /// The run did not end within `spec.timeout`.
    DeadlineExceeded,
    /// The system that the operator runs on has no certificate authorities.
    SystemCertificatesMissing,
    /// The operator's own disk or memory failed it.
    Internal,
}

impl Reason {
    /// The reason as conditions, events and metrics carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What happens after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Only a change of the spec, of something it names or of the image helps. Checked again at the interval.
    Stalled,
    /// It may pass by itself: retry, with exponential backoff per object.
    Retry,
    /// Retry after at least this long: the server asked for it, or what is missing seldom appears sooner.
    WaitFor(Duration),
}

/// An error with a reason, which says what happens next.
pub trait Classify: std::error::Error {
    /// The reason for conditions, events and metrics.
    fn reason(&self) -> Reason;
    /// What happens next.
    fn disposition(&self) -> Disposition;
}

/// Writes an error with all its causes on one line, each once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

//! What the pipeline needs from external systems, in the terms of the domain.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::reason::{Classify, Disposition, Reason};
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};

/// The external systems of one program. The pipeline is generic over this one trait, however many ports there are.
pub trait Ports: Send + Sync + 'static {
    /// OCI registries.
    type Registry: Registry;

    /// OCI registries.
    fn registry(&self) -> &Self::Registry;
}

/// How a manifest is addressed in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// A tag: whatever it points at now.
    Tag(Tag),
    /// A digest: exactly these bytes.
    Digest(Digest),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(formatter),
            Self::Digest(digest) => digest.fmt(formatter),
        }
    }
}

/// A manifest as the registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The digest of `bytes`, computed by us; equal to the requested digest if one was given.
    pub digest: Digest,
    /// The `Content-Type` of the response without parameters, or empty.
    pub media_type: String,
    /// The bytes, at most [`crate::domain::artifact::MAX_MANIFEST_BYTES`].
    pub bytes: Vec<u8>,
}

/// An OCI registry, as far as pulling needs one.
///
/// Implementations check every byte against the requested digest, limit the size of every response, and never send
/// credentials anywhere but to the registry and the token server it may name.
pub trait Registry: Send + Sync + 'static {
    /// The digest that `tag` points at now.
    fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
        access: &RegistryAccess,
    ) -> impl Future<Output = Result<Digest, RegistryError>> + Send;

    /// A manifest or index.
    fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        access: &RegistryAccess,
    ) -> impl Future<Output = Result<RawManifest, RegistryError>> + Send;

    /// Shows `visit` every tag, at most 10 000, page by page as they come, and returns how many there were. Nothing keeps
    /// them all: runs that wait for the next page would otherwise hold megabytes each.
    fn tags(
        &self,
        repository: &Repository,
        access: &RegistryAccess,
        visit: &mut (dyn FnMut(Tag) + Send),
    ) -> impl Future<Output = Result<usize, RegistryError>> + Send;

    /// What refers to `digest`, by the referrers API or, if the registry has none, by the fallback tag; at most 50.
    /// An empty list means that the registry answered and there is nothing; it never means that the lookup failed.
    fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        access: &RegistryAccess,
    ) -> impl Future<Output = Result<Vec<Descriptor>, RegistryError>> + Send;

    /// A blob: exactly `descriptor.size` bytes that hash to `descriptor.digest`, read again as often as needed.
    fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        access: &RegistryAccess,
    ) -> impl Future<Output = Result<Arc<dyn Content>, RegistryError>> + Send;
}

/// Why a registry did not return what was requested. `Clone`, because one result serves everyone who waits for it.
///
/// Messages name the host and what was requested. They never contain a credential, a query string or a response body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// 404 for a tag, digest or repository.
    #[error("'{resource}' does not exist in registry '{host}'")]
    NotFound {
        /// The registry's host.
        host: String,
        /// What was requested.
        resource: String,
    },
    /// 401 after all credentials were tried.
    #[error("registry '{host}' did not accept {credentials} for '{repository}'")]
    Unauthorized {
        /// The registry's host.
        host: String,
        /// The repository's path.
        repository: String,
        /// "an anonymous request" or "the given credentials".
        credentials: &'static str,
    },
    /// 403.
    #[error("registry '{host}' denies pulling '{repository}' with {credentials}")]
    Denied {
        /// The registry's host.
        host: String,
        /// The repository's path.
        repository: String,
        /// "an anonymous request" or "the given credentials".
        credentials: &'static str,
    },
    /// 429, or 503 with `Retry-After`, after our own retries.
    #[error("registry '{host}' limits the rate of requests and asks to wait {} s", wait.as_secs())]
    RateLimited {
        /// The registry's host.
        host: String,
        /// How long it asked us to wait; at least a second.
        wait: Duration,
    },
    /// 5xx, after our own retries.
    #[error("registry '{host}' answered {status} for '{resource}'")]
    Unavailable {
        /// The registry's host.
        host: String,
        /// What was requested.
        resource: String,
        /// The HTTP status.
        status: u16,
    },
    /// No connection, or one that broke.
    #[error("registry '{host}' cannot be reached: {cause}")]
    Unreachable {
        /// The host: the registry, its token server or its blob store.
        host: String,
        /// What the network reported, without URLs.
        cause: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with '{host}' failed: {cause}")]
    Tls {
        /// The host.
        host: String,
        /// What the TLS library reported.
        cause: String,
    },
    /// The host leads to an address that the operator must not reach. The text is the same for every address.
    #[error("host '{host}' leads to an address that is refused")]
    AddressRefused {
        /// The host.
        host: String,
    },
    /// `--allow-registry` does not name the host.
    #[error("registry '{host}' is not among those that may be used")]
    NotAllowed {
        /// The host.
        host: String,
    },
    /// The bytes do not hash to the requested digest.
    #[error("'{resource}' from registry '{host}' has digest {actual}, not {expected}; nothing of it was used")]
    DigestMismatch {
        /// The registry's host.
        host: String,
        /// What was requested.
        resource: String,
        /// The requested digest.
        expected: Digest,
        /// The digest of what was received.
        actual: Digest,
    },
    /// Larger than the limit, by declaration or in fact.
    #[error("'{resource}' from registry '{host}' is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The registry's host.
        host: String,
        /// What was requested.
        resource: String,
        /// The limit.
        limit: u64,
    },
    /// A response that breaks the protocol: no digest, a redirect that may not be followed, unreadable JSON.
    #[error("registry '{host}' answered '{resource}' in a way that breaks the protocol: {cause}")]
    Protocol {
        /// The registry's host.
        host: String,
        /// What was requested.
        resource: String,
        /// What is wrong.
        cause: String,
    },
    /// Our own disk failed.
    #[error("the cache directory failed: {cause}")]
    Storage {
        /// What the operating system reported.
        cause: String,
    },
    /// The system that this program runs on has no certificate authorities.
    #[error("this system has no certificate authorities, so the TLS certificate of no registry can be checked")]
    MissingSystemCertificates,
    /// The client could not be set up from the object's TLS settings.
    #[error("the TLS settings cannot be used: {cause}")]
    TransportSettings {
        /// What is wrong with the certificates or the key.
        cause: String,
    },
}

impl Classify for RegistryError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::ImageNotFound,
            Self::Unauthorized { .. } => Reason::AuthenticationFailed,
            Self::Denied { .. } => Reason::AccessDenied,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::Unavailable { .. } | Self::Unreachable { .. } => Reason::RegistryUnavailable,
            Self::Tls { .. } => Reason::TlsFailed,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::NotAllowed { .. } => Reason::RegistryNotAllowed,
            Self::DigestMismatch { .. } => Reason::DigestMismatch,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Protocol { .. } => Reason::RegistryProtocolError,
            Self::MissingSystemCertificates => Reason::SystemCertificatesMissing,
            Self::Storage { .. } => Reason::Internal,
            Self::TransportSettings { .. } => Reason::ReferenceInvalid,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::RateLimited { wait, .. } => Disposition::WaitFor(*wait),
            // A PolicyImage is often applied before its tag is pushed, and a registry under attack or repair may
            // recover.
            Self::NotFound { .. }
            | Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::DigestMismatch { .. }
            | Self::Protocol { .. }
            | Self::MissingSystemCertificates
            | Self::Storage { .. } => Disposition::Retry,
            Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::AddressRefused { .. }
            | Self::NotAllowed { .. }
            | Self::TooLarge { .. }
            | Self::TransportSettings { .. } => Disposition::Stalled,
        }
    }
}

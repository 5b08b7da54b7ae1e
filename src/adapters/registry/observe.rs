//! What a watcher of the client, such as a metrics registry, is told.

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A token, from the server that the registry names.
    Token,
    /// The digest of a manifest.
    ManifestHead,
    /// A manifest or index.
    ManifestGet,
    /// A blob.
    Blob,
    /// A page of the list of tags.
    Tags,
    /// A page of the list of referrers.
    Referrers,
}

impl RequestKind {
    /// The name used in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::ManifestHead => "manifest_head",
            Self::ManifestGet => "manifest_get",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}

/// How a request ended, as far as its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// No connection, or one that broke.
    Unreachable,
    /// No TLS.
    Tls,
    /// An address that must not be reached.
    Refused,
}

impl Outcome {
    /// The HTTP status, if there was an answer.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::Unreachable | Self::Tls | Self::Refused => None,
        }
    }
}

/// Is told of each request. Called from many tasks at once; must be quick.
pub trait RequestObserver: Send + Sync + 'static {
    /// A request ended; each retry and each redirect is one of its own.
    fn request(&self, kind: RequestKind, outcome: Outcome);
    /// A blob was asked for; `hit` where it was in the cache.
    fn cache(&self, hit: bool);
    /// Bytes of a blob came over the network.
    fn downloaded(&self, bytes: u64);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl RequestObserver for Unobserved {
    fn request(&self, _kind: RequestKind, _outcome: Outcome) {}
    fn cache(&self, _hit: bool) {}
    fn downloaded(&self, _bytes: u64) {}
}

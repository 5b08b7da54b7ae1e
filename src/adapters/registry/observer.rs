//! What an observer of the client, such as a metrics registry, receives.

use std::fmt::Debug;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum RequestKind {
    /// A token, from the server that the registry names.
    Token,
    /// A manifest or index, or only its digest.
    Manifest,
    /// A blob.
    Blob,
    /// A page of the list of tags.
    Tags,
    /// A page of the list of referrers.
    Referrers,
}

/// Notified of each request. Called from many tasks at once; must be quick.
pub trait RequestObserver: Debug + Send + Sync + 'static {
    /// A request got a response with this status, or none. Each retry and each redirect is a request of its own.
    fn request(&self, kind: RequestKind, status: Option<u16>);
    /// A blob was requested; `hit` if it was in the cache.
    fn blob_cache(&self, hit: bool);
    /// Bytes of a blob came over the network.
    fn downloaded(&self, bytes: u64);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl RequestObserver for Unobserved {
    fn request(&self, _kind: RequestKind, _status: Option<u16>) {}
    fn blob_cache(&self, _hit: bool) {}
    fn downloaded(&self, _bytes: u64) {}
}

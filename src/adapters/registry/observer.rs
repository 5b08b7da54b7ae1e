//! Who is told what the client does, for metrics.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// A token from a token server.
    Token,
    /// A manifest or index, or only its digest.
    Manifest,
    /// A blob.
    Blob,
    /// A page of tags.
    Tags,
    /// A page of referrers.
    Referrers,
}

/// Is told about every request on the wire.
pub trait RequestObserver: std::fmt::Debug + Send + Sync {
    /// A request ended with this HTTP status, or with none because no answer came.
    fn request(&self, kind: RequestKind, status: Option<u16>);
    /// A blob was found in the store, or was not.
    fn blob_cache(&self, hit: bool);
    /// Bytes of a blob came over the network.
    fn downloaded(&self, bytes: u64);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl RequestObserver for NoObserver {
    fn request(&self, _: RequestKind, _: Option<u16>) {}
    fn blob_cache(&self, _: bool) {}
    fn downloaded(&self, _: u64) {}
}

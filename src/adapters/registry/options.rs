//! How the client is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::guard::NetworkPolicy;
use super::observer::{RequestObserver, Unobserved};

/// Everything a [`super::RegistryClient`] is told once, when it is made.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Directory for blobs, created if needed. It belongs to one process at a time: unfinished downloads in it are
    /// removed at the start.
    pub cache_directory: PathBuf,
    /// Most bytes kept there; what was not used for longest goes first. One blob more may be there for a moment.
    pub cache_bytes: u64,
    /// Where the client may connect to.
    pub network: NetworkPolicy,
    /// Who is told of each request.
    pub observer: Arc<dyn RequestObserver>,
    /// How long one request may stand still.
    pub timeouts: Timeouts,
}

impl RegistryOptions {
    /// A cache of 1 GiB in `cache_directory`, default limits, and nobody watching.
    #[must_use]
    pub fn new(cache_directory: impl Into<PathBuf>, network: NetworkPolicy) -> Self {
        Self {
            cache_directory: cache_directory.into(),
            cache_bytes: 1 << 30,
            network,
            observer: Arc::new(Unobserved),
            timeouts: Timeouts::default(),
        }
    }
}

/// How long one request may stand still. How long a whole job may take is its caller's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, connection and TLS handshake together.
    pub connect: Duration,
    /// Until the headers are complete, and then between two pieces of the body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(15),
        }
    }
}

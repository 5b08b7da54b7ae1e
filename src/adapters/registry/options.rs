//! How the client is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::network::NetworkPolicy;
use super::observe::{RequestObserver, Unobserved};

/// Everything a [`super::RegistryClient`] is told once, when it is made.
#[derive(Clone)]
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
    /// How often a request is tried before its caller hears of it.
    pub retries: Retries,
}

impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RegistryOptions")
            .field("cache_directory", &self.cache_directory)
            .field("cache_bytes", &self.cache_bytes)
            .field("network", &self.network)
            .field("timeouts", &self.timeouts)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
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
            retries: Retries::default(),
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

/// How often a request is tried before its caller hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles from then on.
    pub first_pause: Duration,
    /// Longest pause, and the longest `Retry-After` that is waited for here instead of by the caller.
    pub longest_pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(2),
        }
    }
}

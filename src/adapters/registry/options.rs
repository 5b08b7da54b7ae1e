//! How the client is set up.

use std::path::PathBuf;
use std::sync::Arc;

use super::allowed_hosts::AllowedHosts;
use super::observer::{RequestObserver, Unobserved};
use crate::adapters::network::{EgressPolicy, Timeouts};

/// The options of a [`super::RegistryClient`].
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// The name of this client, which registries and token servers are told.
    pub client_name: &'static str,
    /// Directory for blobs, created if needed. It belongs to one process at a time: unfinished downloads in it are
    /// removed at the start.
    pub cache_directory: PathBuf,
    /// Most bytes kept there, downloads under way included; what was not used for longest goes first.
    pub cache_bytes: u64,
    /// The registries that may be used.
    pub allowed_hosts: AllowedHosts,
    /// Where the client may connect to.
    pub egress: EgressPolicy,
    /// Notified of each request.
    pub observer: Arc<dyn RequestObserver>,
    /// How long one request may stall.
    pub timeouts: Timeouts,
}

impl RegistryOptions {
    /// A client of this name with a cache of 1 GiB in `cache_directory`, all registries, default limits, and no observer.
    #[must_use]
    pub fn new(client_name: &'static str, cache_directory: impl Into<PathBuf>, egress: EgressPolicy) -> Self {
        Self {
            client_name,
            cache_directory: cache_directory.into(),
            cache_bytes: 1 << 30,
            allowed_hosts: AllowedHosts::default(),
            egress,
            observer: Arc::new(Unobserved),
            timeouts: Timeouts::default(),
        }
    }
}

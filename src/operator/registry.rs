//! The registry client as the flags ask for it, and its metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;

use super::args::RegistryArguments;
use super::metrics::{Cache, Metrics, RegistryRequest};
use crate::adapters::registry::guard::{NetworkPolicy, PatternError};
use crate::adapters::registry::observer::{RequestKind, RequestObserver};
use crate::adapters::registry::{RegistryClient, RegistryOptions, Timeouts};
use crate::pipeline::ports::RegistryError;
use crate::pipeline::shared::{Question, SharingObserver};

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RegistrySetupError {
    /// A pattern of `--allow-registry`.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The cache directory.
    #[error(transparent)]
    Client(#[from] RegistryError),
    /// The system's temporary directory.
    #[error("no temporary directory can be made for the cache; set '--cache-dir' to one that can be written")]
    Temporary(#[source] std::io::Error),
}

/// The client, and its directory where that is a temporary one: removed when dropped, so keep it as long as the client.
///
/// # Errors
/// [`RegistrySetupError`].
pub fn client(
    arguments: &RegistryArguments,
    api_server: &[SocketAddr],
    metrics: Arc<Metrics>,
) -> Result<(RegistryClient, Option<TempDir>), RegistrySetupError> {
    let network = NetworkPolicy::new(
        &arguments.allow_registries,
        arguments.deny_private_addresses,
        arguments.allow_loopback,
        api_server.to_vec(),
    )?;
    let temporary = match &arguments.cache_dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("policy-operator-")
                .tempdir()
                .map_err(RegistrySetupError::Temporary)?,
        ),
    };
    let given = arguments.cache_dir.clone();
    let cache_directory =
        given.unwrap_or_else(|| temporary.iter().map(|temporary| temporary.path().to_owned()).collect());
    let cache_bytes = u64::from(arguments.cache_size) << 20;
    let observer = Arc::new(Counted(metrics));
    let options = RegistryOptions {
        cache_directory,
        cache_bytes,
        network,
        observer,
        timeouts: Timeouts::default(),
    };
    Ok((RegistryClient::new(options)?, temporary))
}

/// Counts what the client and the pipeline do.
#[derive(Debug)]
pub struct Counted(pub Arc<Metrics>);

impl SharingObserver for Counted {
    fn answered(&self, question: Question, saved: bool) {
        let cache = match question {
            Question::Resolution => Cache::Resolution,
            Question::Verification => Cache::Verification,
            Question::Bundle => Cache::Bundle,
        };
        if saved {
            self.0.cache_hit(cache);
        } else {
            self.0.cache_miss(cache);
        }
    }
}

impl RequestObserver for Counted {
    fn request(&self, kind: RequestKind, status: Option<u16>) {
        let kind = match kind {
            RequestKind::Token => RegistryRequest::Token,
            RequestKind::Manifest => RegistryRequest::Manifest,
            RequestKind::Blob => RegistryRequest::Blob,
            RequestKind::Tags => RegistryRequest::Tags,
            RequestKind::Referrers => RegistryRequest::Referrers,
        };
        self.0.registry_request(kind, status);
    }

    fn blob_cache(&self, hit: bool) {
        if hit {
            self.0.cache_hit(Cache::Blob);
        } else {
            self.0.cache_miss(Cache::Blob);
        }
    }

    fn downloaded(&self, bytes: u64) {
        self.0.bundle_downloaded(bytes);
    }
}

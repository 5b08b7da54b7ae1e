//! The adapters, set up from the flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::args::RegistryArguments;
use crate::adapters::network::{EgressPolicy, NetworkError, Timeouts, check_system_certificates};
use crate::adapters::registry::observer::RequestObserver;
use crate::adapters::registry::{AllowedHosts, HostPatternError, RegistryClient, RegistryOptions};
use crate::pipeline::ports::{Ports, RegistryError};

/// Why the adapters cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A pattern of `--allow-registry`.
    #[error("'--allow-registry': {0}")]
    Pattern(#[from] HostPatternError),
    /// The cache directory.
    #[error("{0}; check '--cache-dir' and its free space")]
    Client(#[from] RegistryError),
    /// The system's temporary directory.
    #[error("no temporary directory can be made for the cache; set '--cache-dir' to one that can be written")]
    Temporary(#[source] std::io::Error),
}

/// The adapters of one program: the ports of its pipeline.
#[derive(Debug)]
pub struct Adapters {
    registry: RegistryClient,
    /// Removed when the program ends.
    _temporary: Option<TempDir>,
}

impl Ports for Adapters {
    type Registry = RegistryClient;

    fn registry(&self) -> &RegistryClient {
        &self.registry
    }
}

/// Sets up the adapters of the program of this name. `refused` are addresses that are never connected to, such as the API server's own; `observer`
/// is notified of each request.
///
/// # Errors
/// [`SetupError`].
pub fn adapters(
    program: &'static str,
    arguments: &RegistryArguments,
    refused: &[SocketAddr],
    observer: Arc<dyn RequestObserver>,
) -> Result<Adapters, SetupError> {
    if let Err(NetworkError::MissingSystemCertificates) = check_system_certificates() {
        tracing::warn!(
            "this system has no certificate authorities: only registries with an authority of their own, or without TLS, \
             can be used; install the package 'ca-certificates', or name a PEM file by the environment variable \
             SSL_CERT_FILE"
        );
    }
    let (cache_directory, temporary) = cache_directory(program, arguments)?;
    let registry = RegistryClient::new(RegistryOptions {
        client_name: program,
        cache_directory,
        cache_bytes: u64::from(arguments.cache_size) << 20,
        allowed_hosts: AllowedHosts::parse(&arguments.allow_registries)?,
        egress: EgressPolicy::new(
            arguments.deny_private_addresses,
            arguments.allow_loopback,
            refused.to_vec(),
        ),
        observer,
        timeouts: Timeouts::default(),
    })?;
    Ok(Adapters {
        registry,
        _temporary: temporary,
    })
}

fn cache_directory(program: &str, arguments: &RegistryArguments) -> Result<(PathBuf, Option<TempDir>), SetupError> {
    if let Some(given) = &arguments.cache_dir {
        return Ok((given.clone(), None));
    }
    let temporary = tempfile::Builder::new().prefix(&format!("{program}-")).tempdir();
    let temporary = temporary.map_err(SetupError::Temporary)?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

//! OCI registries, as far as pulling needs them. Source: OCI distribution specification 1.1.
//!
//! Our own client, because pulling the right bytes from registries that may be hostile is what this program is for:
//!
//! * every byte is checked against the digest it was asked by ([`manifests`], [`blobs`]), and every answer has a limit;
//! * credentials go to the registry and to a token server of the same site, nowhere else ([`token`], [`exchange`]);
//! * no connection goes to an address that [`guard`] forbids, whatever name, redirect or realm leads there;
//! * what is kept is kept under the [`crate::domain::access::Scope`] of whoever fetched it ([`store`]).
//!
//! Proxies from the environment are not used: the guard could not see where they connect to.

mod blobs;
mod challenge;
mod endpoint;
mod exchange;
mod failure;
pub mod guard;
mod listing;
mod manifests;
pub mod observer;
mod retry;
mod store;
mod token;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::access::Access;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};
use crate::pipeline::ports::{ManifestName, RawManifest, Registry, RegistryError};
use exchange::Exchange;
use guard::NetworkPolicy;
use observer::RequestObserver;
use store::Store;
use token::Tokens;
use transport::Transports;

/// What a client is made of.
#[derive(Debug)]
pub struct RegistryOptions {
    /// Where blobs are kept. Created if needed; leftovers of a killed process in it are removed.
    pub cache_directory: PathBuf,
    /// Most bytes kept there.
    pub cache_bytes: u64,
    /// Which registries and addresses may be reached.
    pub network: NetworkPolicy,
    /// Who is told about requests.
    pub observer: Arc<dyn RequestObserver>,
    /// How long to wait for a connection, and then for each next piece of an answer.
    pub timeouts: Timeouts,
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next piece of an answer.
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

/// A client for all registries and all tenants; keep one for the whole program.
#[derive(Debug)]
pub struct RegistryClient {
    exchange: Exchange,
    store: Store,
}

impl RegistryClient {
    /// Makes a client.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] where the cache directory cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let store = Store::open(options.cache_directory, options.cache_bytes)?;
        let network = Arc::new(options.network);
        let transports = Transports::new(Arc::clone(&network), options.timeouts);
        let exchange = Exchange {
            transports,
            network,
            tokens: Tokens::default(),
            observer: options.observer,
        };
        Ok(Self { exchange, store })
    }
}

impl Registry for RegistryClient {
    async fn resolve(&self, repository: &Repository, tag: &Tag, access: &Access) -> Result<Digest, RegistryError> {
        manifests::resolve(&self.exchange, repository, tag, access).await
    }

    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        access: &Access,
    ) -> Result<RawManifest, RegistryError> {
        manifests::fetch(&self.exchange, repository, name, access).await
    }

    async fn tags(&self, repository: &Repository, access: &Access) -> Result<Vec<Tag>, RegistryError> {
        listing::tags(&self.exchange, repository, access).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        access: &Access,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        listing::referrers(&self.exchange, repository, digest, access).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        access: &Access,
    ) -> Result<Arc<dyn Content>, RegistryError> {
        blobs::fetch(&self.exchange, &self.store, repository, descriptor, access).await
    }
}

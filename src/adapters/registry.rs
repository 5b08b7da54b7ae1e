//! A client for OCI registries.
//!
//! It implements [`Registry`] and nothing more: pulling. What it adds to HTTP, one file each:
//!
//! ```text
//! manifests  tags  referrers  blobs      the five requests
//!        session                         what the registry accepts: challenge, realm, token
//!        sender                          retries, redirects, the observer
//!        store                           blobs on disk
//!        network                         TLS, where a connection may lead, hosts that hang: `adapters::network`
//! ```
//!
//! **Security invariants.** Every byte is hashed here. Every response has a limit. Credentials go to the registry and to a
//! token server on its site, and nowhere else. No connection is made to an address that [`EgressPolicy`] refuses. No
//! error and no log line holds a credential, a query string or a body. Foreign `urls` of descriptors are not looked at.
//!
//! The process must have installed a rustls crypto provider.

mod action;
mod allowed_hosts;
mod blobs;
mod body;
mod challenge;
mod convert;
mod endpoint;
mod manifests;
pub mod observer;
mod options;
mod paging;
mod realm;
mod referrers;
mod sender;
mod session;
mod store;
mod tags;
mod token;

use std::sync::Arc;

use self::session::Session;
use self::store::BlobStore;
use self::token::Authorizations;
use crate::adapters::network::EgressPolicy;
use crate::adapters::network::circuit_breaker::CircuitBreakers;
use crate::adapters::network::transport::Transports;
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};
use crate::pipeline::fair_semaphore::FairSemaphore;
use crate::pipeline::ports::{ManifestName, RawManifest, Registry, RegistryError};

pub use allowed_hosts::{AllowedHosts, HostPatternError};
pub use options::RegistryOptions;

/// The client. Cheap to clone: clones share connections, tokens and blobs.
#[derive(Clone)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RegistryClient")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

struct Inner {
    options: RegistryOptions,
    egress: Arc<EgressPolicy>,
    transports: Transports,
    circuit_breakers: Arc<CircuitBreakers>,
    large_bodies: FairSemaphore,
    authorizations: Authorizations,
    store: BlobStore,
}

impl RegistryClient {
    /// Opens the cache directory. Connects to nothing.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if the cache directory cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let egress = Arc::new(options.egress.clone());
        let inner = Inner {
            transports: Transports::new(options.client_name, Arc::clone(&egress), options.timeouts),
            circuit_breakers: Arc::default(),
            large_bodies: FairSemaphore::new(body::LARGE_BODIES),
            authorizations: Authorizations::default(),
            store: BlobStore::open(&options.cache_directory, options.cache_bytes).map_err(convert::storage)?,
            egress,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Registry for RegistryClient {
    async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
        access: &RegistryAccess,
    ) -> Result<Digest, RegistryError> {
        manifests::resolve(&Session::open(&self.inner, repository, access).await?, tag).await
    }

    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        access: &RegistryAccess,
    ) -> Result<RawManifest, RegistryError> {
        manifests::get(&Session::open(&self.inner, repository, access).await?, name).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        access: &RegistryAccess,
        visit: &mut (dyn FnMut(Tag) + Send),
    ) -> Result<usize, RegistryError> {
        let session = Session::open(&self.inner, repository, access).await?;
        tags::list(&session, visit).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        access: &RegistryAccess,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        referrers::list(&Session::open(&self.inner, repository, access).await?, digest).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        access: &RegistryAccess,
    ) -> Result<Arc<dyn Content>, RegistryError> {
        let session = Session::open(&self.inner, repository, access).await?;
        blobs::get(&session, &self.inner.store, descriptor).await
    }
}

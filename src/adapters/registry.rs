//! A client for OCI registries.
//!
//! It implements [`Registry`] and nothing more: pulling. What it adds to HTTP, one file each:
//!
//! ```text
//! manifests  tags  referrers  blobs      the five questions
//!        session                         what the registry accepts: challenge, realm, token
//!          wire                          retries, redirects, the guard, the watcher
//!       transport  network               TLS settings; where a connection may lead
//!                  store                 blobs on disk
//! ```
//!
//! **Security invariants.** Every byte is hashed here. Every answer has a limit. Credentials go to the registry and to a
//! token server on its site, and nowhere else. No connection is made to an address that [`NetworkPolicy`] refuses. No
//! error and no log line holds a credential, a query string or a body. Foreign `urls` of descriptors are not looked at.
//!
//! The process must have installed a rustls crypto provider.

mod blobs;
mod body;
mod challenge;
mod endpoint;
mod failure;
pub mod guard;
mod manifests;
pub mod observer;
mod options;
mod paging;
mod realm;
mod redirect;
mod referrers;
mod retry;
mod session;
mod store;
mod tags;
mod token;
mod transport;
mod wire;

use std::sync::Arc;

use self::guard::NetworkPolicy;
use self::session::Session;
use self::store::BlobStore;
use self::token::Grants;
use self::transport::Transports;
use crate::domain::access::Access;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};
use crate::pipeline::ports::{ManifestName, RawManifest, Registry, RegistryError};

pub use options::{RegistryOptions, Timeouts};

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
    network: Arc<NetworkPolicy>,
    transports: Transports,
    grants: Grants,
    store: BlobStore,
}

impl RegistryClient {
    /// Opens the cache directory. Connects to nothing.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] where the cache directory cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let network = Arc::new(options.network.clone());
        let inner = Inner {
            transports: Transports::new(Arc::clone(&network), options.timeouts),
            grants: Grants::default(),
            store: BlobStore::open(&options.cache_directory, options.cache_bytes).map_err(failure::storage)?,
            network,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Registry for RegistryClient {
    async fn resolve(&self, repository: &Repository, tag: &Tag, access: &Access) -> Result<Digest, RegistryError> {
        manifests::resolve(&Session::open(&self.inner, repository, access).await?, tag).await
    }

    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        access: &Access,
    ) -> Result<RawManifest, RegistryError> {
        manifests::get(&Session::open(&self.inner, repository, access).await?, name).await
    }

    async fn tags(&self, repository: &Repository, access: &Access) -> Result<Vec<Tag>, RegistryError> {
        tags::list(&Session::open(&self.inner, repository, access).await?).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        access: &Access,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        referrers::list(&Session::open(&self.inner, repository, access).await?, digest).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        access: &Access,
    ) -> Result<Arc<dyn Content>, RegistryError> {
        let session = Session::open(&self.inner, repository, access).await?;
        blobs::get(&session, &self.inner.store, descriptor).await
    }
}

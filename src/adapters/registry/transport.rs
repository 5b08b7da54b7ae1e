//! HTTP clients, one per set of TLS settings.
//!
//! Connections carry what TLS proved, so they are shared only between accesses with the same settings. Each client loads
//! the system's certificate authorities, a few hundred kilobytes: hence the bound.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};

use super::failure::plain;
use super::guard::{GuardedResolver, NetworkPolicy};
use super::options::Timeouts;
use crate::domain::access::{Access, ClientCertificate};
use crate::domain::digest::Digest;
use crate::pipeline::ports::RegistryError;

/// Most clients kept.
const MAX_CLIENTS: u64 = 64;
/// A client that nobody used for so long is dropped. It is also dropped at this age times six, so that authorities added
/// to the system are noticed.
const IDLE: Duration = Duration::from_mins(10);
const MAX_AGE: Duration = Duration::from_hours(1);

/// The clients in use.
pub(super) struct Transports {
    clients: Cache<Digest, Client>,
    network: Arc<NetworkPolicy>,
    timeouts: Timeouts,
}

impl Transports {
    pub(super) fn new(network: Arc<NetworkPolicy>, timeouts: Timeouts) -> Self {
        let clients = Cache::builder()
            .max_capacity(MAX_CLIENTS)
            .time_to_idle(IDLE)
            .time_to_live(MAX_AGE)
            .build();
        Self {
            clients,
            network,
            timeouts,
        }
    }

    /// The client for `access`.
    pub(super) async fn client(&self, access: &Access) -> Result<Client, RegistryError> {
        let made = self
            .clients
            .try_get_with(access.transport(), async { self.make(access) });
        made.await.map_err(|error| RegistryError::clone(&error))
    }

    fn make(&self, access: &Access) -> Result<Client, RegistryError> {
        let authorities = match &access.authorities_pem {
            Some(pem) => authorities(pem)?,
            None => Vec::new(),
        };
        let identity = access.client_certificate.as_ref().map(identity).transpose()?;
        let builder = || {
            let builder = self.builder().https_only(!access.insecure);
            match identity.clone() {
                Some(identity) => builder.identity(identity),
                None => builder,
            }
        };
        let made = builder().tls_certs_merge(authorities.clone()).build();
        let made = match made {
            // A machine without certificate authorities can still speak plain HTTP.
            Err(_) if access.insecure => builder().tls_certs_only(authorities).build(),
            made => made,
        };
        made.map_err(|error| settings(&innermost(&error)))
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("policy-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Behind a proxy the guard would see the proxy's address only.
            .no_proxy()
            .dns_resolver(GuardedResolver::new(Arc::clone(&self.network)))
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.idle)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
    }
}

fn authorities(pem: &str) -> Result<Vec<Certificate>, RegistryError> {
    let found = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if found.is_empty() {
        return Err(settings("the certificate authorities are not certificates in PEM"));
    }
    Ok(found)
}

fn identity(certificate: &ClientCertificate) -> Result<Identity, RegistryError> {
    let pem = [certificate.chain_pem.as_str(), certificate.key_pem.expose()].join("\n");
    Identity::from_pem(pem.as_bytes())
        .map_err(|_| settings("the client certificate is not a certificate chain and its private key, both PEM"))
}

fn settings(cause: &str) -> RegistryError {
    RegistryError::TlsSettings { cause: plain(cause) }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

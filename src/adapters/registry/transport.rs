//! Connections: one pool for each set of TLS settings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity};

use super::Timeouts;
use super::guard::{GuardedResolver, NetworkPolicy};
use crate::domain::access::Access;
use crate::domain::digest::Digest;
use crate::pipeline::ports::RegistryError;

/// Most sets of TLS settings that are kept. Each keeps a copy of the system's authorities.
const MAX_CLIENTS: usize = 64;

/// All pools.
#[derive(Debug)]
pub(super) struct Transports {
    network: Arc<NetworkPolicy>,
    timeouts: Timeouts,
    clients: Mutex<HashMap<Digest, Client>>,
}

impl Transports {
    pub(super) fn new(network: Arc<NetworkPolicy>, timeouts: Timeouts) -> Self {
        Self {
            network,
            timeouts,
            clients: Mutex::default(),
        }
    }

    /// The pool for the TLS settings of `access`. Credentials are no part of it: they travel with each request.
    pub(super) fn client(&self, access: &Access) -> Result<Client, RegistryError> {
        let key = access.transport();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(access)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, access: &Access) -> Result<Client, RegistryError> {
        let wrong = |cause: &str| RegistryError::TlsSettings {
            cause: cause.to_owned(),
        };
        let mut builder = Client::builder()
            .user_agent(concat!("policy-operator/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            // Redirects are followed by hand: see `exchange`.
            .redirect(Policy::none())
            .dns_resolver(GuardedResolver(Arc::clone(&self.network)))
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.idle);
        if access.insecure {
            // Plain HTTP needs no authorities, and must work where the system has none.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if let Some(pem) = &access.authorities_pem {
            let authorities = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if authorities.is_empty() {
                return Err(wrong("'spec.tls.caRef' holds no PEM certificate"));
            }
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some(certificate) = &access.client_certificate {
            let pem = format!("{}\n{}", certificate.chain_pem, certificate.key_pem.expose());
            let identity = Identity::from_pem(pem.as_bytes())
                .map_err(|_| wrong("'spec.tls.certSecretRef' holds no PEM certificate with its private key"))?;
            builder = builder.identity(identity);
        }
        // The cause may quote the PEM text, so it is not repeated.
        builder
            .build()
            .map_err(|_| wrong("the certificates or the key are not usable, or the system has no authorities"))
    }
}

//! HTTP clients, one per set of transport settings.
//!
//! A connection carries the identities that TLS authenticated, so it is shared only between accesses with the same
//! settings. Each client loads the system's certificate authorities, a few hundred kilobytes, and those of its
//! settings: hence the bound.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};

use super::egress::EgressPolicy;
use super::error::NetworkError;
use super::error::plain;
use super::resolver::GuardedResolver;
use crate::domain::access::{ClientCertificate, TransportSettings};
use crate::domain::digest::Digest;

/// Most bytes of clients kept, about: 64 of them, if settings are small.
const MAX_BYTES: u64 = 64 * CLIENT_BYTES as u64;
/// What a client takes, about.
const CLIENT_BYTES: u32 = 512 << 10;
/// What a byte of certificates takes in a client that trusts them, about.
const BYTES_PER_AUTHORITY_BYTE: usize = 4;
/// Most bytes of the authorities of one client, as PEM: all that operating systems ship have fewer. Clients that are in
/// use are in memory, whatever is kept.
const MAX_AUTHORITIES_BYTES: usize = 256 << 10;
/// A client that was not used for so long is dropped. It is also dropped at six times this age, so that authorities
/// added to the system are noticed.
const IDLE: Duration = Duration::from_mins(10);
const MAX_AGE: Duration = Duration::from_hours(1);

/// How long one request may stall. How long a whole job may take is up to its caller.
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

fn weight(settings: &TransportSettings) -> u32 {
    let authorities = settings.authorities_pem.as_ref().map_or(0, String::len);
    let authorities = authorities.saturating_mul(BYTES_PER_AUTHORITY_BYTE);
    u32::try_from(authorities).map_or(u32::MAX, |bytes| bytes.saturating_add(CLIENT_BYTES))
}

/// The clients in use.
pub(crate) struct Transports {
    /// Each with what it takes.
    clients: Cache<Digest, (Client, u32)>,
    client_name: &'static str,
    egress: Arc<EgressPolicy>,
    timeouts: Timeouts,
}

impl Transports {
    pub(crate) fn new(client_name: &'static str, egress: Arc<EgressPolicy>, timeouts: Timeouts) -> Self {
        let clients = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, (_, bytes)| *bytes)
            .time_to_idle(IDLE)
            .time_to_live(MAX_AGE)
            .build();
        Self {
            clients,
            client_name,
            egress,
            timeouts,
        }
    }

    /// The client for `settings`.
    pub(crate) async fn client(&self, settings: &TransportSettings) -> Result<Client, NetworkError> {
        let made = self.clients.try_get_with(settings.digest(), async {
            Ok((self.make(settings)?, weight(settings)))
        });
        let (client, _) = made
            .await
            .map_err(|error: Arc<NetworkError>| NetworkError::clone(&error))?;
        Ok(client)
    }

    fn make(&self, settings: &TransportSettings) -> Result<Client, NetworkError> {
        let authorities = match &settings.authorities_pem {
            Some(pem) => authorities(pem)?,
            None => Vec::new(),
        };
        let identity = settings.client_certificate.as_ref().map(identity).transpose()?;
        let builder = || {
            let builder = self.builder().https_only(!settings.insecure);
            match identity.clone() {
                Some(identity) => builder.identity(identity),
                None => builder,
            }
        };
        let with_system = builder().tls_certs_merge(authorities.clone()).build();
        with_system.or_else(|_| {
            let is_enough = settings.insecure || !authorities.is_empty();
            let alone = builder().tls_certs_only(authorities).build();
            // What works without the system's authorities fails because there are none.
            match alone {
                Ok(client) if is_enough => Ok(client),
                Ok(_) => Err(NetworkError::MissingSystemCertificates),
                Err(error) => Err(unusable(&innermost(&error))),
            }
        })
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(format!("{}/{}", self.client_name, env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Behind a proxy the guard would see the proxy's address only.
            .no_proxy()
            .dns_resolver(GuardedResolver::new(Arc::clone(&self.egress)))
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.idle)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
    }
}

/// Whether this system has certificate authorities, so that TLS certificates can be checked at all.
///
/// # Errors
/// [`NetworkError::MissingSystemCertificates`].
pub fn check_system_certificates() -> Result<(), NetworkError> {
    match Client::builder().no_proxy().build() {
        Ok(_) => Ok(()),
        Err(_) => Err(NetworkError::MissingSystemCertificates),
    }
}

fn authorities(pem: &str) -> Result<Vec<Certificate>, NetworkError> {
    if pem.len() > MAX_AUTHORITIES_BYTES {
        return Err(unusable("the certificate authorities have more than 256 KiB"));
    }
    // The library says no more than that, and a parser's own words may quote a line, which may be a private key's.
    let found = Certificate::from_pem_bundle(pem.as_bytes())
        .map_err(|_| unusable("the certificate authorities are not certificates in PEM"))?;
    if found.is_empty() {
        return Err(unusable("the certificate authorities hold no certificate in PEM"));
    }
    Ok(found)
}

fn identity(certificate: &ClientCertificate) -> Result<Identity, NetworkError> {
    let pem = [certificate.chain_pem.as_str(), certificate.key_pem.expose()].join("\n");
    Identity::from_pem(pem.as_bytes())
        .map_err(|_| unusable("the client certificate is not a certificate chain and its private key, both PEM"))
}

fn unusable(cause: &str) -> NetworkError {
    NetworkError::TransportSettings { cause: plain(cause) }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

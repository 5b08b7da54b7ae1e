//! Where a client may connect to: addresses that are refused, wherever they come from.
//!
//! The author of an object chooses a host, and the owner of that host chooses what it resolves to, where it
//! redirects and which token server it names. Without this guard each of them could make the operator talk to the
//! cloud's metadata service or to its own node. It is applied after name resolution, on every connection, so a name
//! that changes its address between two lookups gains nothing.

mod address;

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;

use super::error::NetworkError;

/// Where the client may connect to.
///
/// Always refused: link-local addresses, the metadata services of clouds, unspecified, multicast, broadcast and
/// reserved addresses, each also when embedded in an IPv6 address. Proxies from the environment are not used: behind
/// one, this check would not see the address.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    deny_private_addresses: bool,
    allow_loopback: bool,
    refused: Vec<SocketAddr>,
}

impl EgressPolicy {
    /// - `deny_private_addresses`: refuse 10/8, 172.16/12, 192.168/16, 100.64/10 and `fc00::/7`.
    /// - `allow_loopback`: allow 127/8 and `::1`, for tests and laptops.
    /// - `refused`: further addresses, such as the API server's own. They are refused on every port, except on
    ///   loopback, which everything on the machine shares.
    #[must_use]
    pub fn new(deny_private_addresses: bool, allow_loopback: bool, refused: Vec<SocketAddr>) -> Self {
        Self {
            deny_private_addresses,
            allow_loopback,
            refused,
        }
    }

    /// Whether the URL's host may be connected to, as far as the resolver would not see it: HTTP libraries do not look
    /// up hosts that are addresses, and do not tell the resolver the port. The URL type has already turned decimal,
    /// octal and hexadecimal notations of IPv4 into an address.
    pub(crate) async fn check_url(&self, url: &Url) -> Result<(), NetworkError> {
        let refused = || NetworkError::AddressRefused { host: host_of(url) };
        // A URL without a host or a port leads nowhere that could be checked.
        let host = url.host_str().ok_or_else(refused)?;
        let port = url.port_or_known_default().ok_or_else(refused)?;
        let is_permitted = match ip_literal(url) {
            Some(address) => self.permits(address) && !self.is_refused_loopback(address, port),
            None if self.has_refused_loopback(port) => {
                let found = tokio::net::lookup_host((host, port)).await;
                // A name that does not resolve fails later, with a better text.
                found.map_or(true, |mut found| {
                    found.all(|found| !self.is_refused_loopback(found.ip(), port))
                })
            }
            None => true,
        };
        is_permitted.then_some(()).ok_or_else(refused)
    }

    /// Whether `address` may be connected to.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        address::equivalent_addresses(address).all(|equivalent| {
            if equivalent.is_loopback() {
                return self.allow_loopback;
            }
            let is_listed = self
                .refused
                .iter()
                .any(|refused| refused.ip().to_canonical() == equivalent);
            let is_denied = self.deny_private_addresses && address::is_private(equivalent);
            !(is_listed || is_denied || address::is_never_a_registry(equivalent))
        })
    }

    /// On loopback the port tells the API server from a registry.
    fn is_refused_loopback(&self, address: IpAddr, port: u16) -> bool {
        address.to_canonical().is_loopback() && self.has_refused_loopback(port)
    }

    fn has_refused_loopback(&self, port: u16) -> bool {
        let mut refused = self.refused.iter();
        refused.any(|refused| refused.port() == port && refused.ip().to_canonical().is_loopback())
    }
}

/// The URL's host if it is an address and not a name.
pub(crate) fn ip_literal(url: &Url) -> Option<IpAddr> {
    // `host_str` writes IPv6 in brackets.
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether the address can only be reached from inside some network, for rules that need no policy.
pub(crate) fn is_internal(address: IpAddr) -> bool {
    address::equivalent_addresses(address).any(|equivalent| {
        equivalent.is_loopback() || address::is_private(equivalent) || address::is_never_a_registry(equivalent)
    })
}

/// Host and port as messages name them.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests;

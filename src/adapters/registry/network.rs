//! Where the client may connect to: an allow-list of registries, and addresses that are refused whoever names them.
//!
//! Whoever may create an object chooses a host, and whoever runs that host chooses what it resolves to, where it
//! redirects and which token server it names. Without this guard each of them could make the operator talk to the
//! cloud's metadata service or to its own node. It is applied after name resolution, on every connection, so a name
//! that changes its address between two lookups gains nothing.

mod address;
mod pattern;
mod resolver;

use std::collections::BTreeSet;
use std::net::IpAddr;

use reqwest::Url;

pub use pattern::{PatternError, RegistryPattern};
pub(super) use resolver::{GuardedResolver, RefusedAddress};

use crate::pipeline::ports::RegistryError;

/// Where the client may connect to.
///
/// Always refused: link-local addresses, the metadata services of clouds, unspecified, multicast, broadcast and
/// reserved addresses, each also where an IPv6 address carries it. Proxies from the environment are not used: behind
/// one, nobody here would see the address.
#[derive(Debug, Clone, Default)]
pub struct NetworkPolicy {
    /// Registries that may be used; all where empty.
    pub allowed_registries: Vec<RegistryPattern>,
    /// Refuse 10/8, 172.16/12, 192.168/16, 100.64/10 and fc00::/7.
    pub deny_private_addresses: bool,
    /// Allow 127/8 and `::1`, for tests and laptops.
    pub allow_loopback: bool,
    /// Further addresses to refuse on all ports, such as those of the API server. Loopback addresses among them have no
    /// effect with `allow_loopback`, where everything shares them.
    pub refused_addresses: BTreeSet<IpAddr>,
}

impl NetworkPolicy {
    /// Whether an image of `host`, as its reference writes it, may be pulled at all.
    pub(super) fn check_registry(&self, host: &str) -> Result<(), RegistryError> {
        let allowed = &self.allowed_registries;
        if allowed.is_empty() || allowed.iter().any(|pattern| pattern.matches(host)) {
            return Ok(());
        }
        Err(RegistryError::NotAllowed { host: host.to_owned() })
    }

    /// Whether the URL's host may be connected to, as far as that shows without a lookup: HTTP libraries do not look up
    /// addresses, so the resolver would not see them. The URL type has already turned decimal, octal and hexadecimal
    /// notations of IPv4 into an address.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), RegistryError> {
        match literal(url) {
            Some(address) if !self.permits(address) => Err(RegistryError::AddressRefused { host: host_of(url) }),
            _ => Ok(()),
        }
    }

    /// Whether `address` may be connected to.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        address::forms(address).all(|form| {
            if form.is_loopback() {
                return self.allow_loopback;
            }
            !self.refused_addresses.contains(&form)
                && !address::is_never_a_registry(form)
                && !(self.deny_private_addresses && address::is_private(form))
        })
    }
}

/// The URL's host where it is an address and not a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    // `host_str` writes IPv6 in brackets.
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether the address can only be reached from inside some network, for rules that need no policy.
pub(super) fn is_internal(address: IpAddr) -> bool {
    address::forms(address)
        .any(|form| form.is_loopback() || address::is_private(form) || address::is_never_a_registry(form))
}

/// Host and port as messages name them.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! Where connections may go.
//!
//! Tenants choose registries, registries choose redirects and token servers, and names may resolve to anything. So the
//! addresses themselves are checked: a resolver of our own drops forbidden ones for every connection that is made, and
//! hosts that are written as addresses, which no resolver sees, are checked before each request. The error is the same
//! for every address, so that nobody can use us to map a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Addresses at which clouds answer with credentials, beyond link-local ones: Alibaba Cloud, Azure, AWS over IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Which registries and addresses may be reached.
#[derive(Debug, Clone, Default)]
pub struct NetworkPolicy {
    allowed_registries: Vec<GlobMatcher>,
    deny_private_addresses: bool,
    allow_loopback: bool,
    refused: Vec<SocketAddr>,
}

/// A pattern of `--allow-registry` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{pattern}' is not a pattern for registry hosts such as 'ghcr.io' or '*.acme.example:5000'")]
pub struct PatternError {
    pattern: String,
}

impl NetworkPolicy {
    /// A policy. No pattern allows every registry. `refused` are the API server's own addresses.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(
        allowed_registries: &[String],
        deny_private_addresses: bool,
        allow_loopback: bool,
        refused: Vec<SocketAddr>,
    ) -> Result<Self, PatternError> {
        let allowed_registries = allowed_registries
            .iter()
            .map(|pattern| pattern.trim())
            .filter(|pattern| !pattern.is_empty())
            .map(|pattern| {
                let glob = Glob::new(&pattern.to_ascii_lowercase()).map(|glob| glob.compile_matcher());
                glob.ok()
                    .filter(|_| !pattern.contains('/'))
                    .ok_or_else(|| PatternError {
                        pattern: pattern.to_owned(),
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            allowed_registries,
            deny_private_addresses,
            allow_loopback,
            refused,
        })
    }

    /// Whether a registry with this host, port included where one is written, may be used.
    #[must_use]
    pub fn allows_registry(&self, host: &str) -> bool {
        self.allowed_registries.is_empty() || self.allowed_registries.iter().any(|glob| glob.is_match(host))
    }

    /// Whether a URL may be asked. Names are checked again when they are resolved.
    #[must_use]
    pub fn permits_url(&self, url: &Url) -> bool {
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            Some(url::Host::Domain(name)) => return !name.is_empty(),
            None => return false,
        };
        self.permits(address) && !self.refuses_socket(address, url.port_or_known_default())
    }

    /// Whether connections to an address may be made at all.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = unwrap(address);
        if METADATA.contains(&address) || address.is_unspecified() || address.is_multicast() {
            return false;
        }
        if address.is_loopback() {
            return self.allow_loopback;
        }
        let refused = match address {
            IpAddr::V4(address) => {
                address.is_link_local()
                    || address.is_broadcast()
                    || address.octets()[0] == 0
                    || (self.deny_private_addresses && (address.is_private() || is_shared(address)))
            }
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || (self.deny_private_addresses && address.is_unique_local())
            }
        };
        !refused && !self.refused.iter().any(|socket| unwrap(socket.ip()) == address)
    }

    /// On loopback the API server shares its address with everything else there, so its port counts too.
    fn refuses_socket(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.refused
            .iter()
            .any(|socket| unwrap(socket.ip()) == unwrap(address) && Some(socket.port()) == port)
    }

    /// Whether a name that resolves to loopback may be asked at this port.
    fn refuses_loopback_port(&self, port: Option<u16>) -> bool {
        self.refused
            .iter()
            .any(|socket| unwrap(socket.ip()).is_loopback() && Some(socket.port()) == port)
    }

    /// Whether `url` asks a name for the port at which the API server listens on loopback.
    pub(super) fn may_be_api_server_on_loopback(&self, url: &Url) -> bool {
        matches!(url.host(), Some(url::Host::Domain(_))) && self.refuses_loopback_port(url.port_or_known_default())
    }
}

/// Looks through the ways to write an IPv4 address as an IPv6 one, by which a packet may reach it: mapped, compatible,
/// NAT64 and 6to4.
fn unwrap(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if (g, h) != (0, 0) && (g, h) != (0, 1) => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// 100.64.0.0/10, shared address space (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}

/// Marks an error of the resolver as ours.
#[derive(Debug, thiserror::Error)]
#[error("the address is not one that may be connected to")]
pub(super) struct Refused;

/// Resolves names and drops forbidden addresses.
#[derive(Debug, Clone)]
pub(super) struct GuardedResolver(pub(super) Arc<NetworkPolicy>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|socket| policy.permits(socket.ip())).collect();
            if permitted.is_empty() {
                Err(Refused.into())
            } else {
                Ok(Box::new(permitted.into_iter()) as Addrs)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn policy(deny_private: bool, loopback: bool) -> NetworkPolicy {
        NetworkPolicy::new(&[], deny_private, loopback, vec!["10.96.0.1:443".parse().unwrap()]).unwrap()
    }

    #[rstest]
    #[case::loopback("127.0.0.1")]
    #[case::loopback_elsewhere("127.8.9.10")]
    #[case::loopback_v6("::1")]
    #[case::metadata("169.254.169.254")]
    #[case::metadata_aws_v6("fd00:ec2::254")]
    #[case::metadata_alibaba("100.100.100.200")]
    #[case::metadata_azure("168.63.129.16")]
    #[case::link_local("fe80::1")]
    #[case::unspecified("0.0.0.0")]
    #[case::this_network("0.1.2.3")]
    #[case::unspecified_v6("::")]
    #[case::multicast("224.0.0.1")]
    #[case::multicast_v6("ff02::1")]
    #[case::broadcast("255.255.255.255")]
    #[case::mapped("::ffff:127.0.0.1")]
    #[case::mapped_metadata("::ffff:a9fe:a9fe")]
    #[case::compatible("::7f00:1")]
    #[case::nat64("64:ff9b::a9fe:a9fe")]
    #[case::six_to_four("2002:a9fe:a9fe::1")]
    #[case::api_server("10.96.0.1")]
    fn refuses_by_default(#[case] address: IpAddr) {
        assert!(!policy(false, false).permits(address));
        assert!(!policy(true, false).permits(address));
    }

    #[rstest]
    #[case::public("140.82.121.34", true)]
    #[case::public_v6("2606:50c0::1", true)]
    #[case::private("10.0.0.5", false)]
    #[case::private_172("172.16.0.1", false)]
    #[case::private_192("192.168.1.1", false)]
    #[case::shared("100.64.0.1", false)]
    #[case::unique_local("fd12::1", false)]
    fn private_addresses_are_refused_only_where_asked(#[case] address: IpAddr, #[case] public: bool) {
        assert!(policy(false, false).permits(address));
        assert_eq!(policy(true, false).permits(address), public);
    }

    #[rstest]
    #[case::dotted("https://127.0.0.1/", false)]
    #[case::decimal("https://2130706433/", false)]
    #[case::hex("https://0x7f000001/", false)]
    #[case::octal("https://0177.0.0.1/", false)]
    #[case::short("https://127.1/", false)]
    #[case::v6("https://[::1]/", false)]
    #[case::api_server("https://10.96.0.1/", false)]
    #[case::name("https://ghcr.io/", true)]
    #[case::public("https://140.82.121.34/", true)]
    fn urls_written_as_addresses_are_checked(#[case] url: &str, #[case] permitted: bool) {
        assert_eq!(policy(false, false).permits_url(&url.parse().unwrap()), permitted);
    }

    #[test]
    fn on_loopback_only_the_port_of_the_api_server_is_refused() {
        let refused = vec!["127.0.0.1:6443".parse().unwrap()];
        let policy = NetworkPolicy::new(&[], false, true, refused).unwrap();
        assert!(
            policy.permits_url(&"http://127.0.0.1:5000/".parse().unwrap())
                == policy.permits("127.0.0.1".parse().unwrap())
        );
        assert!(policy.permits_url(&"http://127.0.0.1:5000/".parse().unwrap()));
        assert!(!policy.permits_url(&"https://127.0.0.1:6443/".parse().unwrap()));
        assert!(policy.may_be_api_server_on_loopback(&"https://localhost:6443/".parse().unwrap()));
    }

    #[rstest]
    #[case("ghcr.io", true)]
    #[case("reg.acme.example:5000", true)]
    #[case("evil.example", false)]
    #[case("ghcr.io.evil.example", false)]
    fn allowed_registries_are_matched_whole(#[case] host: &str, #[case] allowed: bool) {
        let patterns = ["GHCR.io".to_owned(), "*.acme.example:5000".to_owned()];
        let policy = NetworkPolicy::new(&patterns, false, false, Vec::new()).unwrap();
        assert_eq!(policy.allows_registry(host), allowed);
    }

    #[rstest]
    #[case("[")]
    #[case("ghcr.io/acme")]
    fn a_pattern_that_cannot_match_a_host_is_refused(#[case] pattern: &str) {
        assert!(NetworkPolicy::new(&[pattern.to_owned()], false, false, Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_forbidden_address_slips_through(octets in any::<[u8; 4]>()) {
            let v4 = Ipv4Addr::from(octets);
            let policy = policy(true, false);
            let [a, b, c, d] = octets.map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(policy.permits(IpAddr::V6(v6)), policy.permits(IpAddr::V4(v4)));
            }
        }
    }
}

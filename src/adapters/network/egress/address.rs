//! Classes of IP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address and any IPv4 address embedded in it: a gateway or the kernel may turn one into the other.
pub(super) fn equivalent_addresses(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let embedded = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => embedded_ipv4(address),
    };
    // A mapped address *is* the IPv4 address it maps; as IPv6 it says nothing.
    std::iter::once(address.to_canonical()).chain(embedded.map(IpAddr::V4))
}

#[expect(clippy::many_single_char_names, reason = "eight segments have no better names")]
fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b, c, d, e, f) {
        // IPv4-compatible (::/96), deprecated; `::` and `::1` are what they are.
        (0, 0, 0, 0, 0, 0) if g != 0 || h > 1 => Some(v4(g, h)),
        // IPv4-mapped.
        (0, 0, 0, 0, 0, 0xffff)
        // IPv4-translated, RFC 2765.
        | (0, 0, 0, 0, 0xffff, 0)
        // NAT64, RFC 6052, and its local-use prefix, RFC 8215.
        | (0x64, 0xff9b, 0, 0, 0, 0)
        | (0x64, 0xff9b, 1, _, _, _) => Some(v4(g, h)),
        // 6to4, RFC 3056.
        (0x2002, ..) => Some(v4(b, c)),
        // Teredo, RFC 4380: the client's address is kept inverted.
        (0x2001, 0, ..) => Some(v4(!g, !h)),
        _ => None,
    }
}

/// 10/8, 172.16/12, 192.168/16, 100.64/10 (RFC 6598), `fc00::/7`.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// No registry answers there, but something else may. Loopback is not among these.
pub(super) fn is_never_a_registry(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            // This network, and reserved up to broadcast.
            a == 0 || a >= 240
                || address.is_link_local()
                || address.is_multicast()
                // Protocol assignments; Oracle's cloud serves metadata there.
                || (a, b, c) == (192, 0, 0)
                || METADATA_V4.contains(&address)
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                // Site-local, deprecated.
                || address.segments()[0] & 0xffc0 == 0xfec0
                || METADATA_V6.contains(&address)
        }
    }
}

/// Metadata services at addresses that look like any other: Alibaba's, and Azure's host.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// Amazon's and Google's.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

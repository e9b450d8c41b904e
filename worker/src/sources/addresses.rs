//! Address ranges that must not be fetched from, by IANA's registries of special addresses
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry> and its IPv6 counterpart). Pure tables:
//! everything but ordinary unicast is refused, and an address that embeds an IPv4 address is judged by that
//! one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is refused, in words; `None` for an ordinary public one.
pub(super) fn refused_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => refused_v4(v4),
        IpAddr::V6(v6) => match embedded(address) {
            Some(v4) => refused_v4(v4),
            None => refused_v6(v6),
        },
    }
}

/// The IPv4 address inside an IPv6 one: mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`, which DNS64 gives to
/// every IPv4 host) and 6to4 (`2002::/16`).
pub(super) fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        // Metadata services of the large clouds, two of them outside the link-local range.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [168, 63, 129, 16] => {
            Some("the metadata service's address")
        }
        [100, 64..=127, ..] => Some("a carrier's shared address"),
        [169, 254, ..] => Some("a link-local address"),
        [0, ..] => Some("an unspecified address"),
        [224..=239, ..] => Some("a multicast address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("a documentation address"),
        [198, 18..=19, ..] => Some("a benchmark address"),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // A metadata service of a large cloud, inside fc00::/7.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some("the metadata service's address"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("a documentation address"),
        // 2001::/23 is reserved for protocols: Teredo, benchmarks, ORCHID.
        [0x2001, 0..=0x01ff, ..] => Some("a reserved address"),
        // Global unicast; IPv4-compatible and site-local addresses are outside of it.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(address: &str) -> Option<&'static str> {
        refused_kind(address.parse().expect(address))
    }

    #[test]
    fn addresses_that_only_the_worker_can_reach_are_refused() {
        for (host, kind) in [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "carrier"),
            ("100.127.255.255", "carrier"),
            ("169.254.169.254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("169.254.1.1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("198.18.0.1", "benchmark"),
            ("198.19.255.255", "benchmark"),
            ("192.0.0.1", "reserved"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fd00:ec2::254", "metadata"),
            ("fc00::1", "private"),
            ("fdff::1", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "reserved"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("2001::1", "reserved"),
            ("100::1", "reserved"),
            ("64:ff9b:1::1", "reserved"),
        ] {
            let refused = kind_of(host).expect(host);
            assert!(refused.contains(kind), "{host}: {refused}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for host in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::1.1.1.1",
            "::ffff:1.1.1.1",
            "2002:101:101::1",
        ] {
            assert_eq!(kind_of(host), None, "{host}");
        }
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_judged_itself() {
        for host in [
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            // IPv4-compatible: no legitimate host has such an address.
            "::127.0.0.1",
            "::1.1.1.1",
        ] {
            assert!(kind_of(host).is_some(), "{host}");
        }
    }
}

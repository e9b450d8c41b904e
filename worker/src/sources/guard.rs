//! The guard: addresses that may be fetched from. A task must not make the worker read what only the worker
//! can reach.
//!
//! The checked address is the one connected to: `GuardedResolver` is the client's only resolver and returns
//! only checked addresses, so a rebinding name has no second lookup to answer differently. A literal address
//! never reaches a resolver and is checked before the request.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use super::addresses::{embedded, refused_kind};

/// A refused address, or a name that resolves to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} leads to {kind}, which is refused; an operator can allow it by name in RETOUCH_ALLOW_HOSTS")]
pub struct RefusedAddress {
    /// The requested host; the address behind a name is not revealed to producers.
    pub host: String,
    /// In words, e.g. `a loopback address`.
    pub kind: &'static str,
}

/// Hosts and networks that are exempt from the guard: `RETOUCH_ALLOW_HOSTS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowHosts {
    names: Vec<String>,
    /// Including the leading dot.
    suffixes: Vec<String>,
    networks: Vec<IpNet>,
}

/// An invalid entry of `RETOUCH_ALLOW_HOSTS`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is no host to allow: {reason}")]
pub struct BadAllowHost {
    entry: String,
    reason: &'static str,
}

impl AllowHosts {
    /// Whether the host is listed: a name exactly or under a `*.suffix`, an address in one of the networks.
    pub fn lists(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Domain(name) => self.lists_name(name),
            Host::Ipv4(address) => self.lists_address((*address).into()),
            Host::Ipv6(address) => self.lists_address((*address).into()),
        }
    }

    /// The union of both lists.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self.suffixes.extend(other.suffixes);
        self.networks.extend(other.networks);
        self
    }

    /// Why an address is refused, in words; `None` for an ordinary public one. Ignores exemptions.
    pub fn refused_kind(address: IpAddr) -> Option<&'static str> {
        refused_kind(address)
    }

    fn lists_name(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let under = |suffix: &String| name.len() > suffix.len() && name.ends_with(suffix);
        self.names.contains(&name) || self.suffixes.iter().any(under)
    }

    fn lists_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| {
            network.contains(&address)
                || embedded(address).is_some_and(|v4| network.contains(&IpAddr::V4(v4)))
        })
    }

    /// Checks one address, literal or from a name that is not listed.
    fn check_address(&self, host: &str, address: IpAddr) -> Result<(), RefusedAddress> {
        match refused_kind(address) {
            Some(kind) if !self.lists_address(address) => Err(RefusedAddress { host: host.to_owned(), kind }),
            _ => Ok(()),
        }
    }

    /// Checks the host of a URL before the request; the resolver checks names.
    ///
    /// # Errors
    /// [`RefusedAddress`] for a literal address in a refused range.
    pub fn check_literal(&self, host: &Host<&str>) -> Result<(), RefusedAddress> {
        match host {
            Host::Domain(_) => Ok(()),
            Host::Ipv4(address) => self.check_address(&address.to_string(), (*address).into()),
            Host::Ipv6(address) => self.check_address(&format!("[{address}]"), (*address).into()),
        }
    }

    /// One refused address refuses the name: the client chooses among several.
    fn check_resolved(&self, name: &str, addresses: &[SocketAddr]) -> Result<(), RefusedAddress> {
        if self.lists_name(name) {
            return Ok(());
        }
        let mut addresses = addresses.iter();
        addresses.try_for_each(|address| self.check_address(name, address.ip()))
    }

    fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        if entry.contains("://") {
            return Err("give the host alone, not a URL");
        }
        if entry == "*" {
            return Err("to allow every address, give 0.0.0.0/0 and ::/0");
        }
        if entry.contains('/') {
            let network = entry.parse::<IpNet>();
            self.networks.push(network.map_err(|_| "not a network such as 10.0.0.0/8 or fd00::/8")?);
            return Ok(());
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.push(address.into());
            return Ok(());
        }
        if let Some(suffix) = entry.strip_prefix("*.") {
            return match host(suffix)? {
                Host::Domain(name) => {
                    self.suffixes.push(format!(".{name}"));
                    Ok(())
                }
                Host::Ipv4(_) | Host::Ipv6(_) => Err("* stands before a name, not an address"),
            };
        }
        match host(entry)? {
            Host::Domain(name) => self.names.push(name),
            Host::Ipv4(address) => self.networks.push(IpAddr::from(address).into()),
            Host::Ipv6(address) => self.networks.push(IpAddr::from(address).into()),
        }
        Ok(())
    }
}

/// Normalised as `url` normalises the hosts of URLs, or the two would never match.
fn host(text: &str) -> Result<Host, &'static str> {
    if text.contains('*') {
        return Err("* may only stand for all that is before a dot, as in *.example.com");
    }
    match Host::parse(text.trim_end_matches('.')) {
        Ok(host) => Ok(host),
        Err(_) if text.contains(':') => Err("give the host without a port"),
        Err(_) => Err("neither a host name, an address nor a network"),
    }
}

impl fmt::Display for AllowHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffixes = self.suffixes.iter().map(|suffix| format!("*{suffix}"));
        let networks = self.networks.iter().map(ToString::to_string);
        let all: Vec<_> = self.names.iter().cloned().chain(suffixes).chain(networks).collect();
        f.write_str(&all.join(", "))
    }
}

impl FromStr for AllowHosts {
    type Err = BadAllowHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut allow = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            allow.add(entry).map_err(|reason| BadAllowHost { entry: entry.to_owned(), reason })?;
        }
        Ok(allow)
    }
}

/// The system's lookup of a name.
type Lookup = fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names and refuses those with a guarded address.
pub(super) struct GuardedResolver {
    allow: Arc<AllowHosts>,
    lookup: Lookup,
}

impl GuardedResolver {
    pub(super) fn new(allow: Arc<AllowHosts>) -> Self {
        Self::with_lookup(allow, |name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        })
    }

    pub(super) fn with_lookup(allow: Arc<AllowHosts>, lookup: Lookup) -> Self {
        Self { allow, lookup }
    }
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedResolver").finish_non_exhaustive()
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.allow);
        let name = name.as_str().to_owned();
        let looking = (self.lookup)(name.clone());
        Box::pin(async move {
            let addresses = looking.await?;
            allow.check_resolved(&name, &addresses)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(text: &str) -> AllowHosts {
        text.parse().expect(text)
    }

    fn literal(allow: &AllowHosts, host: &str) -> Result<(), RefusedAddress> {
        let url = url::Url::parse(&format!("http://{host}/")).expect(host);
        allow.check_literal(&url.host().expect("a host"))
    }

    #[test]
    fn no_spelling_of_an_address_passes_the_guard() {
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "127。0。0。1",
            "①②⑦.0.0.1",
            "[0:0:0:0:0:0:0:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
        ] {
            assert!(literal(&AllowHosts::default(), host).is_err(), "{host}");
        }
    }

    #[test]
    fn one_refused_address_refuses_the_name() {
        let public: SocketAddr = "1.1.1.1:0".parse().expect("an address");
        let private: SocketAddr = "10.0.0.1:0".parse().expect("an address");
        let none = AllowHosts::default();
        assert_eq!(none.check_resolved("a.example", &[public]), Ok(()));
        let refused = none.check_resolved("a.example", &[public, private]);
        let refused = refused.expect_err("one is private").to_string();
        assert!(refused.contains("a.example leads to a private address"), "{refused}");
        assert!(!refused.contains("10.0.0.1"), "tells the inside: {refused}");
        for allowed in ["a.example", "*.example", "10.0.0.0/24", "10.0.0.1"] {
            let answer = allow(allowed).check_resolved("a.example", &[public, private]);
            assert_eq!(answer, Ok(()), "{allowed}");
        }
        for other in ["b.example", "*.a.example", "example", "10.0.1.0/24"] {
            let answer = allow(other).check_resolved("a.example", &[public, private]);
            assert!(answer.is_err(), "{other}");
        }
    }

    #[test]
    fn an_allowed_network_covers_its_ipv6_spellings_and_nothing_else() {
        let allow = allow(" 10.0.0.0/8, [::1] ,127.0.0.1,");
        for host in ["10.9.8.7", "[::ffff:10.9.8.7]", "[::1]", "127.1"] {
            assert_eq!(literal(&allow, host), Ok(()), "{host}");
        }
        for host in ["11.0.0.1", "127.0.0.2", "[::2]", "192.168.0.1"] {
            let public = host == "11.0.0.1";
            assert_eq!(literal(&allow, host).is_ok(), public, "{host}");
        }
    }

    #[test]
    fn names_are_compared_in_the_spelling_of_urls() {
        let allow = allow("MinIO.Internal., *.Bücher.example");
        for (name, listed) in [
            ("minio.internal", true),
            ("minio.internal.", true),
            ("a.minio.internal", false),
            ("cdn.xn--bcher-kva.example", true),
            ("xn--bcher-kva.example", false),
            ("evilxn--bcher-kva.example", false),
        ] {
            assert_eq!(allow.lists(&Host::Domain(name)), listed, "{name}");
        }
    }

    #[test]
    fn the_union_of_two_lists_lists_the_hosts_of_both() {
        let both = allow("a.example, 10.0.0.1").and(allow("*.b.example"));
        for (name, listed) in [("a.example", true), ("x.b.example", true), ("b.example", false)] {
            assert_eq!(both.lists(&Host::Domain(name)), listed, "{name}");
        }
        assert!(both.lists(&Host::Ipv4([10, 0, 0, 1].into())));
    }

    #[test]
    fn a_bad_entry_is_named_with_the_reason() {
        for (text, entry, reason) in [
            ("a.example,http://b.example", "http://b.example", "not a URL"),
            ("*", "*", "0.0.0.0/0"),
            ("10.0.0.0/33", "10.0.0.0/33", "not a network"),
            ("a.example/24", "a.example/24", "not a network"),
            ("minio:9000", "minio:9000", "without a port"),
            ("*.10.0.0.1", "*.10.0.0.1", "not an address"),
            ("a.*.example", "a.*.example", "before a dot"),
            ("a b", "a b", "neither"),
            ("999.1.1.1", "999.1.1.1", "neither"),
        ] {
            let refused = text.parse::<AllowHosts>().expect_err(text).to_string();
            assert!(refused.contains(&format!("{entry:?}")), "{refused}");
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        assert_eq!(allow(""), AllowHosts::default());
    }
}

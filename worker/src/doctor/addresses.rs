//! Checks the address guard: its exemptions, and where the providers' base URLs lead.

use std::net::IpAddr;

use url::{Host, Url};

use super::{Check, no_answer, within};
use crate::config::Parts;
use crate::editor::{dashscope, openai};
use crate::sources::guard::AllowHosts;

const NAME: &str = "address guard";

pub(super) async fn check(parts: &Parts) -> Vec<Check> {
    let Ok(allowed) = &parts.allow_hosts else {
        return vec![Check::skipped(NAME, "skipped: it needs the settings")];
    };
    let mut checks = vec![exempt(allowed)];
    let Ok(offer) = &parts.offer else { return checks };
    let (dashscope, openai) = (&offer.editors.dashscope, &offer.editors.openai);
    let bases = [
        (dashscope::KIND, "DASHSCOPE_BASE_URL", dashscope.key.is_some(), &dashscope.base_url),
        (openai::KIND, "OPENAI_BASE_URL", openai.key.is_some(), &openai.base_url),
    ];
    for (kind, setting, has_key, url) in bases {
        // Built-in URLs are the providers' own, and a provider without a key is not used.
        if let (true, Some(url)) = (has_key, url) {
            checks.push(base_url(kind, setting, url, allowed).await);
        }
    }
    checks
}

fn exempt(allowed: &AllowHosts) -> Check {
    if allowed == &AllowHosts::default() {
        return Check::good(NAME, "no private address is exempt");
    }
    let everything = ["8.8.8.8", "2001:4860:4860::8888"].iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    let is_open = everything.into_iter().any(|ip| match ip {
        IpAddr::V4(v4) => allowed.lists(&Host::Ipv4(v4)),
        IpAddr::V6(v6) => allowed.lists(&Host::Ipv6(v6)),
    });
    // Clouds serve their machines' credentials at this address.
    let metadata = allowed.lists(&Host::Ipv4([169, 254, 169, 254].into()));
    if is_open || metadata {
        let what = if is_open { "every address" } else { "the metadata service's address" };
        let fix = "name in RETOUCH_ALLOW_HOSTS only the hosts that pictures come from";
        return Check::warning(
            NAME,
            format!("{what} is exempt: a producer can read what only this machine may"),
            fix,
        );
    }
    Check::good(NAME, format!("exempt: {allowed}"))
}

async fn base_url(kind: &str, setting: &str, url: &Url, allowed: &AllowHosts) -> Check {
    let name = format!("{NAME} {kind}");
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Check::failed(name, "the base URL has no host", format!("correct {setting}"));
    };
    let text = host.to_string();
    let addresses: Vec<IpAddr> = match host {
        Host::Ipv4(address) => vec![address.into()],
        Host::Ipv6(address) => vec![address.into()],
        Host::Domain(domain) => match within(tokio::net::lookup_host((domain, port))).await {
            Some(Ok(found)) => found.map(|address| address.ip()).collect(),
            Some(Err(error)) => {
                return Check::failed(
                    name,
                    format!("{text}: {error}"),
                    format!("correct {setting}, or this machine's DNS"),
                );
            }
            None => {
                return Check::failed(name, format!("{text}: {}", no_answer()), "mend this machine's DNS");
            }
        },
    };
    let kinds: Vec<_> = addresses.iter().filter_map(|address| AllowHosts::refused_kind(*address)).collect();
    if let Some(kind) = kinds.first() {
        if allowed.lists(&host_of(url))
            || addresses.iter().all(|address| allowed.lists(&address_host(*address)))
        {
            return Check::good(name, format!("{text} is {kind}, and exempt by name"));
        }
        return Check::warning(
            name,
            format!("{text} leads to {kind}: key and pictures go to a machine of your own network"),
            format!("correct {setting}; if it is a gateway of yours, name it in RETOUCH_ALLOW_HOSTS"),
        );
    }
    if url.scheme() == "http" {
        let detail =
            format!("http://{text} is a public address: the key crosses the network for all to read");
        return Check::failed(name, detail, format!("use https:// in {setting}"));
    }
    Check::good(name, format!("{text} is a public address"))
}

fn host_of(url: &Url) -> Host<&str> {
    // Checked above.
    url.host().unwrap_or(Host::Domain(""))
}

fn address_host(address: IpAddr) -> Host<&'static str> {
    match address {
        IpAddr::V4(v4) => Host::Ipv4(v4),
        IpAddr::V6(v6) => Host::Ipv6(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[tokio::test]
    async fn a_base_url_is_judged_by_its_host_and_encryption() {
        for (url, allowed, state, says) in [
            ("http://1.1.1.1/v1", "", State::Failed, "for all to read"),
            ("https://1.1.1.1/v1", "", State::Good, "a public address"),
            ("http://10.0.0.7:4000/v1", "", State::Warning, "a private address"),
            ("http://10.0.0.7:4000/v1", "10.0.0.0/8", State::Good, "exempt by name"),
            ("https://169.254.169.254/v1", "", State::Warning, "the metadata service's address"),
        ] {
            let (url, allowed) = (url.parse().unwrap(), allowed.parse().unwrap());
            let check = base_url("openai", "OPENAI_BASE_URL", &url, &allowed).await;
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.detail.contains(says), "{check:?}");
        }
    }

    #[test]
    fn exemptions_that_open_the_guard_are_reported() {
        let state = |allowed: &str| exempt(&allowed.parse().unwrap()).state;
        assert_eq!(state("gateway.internal,*.cdn.example,10.0.0.0/8"), State::Good);
        assert_eq!(state("0.0.0.0/0"), State::Warning);
        assert_eq!(state("169.254.0.0/16"), State::Warning);
    }
}

//! Checks the worker's HTTP address, and where result URLs lead.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Client;
use url::Url;

use super::{Check, DEADLINE, no_answer, within};
use crate::config::{BrokerChoice, Parts};
use crate::editor::http::{self, SendError};

/// `None` if its setting is invalid, which is reported already.
pub(super) async fn check(parts: &Parts) -> Option<Check> {
    let name = "http";
    let address = match parts.http.as_ref().ok()? {
        None => return Some(Check::good(name, "off")),
        Some(address) => *address,
    };
    let bound = tokio::net::TcpListener::bind(address).await;
    let error = match bound {
        Ok(_free) => return Some(reachable(name, address, format!("{address} is free"))),
        Err(error) => error,
    };
    if is_a_worker(address).await {
        let detail = format!("a worker serves {address}; another one here needs another port");
        return Some(reachable(name, address, detail));
    }
    let fix = "give a free ADDRESS:PORT of this machine in RETOUCH_HTTP, or off";
    Some(Check::failed(name, format!("cannot listen on {address}: {error}"), fix))
}

/// The address has no login.
fn reachable(name: &str, address: SocketAddr, detail: String) -> Check {
    if address.ip().is_loopback() {
        return Check::good(name, detail);
    }
    let fix =
        "let other machines see /blobs/ at most (a proxy, a firewall), or bind RETOUCH_HTTP to 127.0.0.1";
    Check::warning(name, format!("{detail}, and other machines reach it without a login"), fix)
}

async fn is_a_worker(mut address: SocketAddr) -> bool {
    // The unspecified address cannot be connected to.
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let Ok(client) = http::client(DEADLINE) else { return false };
    let answer = within(http::send(client.get(format!("http://{address}/livez")))).await;
    matches!(answer, Some(Ok(answer)) if answer.is_success() && answer.body.starts_with(b"alive"))
}

/// As [`check`].
pub(super) async fn public_url(parts: &Parts) -> Option<Check> {
    let name = "public url";
    let (url, given) = parts.public_url.as_ref().ok()?;
    if !given {
        let services = matches!(parts.broker, Ok(BrokerChoice::RabbitMq { .. }));
        let near = url
            .host_str()
            .is_none_or(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]" | "0.0.0.0" | "[::]"));
        if services && near {
            let fix = "set RETOUCH_PUBLIC_URL to where consumers of results find the blobs";
            return Some(Check::warning(
                name,
                format!("result URLs start with {url}, which leads nowhere from other machines"),
                fix,
            ));
        }
        if is_nowhere(url) {
            return Some(nowhere(name, url));
        }
        return Some(Check::good(name, format!("result URLs start with {url}")));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Some(Check::good(name, format!("result URLs start with {}", shown(url))));
    }
    if is_nowhere(url) {
        return Some(nowhere(name, url));
    }
    let Ok(client) = http::client(DEADLINE) else { return None };
    Some(asked(name, url, &client).await)
}

/// Only programs on this machine can reach such an address.
fn is_nowhere(url: &Url) -> bool {
    matches!(url.host_str(), Some("0.0.0.0" | "[::]"))
}

fn nowhere(name: &str, url: &Url) -> Check {
    let place = shown(url);
    let fix = "set RETOUCH_PUBLIC_URL to where consumers of results find the blobs";
    Check::warning(name, format!("result URLs start with {place}, which is no address of any machine"), fix)
}

/// Any answer will do: the root of a bucket need not exist.
async fn asked(name: &str, url: &Url, client: &Client) -> Check {
    let fix = "correct RETOUCH_PUBLIC_URL, or start what serves it; consumers of results go there";
    let place = shown(url);
    match within(http::send(client.get(url.clone()))).await {
        Some(Ok(answer)) if answer.status < 500 => {
            Check::good(name, format!("{place} answers ({})", answer.status))
        }
        Some(Ok(answer)) => Check::warning(name, format!("{place} answers {}", answer.status), fix),
        Some(Err(SendError::NotSent(why) | SendError::NoAnswer(why))) => {
            Check::warning(name, format!("{place}: {why}"), fix)
        }
        None => Check::warning(name, format!("{place}: {}", no_answer()), fix),
    }
}

/// The URL without secrets.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _no_user = url.set_username("").and_then(|()| url.set_password(None));
    url.to_string()
}

//! `retouch health`: asks a worker over HTTP whether it is well, for container runtimes whose images hold no HTTP client.
//!
//! What must stay true: it ends with 0 or 1 whatever it finds (to Docker, other codes are reserved), and it reaches nothing
//! but the worker: a database that is away must not make the asking slow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use url::Url;

use super::say::say;
use super::{Ending, Failure};
use crate::config::Settings;

/// Less than the five seconds that container runtimes are told to allow, so that the reason is heard.
const PATIENCE: Duration = Duration::from_secs(4);

/// Ask a worker whether it is well: exit code 0 if it is, 1 if not
///
/// Asks /readyz of the address in RETOUCH_HTTP, or the URL that is given: /livez only asks whether the process
/// answers.
///
/// Example: retouch health http://127.0.0.1:8080/livez
#[derive(Debug, Args)]
pub(super) struct Health {
    /// What to ask, if not this machine's worker
    url: Option<Url>,
}

impl Health {
    pub(super) async fn run(self, json: bool) -> Result<Ending, Failure> {
        let found = match self.url.map_or_else(own, Ok) {
            Ok(url) => ask(&url).await,
            Err(error) => Err(error),
        };
        let (well, text) = match &found {
            Ok((well, answer)) => (*well, describe(*well, answer)),
            Err(error) => (false, format!("{error:#}")),
        };
        if json {
            let answer = found.map_or(Value::Null, |(_, answer)| {
                serde_json::from_str(&answer).unwrap_or_else(|_| Value::String(answer.trim().to_owned()))
            });
            say(json!({ "healthy": well, "reason": (!well).then_some(text), "answer": answer }));
        } else {
            say(text);
        }
        Ok(if well { Ending::Done } else { Ending::SomeFailed })
    }
}

/// The worker that these settings make.
fn own() -> Result<Url> {
    let address = Settings::load_http()?.context("RETOUCH_HTTP is off: there is nothing to ask")?;
    Ok(Url::parse(&format!("http://{}/readyz", reachable(address)))?)
}

/// A worker that listens on every address is asked on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether the answer was a success, and the answer.
async fn ask(url: &Url) -> Result<(bool, String)> {
    ensure!(url.scheme() == "http", "{url}: a worker speaks http://");
    // A proxy in the environment is for providers; nothing of ours redirects.
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE).build()?;
    let asked = async {
        let answer = client.get(url.clone()).send().await?;
        let well = answer.status().is_success();
        Ok::<_, reqwest::Error>((well, answer.text().await?))
    };
    asked.await.map_err(|error| {
        let error = error.without_url();
        anyhow::Error::new(error).context(format!("{url} does not answer"))
    })
}

/// What is not well, of an answer that names parts with their states; otherwise the answer itself.
fn describe(well: bool, answer: &str) -> String {
    let parts = serde_json::from_str::<serde_json::Map<String, Value>>(answer).unwrap_or_default();
    let troubles = parts.iter().filter(|(_, state)| *state != "ok");
    let troubles: Vec<_> = troubles
        .map(|(part, state)| {
            format!("{part}: {}", state.as_str().map_or_else(|| state.to_string(), str::to_owned))
        })
        .collect();
    match (well, troubles.is_empty()) {
        (true, true) => "healthy".to_owned(),
        (true, false) => format!("healthy; {}", troubles.join("; ")),
        (false, false) => format!("unhealthy; {}", troubles.join("; ")),
        (false, true) => format!("unhealthy: {}", answer.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_on_every_address_is_asked_on_the_loopback_one() {
        for (listens, asked) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn only_what_is_not_well_is_said() {
        let parts = r#"{"database":"ok","blobs":"no such bucket","lane local":"ok"}"#;
        assert_eq!(describe(false, parts), "unhealthy; blobs: no such bucket");
        assert_eq!(describe(true, r#"{"database":"ok"}"#), "healthy");
        assert_eq!(describe(true, r#"{"lane a":"paused"}"#), "healthy; lane a: paused");
        assert_eq!(describe(true, "alive\n"), "healthy");
        assert_eq!(describe(false, "Not Found\n"), "unhealthy: Not Found");
    }
}

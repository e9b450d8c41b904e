//! `retouch topology`: what must exist on RabbitMQ, compared with what does, or written down for who manages it.

use anyhow::Context;
use clap::{Args, Subcommand};
use retouch_shared::amqp::Link;
use serde_json::json;

use super::say::say;
use super::{Ending, Failure};
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::rabbitmq::topology::{Finding, FindingState, Plan, definitions};
use crate::config::{BrokerChoice, Parts};

/// Compare RabbitMQ's exchanges and queues with what a worker needs, or write them as definitions
///
/// A worker declares what is missing when it starts. These are for whoever manages a broker by definitions, and gives
/// workers no right to declare.
///
/// Example: retouch topology check --json
#[derive(Debug, Args)]
pub(super) struct Topology {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what is missing or otherwise; nothing is changed. Exit code 1 where something is
    ///
    /// Example: AMQP_URL=amqp://broker retouch topology check
    Check {
        #[command(flatten)]
        lanes: Lanes,
        /// Also whether the namespace is bound to the database with this id, which `retouch doctor` tells
        #[arg(long, value_name = "ID", value_parser = installation_id)]
        installation: Option<String>,
    },
    /// Print definitions for `rabbitmqctl import_definitions`
    ///
    /// Example: retouch topology export --vhost images >retouch.json && rabbitmqctl import_definitions retouch.json
    Export {
        #[command(flatten)]
        lanes: Lanes,
        /// The virtual host, which must exist [default: that of AMQP_URL, or /]
        #[arg(long)]
        vhost: Option<String>,
        /// Also what binds the namespace to the database with this id, which `retouch doctor` tells
        #[arg(long, value_name = "ID", value_parser = installation_id)]
        installation: Option<String>,
    },
}

/// A lane has a queue of its own.
#[derive(Debug, Args)]
struct Lanes {
    /// The lanes that get queues; may be repeated [default: those that are served with the keys that are set here]
    #[arg(long = "lane", value_name = "NAME")]
    lanes: Vec<String>,
}

impl Topology {
    pub(super) async fn run(self, json: bool) -> Result<Ending, Failure> {
        let parts = Parts::load().map_err(Failure::Usage)?;
        match self.what {
            What::Check { lanes, installation } => check(parts, lanes, installation, json).await,
            What::Export { lanes, vhost, installation } => {
                export(parts, lanes, vhost, installation.as_deref())
            }
        }
    }
}

async fn check(
    parts: Parts,
    lanes: Lanes,
    installation: Option<String>,
    json: bool,
) -> Result<Ending, Failure> {
    let broker = parts.broker.map_err(Failure::Usage)?;
    let names = parts.topology.map_err(Failure::Usage)?;
    let lanes = lanes.of(&parts.offer)?;
    let BrokerChoice::RabbitMq { url } = broker else {
        if json {
            say("[]");
        } else {
            say(
                "the embedded broker's queues are rows of the SQLite file: there is nothing to compare; set AMQP_URL for RabbitMQ",
            );
        }
        return Ok(Ending::Done);
    };
    let broker = RabbitMq::connect(&url, names).await.context("AMQP_URL").map_err(Failure::Unreachable)?;
    let findings = broker.check(&lanes, installation.as_deref()).await;
    let findings = findings.context("AMQP_URL").map_err(Failure::Unreachable)?;
    let same = findings.iter().all(|finding| finding.state == FindingState::Same);
    if json {
        let shown: Vec<_> = findings.iter().map(shown).collect();
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
    } else {
        findings.iter().for_each(|finding| say(line(finding)));
        say(
            "– bindings: RabbitMQ cannot be asked for them; a worker makes those that are missing when it starts",
        );
    }
    Ok(if same { Ending::Done } else { Ending::SomeFailed })
}

/// One thing in `--json`.
fn shown(finding: &Finding) -> serde_json::Value {
    let (state, detail) = told(finding);
    json!({"what": finding.what, "state": state, "detail": detail})
}

fn line(finding: &Finding) -> String {
    let what = &finding.what;
    match told(finding) {
        ("same", _) => format!("✓ {what}"),
        ("unknown", detail) => format!("! {what}: {}", detail.unwrap_or_default()),
        (_, detail) => format!("✗ {what}: {}", detail.unwrap_or_default()),
    }
}

fn told(finding: &Finding) -> (&'static str, Option<String>) {
    match &finding.state {
        FindingState::Same => ("same", None),
        FindingState::Missing => (
            "missing",
            Some(
                "there is none; start a worker that may declare it, or import `retouch topology export`"
                    .into(),
            ),
        ),
        FindingState::Different(how) => ("different", Some(how.clone())),
        FindingState::Unknown(why) => {
            ("unknown", Some(format!("it is there; this login may not compare its arguments: {why}")))
        }
    }
}

/// As a database has it: what cannot be one would make an exchange that no worker asks for.
fn installation_id(given: &str) -> Result<String, String> {
    let fits = given.len() == 16 && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(given.to_owned()) } else { Err("must be 16 hexadecimal digits".to_owned()) }
}

fn export(
    parts: Parts,
    lanes: Lanes,
    vhost: Option<String>,
    installation: Option<&str>,
) -> Result<Ending, Failure> {
    let names = parts.topology.map_err(Failure::Usage)?;
    let lanes = lanes.of(&parts.offer)?;
    let vhost = match (vhost, parts.broker) {
        (Some(vhost), _) => vhost,
        (None, Ok(BrokerChoice::RabbitMq { url })) => {
            let link = Link::new(&url, std::time::Duration::ZERO).context("AMQP_URL");
            link.map_err(Failure::Usage)?.vhost().to_owned()
        }
        (None, _) => "/".to_owned(),
    };
    let plan = Plan::new(&names, &lanes).bound_to(&names, installation);
    let definitions = definitions(&plan, &vhost);
    say(serde_json::to_string_pretty(&definitions).unwrap_or_default());
    Ok(Ending::Done)
}

impl Lanes {
    /// Those that were named, of those that there are.
    fn of(self, offer: &anyhow::Result<crate::config::Offer>) -> Result<Vec<String>, Failure> {
        let offer = offer.as_ref().map_err(|error| Failure::Usage(anyhow::anyhow!("{error:#}")))?;
        if self.lanes.is_empty() {
            return Ok(offer.served_lanes());
        }
        for lane in &self.lanes {
            if !offer.lanes.iter().any(|known| known.name == *lane) {
                let known: Vec<_> = offer.lanes.iter().map(|known| known.name.as_str()).collect();
                let known = known.join(", ");
                return Err(Failure::Usage(anyhow::anyhow!(
                    "--lane {lane}: there is none; there are {known}"
                )));
            }
        }
        Ok(self.lanes)
    }
}

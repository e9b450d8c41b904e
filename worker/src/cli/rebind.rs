//! `retouch rebind`: gives a namespace at RabbitMQ to this database on purpose, or a copied database an id of
//! its own.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::say::say;
use super::{Ending, Failure};
use crate::app::open_store;
use crate::broker::rabbitmq::{Belongs, RabbitMq};
use crate::broker::{Broker, BrokerError, Queue};
use crate::config::{BrokerChoice, Settings, shares_a_database};
use crate::outcome::origin;
use crate::store::Store;
use crate::words::counted;

/// Give the namespace at RabbitMQ to this database: say first what that means, then do it with --yes
///
/// The first worker binds its namespace and its database to each other, and a worker with another database
/// refuses to start. This command is for a database that takes the place of another one for good. Workers of
/// the other one stop taking messages within seconds; stop them first. With --new-id it gives this database
/// an id of its own instead: for a copy, as of a dump for staging, which has the id of its original.
///
/// Example: retouch rebind --yes
#[derive(Debug, Args)]
pub(super) struct Rebind {
    /// Give this database a new id; the broker is left alone
    #[arg(long)]
    new_id: bool,
    /// Do it; without, only say what would be done
    #[arg(long)]
    yes: bool,
}

impl Rebind {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let done = if self.new_id {
            self.renew(settings, &store, json).await
        } else {
            self.rebind(settings, &store, json).await
        };
        store.close().await;
        done
    }

    async fn renew(&self, settings: &Settings, store: &Store, json: bool) -> Result<Ending, Failure> {
        let before = store.find_installation().await.map_err(Failure::unreachable)?;
        let workers = store.replicas().await.map_err(Failure::unreachable)?.len();
        let after = match self.yes {
            true => Some(store.renew_installation().await.map_err(Failure::unreachable)?),
            false => None,
        };
        if json {
            say(json!({
                "preview": !self.yes, "database": settings.database.to_string(), "before": before, "after": after,
                "workers": workers,
            }));
            return Ok(Ending::Done);
        }
        let (database, was) = (&settings.database, named(before.as_deref()));
        match after {
            Some(after) => say(format!("the database {database} is installation {after} now; it was {was}")),
            None => {
                say(format!("the database {database} is {was}, and would get a new id"));
                say("a namespace that is bound to the old id is not this database's any more");
                if workers > 0 {
                    let (are, them) = if workers == 1 { ("is", "it") } else { ("are", "them") };
                    let workers = counted(workers as u64, "worker");
                    say(format!("{workers} {are} running on it: stop {them} first"));
                }
                say(NOT_DONE);
            }
        }
        Ok(Ending::Done)
    }

    async fn rebind(&self, settings: &Settings, store: &Store, json: bool) -> Result<Ending, Failure> {
        shares_a_database(&settings.broker, settings.database_given).map_err(Failure::Usage)?;
        let BrokerChoice::RabbitMq { url } = &settings.broker else {
            let why =
                "the embedded broker is in the database: there is nothing to bind; set AMQP_URL for RabbitMQ";
            return Err(Failure::Usage(anyhow::anyhow!(why)));
        };
        let broker = RabbitMq::connect(url, settings.topology.clone()).await;
        let broker = broker.context("AMQP_URL").map_err(Failure::Unreachable)?;
        let id = match self.yes {
            true => Some(store.installation().await.map_err(Failure::unreachable)?),
            false => store.find_installation().await.map_err(Failure::unreachable)?,
        };
        let before = broker.belongs(id.as_deref()).await.context("AMQP_URL").map_err(Failure::Unreachable)?;
        let waiting = waiting(settings, &broker).await.map_err(Failure::unreachable)?;
        if let Some(id) = id.as_deref().filter(|_| self.yes) {
            broker.rebind(id).await.context("AMQP_URL").map_err(Failure::Unreachable)?;
        }
        broker.close().await;
        let namespace = settings.topology.exchange();
        if json {
            say(shown(settings, self.yes, id.as_deref(), &before, &waiting));
            return Ok(Ending::Done);
        }
        say(format!("namespace {namespace} at {}: {}", settings.broker.place(), belongs(&before)));
        say(format!("database {}: {}", settings.database, named(id.as_deref())));
        for (queue, messages) in &waiting {
            say(format!("  {messages:>8} messages wait in {namespace}.{queue}"));
        }
        match (self.yes, &before) {
            (true, Belongs::Ours) => say("nothing to do: they belong to each other"),
            (true, _) => say(format!("the namespace {namespace} belongs to this database now")),
            (false, Belongs::Ours) => say("nothing to do: they belong to each other"),
            (false, _) => {
                say(
                    "workers of another database would stop taking messages within seconds, and what waits in the queues \
                     would be worked on with this database: a task that the other one has begun is paid for again here",
                );
                say(NOT_DONE);
            }
        }
        Ok(Ending::Done)
    }
}

const NOT_DONE: &str = "nothing was changed: the same command with --yes does it";

/// Messages by queue, of the queues that are there.
async fn waiting(settings: &Settings, broker: &RabbitMq) -> Result<Vec<(String, u64)>, BrokerError> {
    let lanes = settings.offer.served_lanes().into_iter().map(|lane| Queue::Edits { lane });
    let mut waiting = Vec::new();
    for queue in [Queue::Tasks].into_iter().chain(lanes).chain([Queue::Dead]) {
        match broker.depth(queue.clone()).await {
            Ok(messages) => waiting.push((origin(&queue), messages)),
            Err(BrokerError::NoSuchQueue(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(waiting)
}

fn named(id: Option<&str>) -> String {
    id.map_or_else(|| "no installation yet".to_owned(), |id| format!("installation {id}"))
}

fn belongs(before: &Belongs) -> String {
    match before {
        Belongs::Unbound => "belongs to no database yet".to_owned(),
        Belongs::Ours => "belongs to this database".to_owned(),
        Belongs::Other(Some(id)) => format!("belongs to another database, installation {id}"),
        Belongs::Other(None) => "belongs to another database".to_owned(),
    }
}

fn shown(
    settings: &Settings,
    is_done: bool,
    id: Option<&str>,
    before: &Belongs,
    waiting: &[(String, u64)],
) -> Value {
    let (state, other) = match before {
        Belongs::Unbound => ("unbound", None),
        Belongs::Ours => ("ours", None),
        Belongs::Other(other) => ("other", other.as_deref()),
    };
    let waiting: serde_json::Map<_, _> =
        waiting.iter().map(|(queue, messages)| (queue.clone(), json!(messages))).collect();
    json!({
        "preview": !is_done, "namespace": settings.topology.exchange(), "broker": settings.broker.place(),
        "database": settings.database.to_string(), "installation": id, "before": state, "other": other,
        "messages": waiting,
    })
}

//! The database that the namespace belongs to. Two databases behind one namespace would pay for the same
//! edits twice, and strand each other's tasks.
//!
//! An exchange records it, not a queue: an exchange exists on every node of a cluster and holds no messages.
//! RabbitMQ declares it in one transaction and compares its alternate exchange: of two databases that bind at
//! once one wins, and the refusal of the other names the winner. A login without the *configure* right may
//! not have arguments compared; it checks the second exchange instead, whose name holds the id.

use lapin::Connection;
use lapin::options::ExchangeDeleteOptions;
use retouch_shared::amqp::AmqpError;
use retouch_shared::topology::Topology;

use super::convert::{error, short};
use super::topology::{Exchange, Plan, Step, inequivalent, open, run};
use crate::broker::BrokerError;

/// Not the id of any database: ids are hexadecimal.
const NO_ID: &str = "none";
/// A worker of the other database may bind the namespace again between our delete and our declare.
const REBIND_TRIES: u32 = 20;

/// Owner of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belongs {
    /// No database has bound it yet.
    Unbound,
    /// This installation.
    Ours,
    /// Another installation; `None` if the broker does not report its id.
    Other(Option<String>),
}

/// State of an exchange on the broker.
enum Found {
    Same,
    Missing,
    Denied,
    Other(String),
}

/// Binds the namespace to this installation unless it belongs to one.
pub(super) async fn bind(connection: &Connection, names: &Topology, id: &str) -> Result<(), BrokerError> {
    match compare(connection, names, id).await? {
        Belongs::Ours => {
            let [_main, ours] = Plan::of_installation(names, id);
            // Access denied: an administrator must have declared it, otherwise this login could not learn the
            // owner.
            ask(connection, &ours, false).await?;
            Ok(())
        }
        Belongs::Unbound => {
            tracing::warn!(
                exchange = names.installation_exchange(),
                "this login may not declare the exchange that binds the namespace to this database: a worker with \
                 another database would not be refused; import `retouch topology export --installation ID`"
            );
            Ok(())
        }
        Belongs::Other(theirs) => Err(BrokerError::OtherInstallation {
            namespace: names.exchange().to_owned(),
            ours: id.to_owned(),
            theirs,
        }),
    }
}

/// The owner of the namespace; declares nothing. Without an id every bound namespace is another's.
pub(super) async fn look(
    connection: &Connection,
    names: &Topology,
    id: Option<&str>,
) -> Result<Belongs, BrokerError> {
    let id = id.unwrap_or(NO_ID);
    let [main, _ours] = Plan::of_installation(names, id);
    match ask(connection, &main, true).await? {
        Found::Missing => Ok(Belongs::Unbound),
        // It exists, so declaring it creates nothing and only compares.
        Found::Same | Found::Denied | Found::Other(_) => compare(connection, names, id).await,
    }
}

/// Binds the namespace to this installation, also if it is bound to another.
pub(super) async fn rebind(connection: &Connection, names: &Topology, id: &str) -> Result<(), BrokerError> {
    for _ in 0..REBIND_TRIES {
        match look(connection, names, Some(id)).await? {
            Belongs::Ours | Belongs::Unbound => match bind(connection, names, id).await {
                Err(BrokerError::OtherInstallation { .. }) => {}
                bound => return bound,
            },
            Belongs::Other(theirs) => {
                delete(connection, &names.installation_exchange()).await?;
                if let Some(theirs) = theirs {
                    delete(connection, &names.installation_of(&theirs)).await?;
                }
            }
        }
    }
    Err(BrokerError::Unavailable(
        "workers of the other database bind the namespace again and again: stop them first".to_owned(),
    ))
}

/// Declares the exchange that only one installation can create.
async fn compare(connection: &Connection, names: &Topology, id: &str) -> Result<Belongs, BrokerError> {
    let [main, ours] = Plan::of_installation(names, id);
    match ask(connection, &main, false).await? {
        Found::Same => return Ok(Belongs::Ours),
        Found::Other(reply) => return Ok(Belongs::Other(theirs(names, &reply))),
        Found::Missing | Found::Denied => {}
    }
    if matches!(ask(connection, &main, true).await?, Found::Missing) {
        return Ok(Belongs::Unbound);
    }
    Ok(match ask(connection, &ours, true).await? {
        Found::Same => Belongs::Ours,
        Found::Missing | Found::Denied | Found::Other(_) => Belongs::Other(None),
    })
}

/// Uses its own channel: a refusal ends it.
async fn ask(connection: &Connection, exchange: &Exchange, passive: bool) -> Result<Found, BrokerError> {
    let channel = open(connection).await?;
    match run(&channel, &Step::Exchange(exchange), passive).await {
        Ok(()) => Ok(Found::Same),
        Err(AmqpError::NotFound(_)) => Ok(Found::Missing),
        Err(AmqpError::Refused(why)) if why.starts_with("ACCESS_REFUSED") => Ok(Found::Denied),
        Err(AmqpError::Refused(why)) if why.contains("inequivalent") => Ok(Found::Other(why)),
        Err(failed) => Err(error(failed)),
    }
}

async fn delete(connection: &Connection, exchange: &str) -> Result<(), BrokerError> {
    let channel = open(connection).await?;
    let deleted = channel.exchange_delete(short(exchange)?, ExchangeDeleteOptions::default()).await;
    deleted.map_err(|failed| error(AmqpError::from_lapin(&failed)))
}

/// The other installation's id, from the broker's reply. A reply has at most 255 bytes: a long namespace cuts
/// the id off.
fn theirs(names: &Topology, reply: &str) -> Option<String> {
    let (_argument, _ours, theirs) = inequivalent(reply)?;
    let id = theirs.strip_prefix(&names.installation_of(""))?;
    let is_whole = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_whole.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_id_is_read_from_the_refusal_unless_cut_off() {
        let names = Topology::new("images").unwrap();
        let reply = "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'images.installation' in \
                     vhost '/': received 'images.installation.0123456789abcdef' but current is \
                     'images.installation.fedcba9876543210'";
        assert_eq!(theirs(&names, reply).as_deref(), Some("fedcba9876543210"));
        assert_eq!(theirs(&names, &reply.replace("3210'", "...")), None);
        assert_eq!(theirs(&names, "SOMETHING ELSE"), None);
    }
}

//! Checks that the namespace at the broker and the database belong to each other.

use super::{Check, no_answer, within};
use crate::broker::rabbitmq::{Belongs, RabbitMq};
use crate::config::{BrokerChoice, Parts};
use crate::store::Store;

const NAME: &str = "installation";

pub(super) async fn check(parts: &Parts, store: Option<&Store>) -> Check {
    let (Ok(choice), Ok(names)) = (&parts.broker, &parts.topology) else {
        return Check::skipped(NAME, "skipped: it needs the settings");
    };
    let BrokerChoice::RabbitMq { url } = choice else {
        return Check::good(NAME, "the queues are in the database");
    };
    let Some(store) = store else {
        return Check::skipped(NAME, "skipped: it needs the database and its schema");
    };
    let id = match within(store.find_installation()).await {
        Some(Ok(id)) => id,
        answer => {
            let why = answer.and_then(Result::err).map_or_else(no_answer, |error| error.to_string());
            return Check::failed(NAME, why, "look at the database");
        }
    };
    let broker = match RabbitMq::lazy(url, names.clone()) {
        Ok(broker) => broker,
        Err(_unusable) => return Check::skipped(NAME, "skipped: it needs the broker"),
    };
    let Some(Ok(belongs)) = within(broker.belongs(id.as_deref())).await else {
        return Check::skipped(NAME, "skipped: it needs the broker");
    };
    told(names.exchange(), id.as_deref(), &belongs)
}

fn told(namespace: &str, id: Option<&str>, belongs: &Belongs) -> Check {
    let ours = id.map_or_else(|| "has no id yet".to_owned(), |id| format!("is installation {id}"));
    let theirs = match belongs {
        Belongs::Unbound => {
            let detail = format!(
                "the namespace {namespace} belongs to no database yet (this one {ours}); the first worker binds it"
            );
            return Check::good(NAME, detail);
        }
        Belongs::Ours => {
            return Check::good(
                NAME,
                format!("the namespace {namespace} belongs to this database, which {ours}"),
            );
        }
        Belongs::Other(Some(id)) => format!("installation {id}"),
        Belongs::Other(None) => "another database".to_owned(),
    };
    Check::failed(
        NAME,
        format!(
            "the namespace {namespace} belongs to {theirs}, and this database {ours}: its workers refuse to start"
        ),
        "set a RETOUCH_NAMESPACE of its own for this database, or, if it takes the other's place for good, run `retouch rebind`",
    )
}

//! Declares again what was deleted at the broker at run time: a publish whose destination is missing does so,
//! and the sweep.
//!
//! Uses its own connection and a time limit: RabbitMQ under load answers the declaration of a quorum queue
//! late, or ends the connection, and consumers have theirs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::topology::{self, Plan};
use super::{RabbitMq, convert};
use crate::broker::{BrokerError, Destination, Queue};

/// Time limit for all declarations.
const WITHIN: Duration = Duration::from_secs(30);

/// Declarations of this process, to be kept until it ends.
#[derive(Default)]
pub(super) struct Declared {
    lanes: Option<BTreeSet<String>>,
    /// Time and success of the last restoration.
    restored: Option<(Instant, bool)>,
}

impl Declared {
    /// These lanes, and what all of them need.
    pub(super) fn note(&mut self, lanes: &[String]) {
        self.lanes.get_or_insert_default().extend(lanes.iter().cloned());
    }

    fn has(&self, to: &Destination) -> bool {
        let Some(lanes) = &self.lanes else { return false };
        match to {
            Destination::Queue(Queue::Edits { lane }) | Destination::Delayed(Queue::Edits { lane }, _) => {
                lanes.contains(lane)
            }
            Destination::Queue(_) | Destination::Delayed(..) => true,
            // Listeners' bindings went with the exchange: an event published before they bind again would be
            // lost, so it stays due.
            Destination::Event(_) | Destination::Reply(_) => false,
        }
    }
}

impl RabbitMq {
    /// Whether the missing destination of this publish exists now. One restoration serves all concurrent
    /// publishes.
    pub(super) async fn restored(&self, to: &Destination, found: Instant) -> bool {
        let mut declared = self.declared.lock().await;
        if !declared.has(to) {
            return false;
        }
        match declared.restored {
            Some((at, worked)) if at > found => return worked,
            _ => {}
        }
        let target = convert::target(&self.topology, to);
        tracing::warn!(target, "a queue or an exchange is gone, declaring what is missing");
        let done = self.declare_apart(&self.plan(&declared)).await;
        if let Err(error) = &done {
            tracing::warn!(%error, "cannot declare it now");
        }
        declared.restored = Some((Instant::now(), done.is_ok()));
        done.is_ok()
    }

    /// See [`crate::broker::Broker::restore`].
    pub(super) async fn restore_missing(&self) -> Result<(), BrokerError> {
        let plan = self.plan(&*self.declared.lock().await);
        let connection = self.connection().await.map_err(convert::error)?;
        if in_time(topology::missing(&connection, &plan)).await? {
            tracing::warn!("a queue or an exchange is gone, declaring what is missing");
            self.declare_apart(&plan).await?;
        }
        Ok(())
    }

    fn plan(&self, declared: &Declared) -> Plan {
        let Some(lanes) = &declared.lanes else { return Plan::default() };
        let lanes: Vec<String> = lanes.iter().cloned().collect();
        Plan::new(&self.topology, &lanes).without_exchange(&self.topology.events_exchange())
    }

    async fn declare_apart(&self, plan: &Plan) -> Result<(), BrokerError> {
        in_time(async {
            let connection = self.link.connect("retouch declares").await.map_err(convert::error)?;
            let done = topology::declare(&connection, plan).await;
            // A refused declaration may have closed it already.
            let _closed = connection.close(200, "OK".into()).await;
            done
        })
        .await
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    let late = || BrokerError::Unavailable(format!("no answer within {WITHIN:?}"));
    tokio::time::timeout(WITHIN, step).await.unwrap_or_else(|_elapsed| Err(late()))
}

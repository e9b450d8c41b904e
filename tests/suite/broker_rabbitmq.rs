//! What only RabbitMQ can be tested for: other arguments, lost links, restarts.

use std::sync::Arc;

use retouch_shared::topology::Topology;
use retouch_worker::broker::Broker;
use retouch_worker::broker::rabbitmq::RabbitMq;

use crate::broker_conformance::Stage;

/// A namespace on the shared RabbitMQ.
pub(crate) struct Server {
    namespace: String,
    url: String,
}

impl Stage for Server {
    async fn new() -> Self {
        let namespace = format!("t{}", uuid::Uuid::now_v7().simple());
        Self { namespace, url: std::env::var("RETOUCH_TEST_AMQP_URL").unwrap() }
    }

    async fn open(&self) -> Arc<dyn Broker> {
        let topology = Topology::new(&self.namespace).unwrap();
        Arc::new(RabbitMq::connect(&self.url, topology).await.unwrap())
    }
}

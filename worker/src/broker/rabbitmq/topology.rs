//! Exchanges, queues and bindings on RabbitMQ, as data, and the code that declares or checks them. The same
//! data serves `retouch topology export` for brokers managed by definitions.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use retouch_shared::amqp::AmqpError;
use retouch_shared::topology::{DEAD_KEY, DELIVERY_LIMIT, RUNGS, TASKS_KEY, Topology};

use super::convert::{error, short};
use crate::broker::BrokerError;

mod definitions;

pub use definitions::definitions;

/// Exchanges, queues and bindings, in the order in which they can be declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Durable exchanges.
    pub exchanges: Vec<Exchange>,
    /// Durable queues.
    pub queues: Vec<Queue>,
    /// Bindings of queues to exchanges.
    pub bindings: Vec<Binding>,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// `direct`, `topic` or `fanout`.
    pub kind: &'static str,
    /// The exchange for messages that no queue takes. RabbitMQ compares it when the exchange is declared
    /// again.
    pub alternate: Option<String>,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments are part of its identity: a declaration with others is refused.
    pub arguments: Vec<(&'static str, Argument)>,
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// A queue bound to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The routing key.
    pub key: String,
}

/// One item of the plan, compared with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The item, e.g. `queue retouch.tasks`.
    pub what: String,
    /// Its state.
    pub state: FindingState,
}

/// State of an item of the plan on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingState {
    /// As planned.
    Same,
    /// Missing.
    Missing,
    /// Different, in one sentence.
    Different(String),
    /// It exists, and this login may not compare it: why.
    Unknown(String),
}

impl Plan {
    /// The plan under these names for these lanes.
    pub fn new(names: &Topology, lanes: &[String]) -> Self {
        let mut plan = Self {
            exchanges: vec![
                Exchange::new(names.exchange(), "direct"),
                Exchange::new(&names.events_exchange(), "topic"),
                Exchange::new(&names.dead_exchange(), "direct"),
            ],
            queues: Vec::new(),
            bindings: Vec::new(),
        };
        // Targets of dead-lettering come first. No length limit here: beyond it messages would be dropped.
        plan.queue(Queue::new(names.dead_queue(), vec![]));
        plan.bind(&names.dead_exchange(), &names.dead_queue(), DEAD_KEY);
        // Lets a dead message come back from the wait ladder.
        plan.bind(names.exchange(), &names.dead_queue(), DEAD_KEY);
        plan.queue(work_queue(names, names.tasks_queue()));
        plan.bind(names.exchange(), &names.tasks_queue(), TASKS_KEY);
        for lane in lanes {
            plan.queue(work_queue(names, names.edits_queue(lane)));
            let key = Topology::edits_key(lane);
            plan.bind(names.exchange(), &names.edits_queue(lane), &key);
        }
        for rung in RUNGS {
            let name = names.wait(rung);
            plan.exchanges.push(Exchange::new(&name, "fanout"));
            plan.queue(wait_queue(names, name.clone(), rung));
            plan.bind(&name, &name, "");
        }
        plan
    }

    /// The exchanges that record the installation of the namespace: first the one that only one installation
    /// can create, then the one whose name tells the id.
    pub(super) fn of_installation(names: &Topology, id: &str) -> [Exchange; 2] {
        let ours = names.installation_of(id);
        let main = Exchange {
            alternate: Some(ours.clone()),
            ..Exchange::new(&names.installation_exchange(), "fanout")
        };
        [main, Exchange::new(&ours, "fanout")]
    }

    /// Adds the exchanges that record the installation, if one is named.
    #[must_use]
    pub fn bound_to(mut self, names: &Topology, id: Option<&str>) -> Self {
        self.exchanges.extend(id.into_iter().flat_map(|id| Self::of_installation(names, id)));
        self
    }

    /// The plan without an exchange that nothing is bound to.
    pub(super) fn without_exchange(mut self, name: &str) -> Self {
        self.exchanges.retain(|exchange| exchange.name != name);
        self
    }

    fn queue(&mut self, queue: Queue) {
        self.queues.push(queue);
    }

    fn bind(&mut self, exchange: &str, queue: &str, key: &str) {
        self.bindings.push(Binding {
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
            key: key.to_owned(),
        });
    }
}

impl Exchange {
    fn new(name: &str, kind: &'static str) -> Self {
        Self { name: name.to_owned(), kind, alternate: None }
    }
}

impl Queue {
    fn new(name: String, more: Vec<(&'static str, Argument)>) -> Self {
        let mut arguments = vec![("x-queue-type", Argument::Text("quorum".to_owned()))];
        arguments.extend(more);
        Self { name, arguments }
    }

    fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in &self.arguments {
            let value = match value {
                Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
                Argument::Number(number) => AMQPValue::LongLongInt(*number),
            };
            table.insert((*name).into(), value);
        }
        table
    }
}

/// At-least-once dead-lettering takes effect only together with `reject-publish`
/// (<https://www.rabbitmq.com/docs/quorum-queues#activating-at-least-once-dead-lettering>).
fn dead_lettering(exchange: String) -> Vec<(&'static str, Argument)> {
    let text = |text: &str| Argument::Text(text.to_owned());
    vec![
        ("x-dead-letter-exchange", Argument::Text(exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

fn work_queue(names: &Topology, name: String) -> Queue {
    let mut arguments = dead_lettering(names.dead_exchange());
    let key = Argument::Text(DEAD_KEY.to_owned());
    arguments.push(("x-dead-letter-routing-key", key));
    let limit = Argument::Number(i64::from(DELIVERY_LIMIT));
    arguments.push(("x-delivery-limit", limit));
    Queue::new(name, arguments)
}

/// No dead-letter routing key of its own: the message keeps the key that it was published with.
fn wait_queue(names: &Topology, name: String, rung: std::time::Duration) -> Queue {
    let mut arguments = dead_lettering(names.exchange().to_owned());
    let millis = i64::try_from(rung.as_millis()).unwrap_or(i64::MAX);
    arguments.push(("x-message-ttl", Argument::Number(millis)));
    Queue::new(name, arguments)
}

/// One step on a channel; a refusal ends the channel.
pub(super) enum Step<'a> {
    Exchange(&'a Exchange),
    Queue(&'a Queue),
    Binding(&'a Binding),
}

/// Declares the whole plan; existing items stay as they are.
pub(super) async fn declare(connection: &Connection, plan: &Plan) -> Result<(), BrokerError> {
    let mut channel = open(connection).await?;
    for step in steps(plan) {
        match run(&channel, &step, false).await {
            Ok(()) => {}
            // The broker's administrator may give workers no right to declare: then the item must exist.
            Err(AmqpError::Refused(why)) if why.starts_with("ACCESS_REFUSED") => {
                channel = open(connection).await?;
                run(&channel, &step, true).await.map_err(|failed| match failed {
                    AmqpError::NotFound(_) | AmqpError::Refused(_) => {
                        let what = step.what();
                        BrokerError::Misconfigured(format!(
                            "there is no {what}, and declaring it was refused: {why}"
                        ))
                    }
                    failed => error(failed),
                })?;
            }
            Err(AmqpError::Refused(why)) => {
                return Err(BrokerError::Misconfigured(difference(&step.what(), &why)));
            }
            Err(failed) => return Err(error(failed)),
        }
    }
    Ok(())
}

/// Compares the plan with what is there.
pub(super) async fn check(connection: &Connection, plan: &Plan) -> Result<Vec<Finding>, BrokerError> {
    let mut channel = open(connection).await?;
    let mut findings = Vec::new();
    // AMQP cannot query a binding.
    for step in steps(plan).filter(|step| !matches!(step, Step::Binding(_))) {
        let mut answer = run(&channel, &step, true).await;
        if answer.is_ok() {
            // It exists, so declaring it creates nothing and only compares.
            answer = run(&channel, &step, false).await;
        }
        let state = match answer {
            Ok(()) => FindingState::Same,
            Err(AmqpError::NotFound(_)) => FindingState::Missing,
            Err(AmqpError::Refused(why)) if why.starts_with("ACCESS_REFUSED") => FindingState::Unknown(why),
            Err(AmqpError::Refused(why)) => FindingState::Different(difference(&step.what(), &why)),
            Err(failed) => return Err(error(failed)),
        };
        if state != FindingState::Same {
            channel = open(connection).await?;
        }
        let what = step.what();
        findings.push(Finding { what, state });
    }
    Ok(findings)
}

/// Whether an exchange or a queue of the plan is missing. Uses passive declarations, which need no rights.
pub(super) async fn missing(connection: &Connection, plan: &Plan) -> Result<bool, BrokerError> {
    let channel = open(connection).await?;
    for step in steps(plan).filter(|step| !matches!(step, Step::Binding(_))) {
        match run(&channel, &step, true).await {
            Ok(()) => {}
            Err(AmqpError::NotFound(_)) => return Ok(true),
            Err(failed) => return Err(error(failed)),
        }
    }
    Ok(false)
}

fn steps(plan: &Plan) -> impl Iterator<Item = Step<'_>> {
    let exchanges = plan.exchanges.iter().map(Step::Exchange);
    let queues = plan.queues.iter().map(Step::Queue);
    let bindings = plan.bindings.iter().map(Step::Binding);
    exchanges.chain(queues).chain(bindings)
}

pub(super) async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.create_channel().await;
    channel.map_err(|failed| error(AmqpError::from_lapin(&failed)))
}

pub(super) async fn run(channel: &Channel, step: &Step<'_>, passive: bool) -> Result<(), AmqpError> {
    let name = |name: &str| short(name).map_err(|too_long| AmqpError::Refused(too_long.to_string()));
    let done = match step {
        Step::Exchange(exchange) => {
            let kind = match exchange.kind {
                "topic" => ExchangeKind::Topic,
                "fanout" => ExchangeKind::Fanout,
                _direct => ExchangeKind::Direct,
            };
            let options =
                ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
            let mut table = FieldTable::default();
            if let Some(alternate) = &exchange.alternate {
                let value = AMQPValue::LongString(alternate.as_str().into());
                table.insert("alternate-exchange".into(), value);
            }
            channel.exchange_declare(name(&exchange.name)?, kind, options, table).await
        }
        Step::Queue(queue) => {
            let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(name(&queue.name)?, options, queue.table());
            declared.await.map(|_counts| ())
        }
        // AMQP cannot query a binding; if declaring it is refused, it is assumed to exist.
        Step::Binding(_) if passive => return Ok(()),
        Step::Binding(binding) => {
            let (queue, exchange) = (name(&binding.queue)?, name(&binding.exchange)?);
            let (key, options) = (name(&binding.key)?, QueueBindOptions::default());
            channel.queue_bind(queue, exchange, key, options, FieldTable::default()).await
        }
    };
    done.map_err(|failed| AmqpError::from_lapin(&failed))
}

impl Step<'_> {
    fn what(&self) -> String {
        match self {
            Step::Exchange(exchange) => format!("exchange {}", exchange.name),
            Step::Queue(queue) => format!("queue {}", queue.name),
            Step::Binding(binding) => format!("binding of {}", binding.queue),
        }
    }
}

/// Turns the server's reply text into one sentence, e.g. `PRECONDITION_FAILED - inequivalent arg
/// 'x-delivery-limit' for queue 'retouch.tasks' in vhost '/': received the value '20' of type 'long' but
/// current is none`.
fn difference(what: &str, reply: &str) -> String {
    match inequivalent(reply) {
        Some((argument, ours, theirs)) => format!(
            "the {what} exists with another {argument}: it has {theirs} and the worker needs {ours}; \
             delete it, or run under another namespace"
        ),
        None => format!("the {what} cannot be used: {reply}"),
    }
}

/// The differing argument, its value here and its value there, from such a reply text.
pub(super) fn inequivalent(reply: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = reply.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, values) = rest.split_once("': ")?;
    let values = values.trim_start_matches("received ");
    let (ours, theirs) = values.split_once(" but current is ")?;
    Some((argument, value(ours), value(theirs)))
}

/// `the value '20' of type 'long'` and `'20'` are 20.
fn value(told: &str) -> &str {
    let quoted = told.split('\'').nth(1);
    quoted.unwrap_or(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_the_queue_the_argument_and_both_values() {
        let reply = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'retouch.tasks' in vhost '/': \
                     received the value '20' of type 'long' but current is none";
        assert_eq!(
            difference("queue retouch.tasks", reply),
            "the queue retouch.tasks exists with another x-delivery-limit: it has none and the worker needs 20; \
             delete it, or run under another namespace"
        );
        let reply = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'retouch' in vhost '/': \
                     received 'direct' but current is 'topic'";
        let told = difference("exchange retouch", reply);
        assert!(told.contains("another type: it has topic and the worker needs direct"));
        assert!(difference("queue q", "SOMETHING ELSE").ends_with("SOMETHING ELSE"));
    }

    #[test]
    fn every_queue_is_bound_and_only_wait_queues_expire() {
        let names = Topology::default();
        let plan = Plan::new(&names, &["local".to_owned()]);
        assert_eq!(plan.queues.len(), 3 + RUNGS.len());
        for queue in &plan.queues {
            assert!(plan.bindings.iter().any(|binding| binding.queue == queue.name), "{queue:?}");
            let has = |name| queue.arguments.iter().any(|(argument, _)| *argument == name);
            assert_eq!(has("x-message-ttl"), queue.name.contains(".wait."));
            assert_eq!(has("x-dead-letter-exchange"), queue.name != names.dead_queue());
        }
    }
}

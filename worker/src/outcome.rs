//! How a delivery ends. Stages return an [`Outcome`]; [`settle`] is the only function in the program that
//! acknowledges, delays or rejects a delivery.

use std::time::Duration;

use retouch_shared::topology::RUNGS;

use crate::broker::{
    ATTEMPT, Broker, BrokerError, Delivery, Destination, ERROR, Message, ORIGIN, Queue, REASON,
};
use crate::delay::{Backoff, Pace};
use crate::metrics::count;

/// The end of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Worked on, or nothing left to do: everything necessary is committed.
    Done,
    /// To be delivered again after a delay.
    Delay {
        /// At least this long.
        after: Duration,
        /// Why, for people.
        error: String,
    },
    /// As [`Outcome::Delay`] for work that the sweep wakes: a delayed message would outlast an earlier
    /// restart of the work.
    Rest {
        /// At least this long.
        after: Duration,
        /// Why, for people.
        error: String,
    },
    /// Cannot be worked on: goes to the dead letters.
    Dead {
        /// A reason code.
        reason: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Not begun, or left at a committed step: back to the queue for another replica. Only at shutdown.
    HandBack,
}

impl Outcome {
    /// The word of metrics.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Delay { .. } | Self::Rest { .. } => "delayed",
            Self::Dead { .. } => "dead",
            Self::HandBack => "handed_back",
        }
    }

    /// Held back because our own database or blobs are unavailable. At most half a minute at a time: climbing
    /// the ladder through a long outage would delay the work for hours after its end.
    pub(crate) fn hold(attempt: u32, error: impl std::fmt::Display) -> Self {
        Self::Delay { after: rung(attempt.min(LONGEST_HOLD)), error: error.to_string() }
    }
}

/// The attempt from which on the delay is 30 s.
const LONGEST_HOLD: u32 = 2;

/// The delay after so many attempts: one more rung of the wait ladder each time.
pub(crate) fn rung(attempt: u32) -> Duration {
    RUNGS[RUNGS.len().min(attempt as usize + 1) - 1]
}

/// How often this message was delayed before.
pub(crate) fn attempt(message: &Message) -> u32 {
    message.headers.get(ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Tries to publish a delivery's replacement before the delivery is handed back.
const PUBLISH_TRIES: u32 = 5;

/// Settles a delivery. Its replacement is confirmed before it is acknowledged, so a crash in between repeats
/// the message and never loses it.
pub(crate) async fn settle(broker: &dyn Broker, queue: &Queue, delivery: Delivery, outcome: Outcome) {
    let Delivery { message, settler, .. } = delivery;
    let replacement = match outcome {
        Outcome::Done => None,
        Outcome::Rest { after, error } => {
            tracing::info!(?after, error, "delayed; the sweep will wake it");
            None
        }
        Outcome::HandBack => {
            settler.hand_back().await;
            return;
        }
        Outcome::Delay { after, error } => {
            tracing::info!(?after, error, "delayed");
            Some((Destination::Delayed(queue.clone(), after), delayed(message, error)))
        }
        Outcome::Dead { reason, message: text } => {
            tracing::warn!(reason, error = text, "dead");
            Some((Destination::Queue(Queue::Dead), dead(queue, message, reason, text)))
        }
    };
    if let Some((to, message)) = replacement
        && let Err(error) = publish(broker, &to, &message).await
    {
        // Not lost: it returns to its queue.
        tracing::error!(%error, ?to, "cannot publish; handing the message back");
        settler.hand_back().await;
        return;
    }
    if !settler.ack().await {
        // The channel is gone; the broker will deliver the message again, and the store knows that its work
        // is done.
        tracing::warn!("an acknowledgement was lost");
        count::lost_ack(&origin(queue));
    }
}

async fn publish(broker: &dyn Broker, to: &Destination, message: &Message) -> Result<(), BrokerError> {
    let mut backoff = Backoff::new(Pace::RECONNECT);
    for _ in 1..PUBLISH_TRIES {
        match broker.publish(to.clone(), message.clone()).await {
            Err(BrokerError::Unavailable(_)) => tokio::time::sleep(backoff.next_delay()).await,
            other => return other,
        }
    }
    broker.publish(to.clone(), message.clone()).await
}

/// The same message with one more delay counted.
pub(crate) fn delayed(mut message: Message, error: String) -> Message {
    let attempt = attempt(&message) + 1;
    message.headers.insert(ATTEMPT.to_owned(), attempt.to_string());
    message.headers.insert(ERROR.to_owned(), short(error));
    message
}

/// An error may quote a provider's whole answer, and headers must fit one frame.
fn short(mut error: String) -> String {
    const MOST: usize = 4000;
    if let Some((end, _)) = error.char_indices().nth(MOST) {
        error.truncate(end);
        error.push('…');
    }
    error
}

fn dead(queue: &Queue, mut message: Message, reason: &str, text: String) -> Message {
    message.headers.insert(REASON.to_owned(), reason.to_owned());
    message.headers.insert(ERROR.to_owned(), short(text));
    message.headers.insert(ORIGIN.to_owned(), origin(queue));
    message
}

/// The queue's name without the namespace, as dead letters carry it.
pub(crate) fn origin(queue: &Queue) -> String {
    match queue {
        Queue::Tasks => "tasks".to_owned(),
        Queue::Edits { lane } => format!("edits.{lane}"),
        Queue::Dead => "dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_always_fits_into_a_header() {
        let error = "é".repeat(1 << 20);
        for message in [
            delayed(Message::new("x"), error.clone()),
            dead(&Queue::Tasks, Message::new("x"), "bad_message", error),
        ] {
            assert!(message.headers[ERROR].len() < 10_000);
        }
    }

    #[test]
    fn held_work_climbs_the_ladder_and_stays_on_its_last_rung() {
        for (attempt, seconds) in [(0, 1), (1, 5), (2, 30), (6, 7200), (500, 7200)] {
            assert_eq!(rung(attempt).as_secs(), seconds, "{attempt}");
        }
    }

    #[test]
    fn held_work_resumes_soon_after_an_outage_of_any_length() {
        for (attempt, seconds) in [(0, 1), (1, 5), (2, 30), (3, 30), (500, 30)] {
            let Outcome::Delay { after, .. } = Outcome::hold(attempt, "x") else { panic!() };
            assert_eq!(after.as_secs(), seconds, "{attempt}");
        }
    }
}

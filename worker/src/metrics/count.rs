//! Counting functions, by event. Each is called after the event's commit, not before.

use std::time::Duration;

use metrics::{counter, histogram};
use retouch_shared::event::{ImageResult, ImageStatus};

use super::money::{LOST, PAID, SAVED};
use super::names::{
    AMBIGUOUS_CALLS, BLOB_ERRORS, CALL_DURATION, CALL_PHASE_DURATION, DATABASE_ERRORS, DELIVERIES, IMAGES,
    INTAKE_DURATION, LOST_ACKS, PAID_CALLS, POSSIBLE_DUPLICATES, REDELIVERIES, SCRAPE_ERRORS, TASKS,
    TASKS_ACCEPTED,
};
use crate::store::{AMBIGUOUS, Money, RESULT, TaskRecord, UNWANTED};

/// A phase of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    LaneWait,
    Submit,
    Run,
    Fetch,
    Store,
    Finish,
}

impl Phase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::LaneWait => "lane_wait",
            Self::Submit => "submit",
            Self::Run => "run",
            Self::Fetch => "fetch",
            Self::Store => "store",
            Self::Finish => "finish",
        }
    }
}

/// Changes of an edit's end in its waiting tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) joined: u32,
    pub(crate) paid: u32,
    pub(crate) failed: u32,
    pub(crate) saved_micros: i64,
}

impl Answered {
    /// Sums over these tasks.
    pub(crate) fn in_all<'a>(tasks: impl Iterator<Item = &'a TaskRecord>) -> Self {
        tasks.fold(Self::default(), |sum, task| Self {
            joined: sum.joined + task.joined,
            paid: sum.paid + task.paid,
            failed: sum.failed + task.failed,
            saved_micros: sum.saved_micros + task.saved_micros,
        })
    }

    /// The difference to `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            joined: self.joined.saturating_sub(before.joined),
            paid: self.paid.saturating_sub(before.paid),
            failed: self.failed.saturating_sub(before.failed),
            saved_micros: self.saved_micros - before.saved_micros,
        }
    }
}

/// A new task was registered.
pub(crate) fn registered(model: &str, task: &TaskRecord) {
    counter!(TASKS_ACCEPTED.name).increment(1);
    images("hit", task.hit);
    images("failed", task.failed);
    saved(model, &task.currency, task.saved_micros);
    if task.status.has_ended() {
        counter!(TASKS.name, "status" => task.status.as_str()).increment(1);
    }
}

/// An edit ended, and these tasks with it; `outcome` is the use of its money, `None` if nothing is charged.
pub(crate) fn ended(
    model: &str,
    price: &Money,
    outcome: Option<&str>,
    answered: Answered,
    tasks: &[TaskRecord],
) {
    images("joined", answered.joined);
    images("paid", answered.paid);
    images("failed", answered.failed);
    saved(model, &price.currency, answered.saved_micros);
    // Whether an ambiguous call is charged is unknown: its money is counted, the call is not.
    if outcome.is_some_and(|outcome| outcome != AMBIGUOUS) {
        let labels = [("model", model.to_owned()), ("currency", price.currency.clone())];
        counter!(PAID_CALLS.name, &labels).increment(1);
    }
    match outcome {
        None => {}
        Some(RESULT | UNWANTED) => PAID.add([model, &price.currency], price.micros),
        Some(reason) => lost(model, price, reason),
    }
    for task in tasks {
        counter!(TASKS.name, "status" => task.status.as_str()).increment(1);
    }
}

/// Failed images were requeued by a person: each answer is counted, including this one.
pub(crate) fn taken_in_again(model: &str, task: &TaskRecord, again: &[ImageResult], saved_micros: i64) {
    let having = |wanted: ImageStatus| {
        let count = again.iter().filter(|image| image.status == wanted).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    images("hit", having(ImageStatus::Done));
    images("failed", having(ImageStatus::Failed));
    saved(model, &task.currency, saved_micros);
    if task.status.has_ended() {
        counter!(TASKS.name, "status" => task.status.as_str()).increment(1);
    }
}

/// A task was cancelled with this many waiting images.
pub(crate) fn cancelled(task: &TaskRecord, failed_images: u32) {
    images("failed", failed_images);
    counter!(TASKS.name, "status" => task.status.as_str()).increment(1);
}

fn images(source: &'static str, count: u32) {
    counter!(IMAGES.name, "source" => source).increment(count.into());
}

fn saved(model: &str, currency: &str, micros: i64) {
    if micros != 0 {
        SAVED.add([model, currency], micros);
    }
}

fn lost(model: &str, price: &Money, reason: &str) {
    if price.micros != 0 {
        LOST.add([model, &price.currency, reason], price.micros);
    }
}

/// A submit got no answer.
pub(crate) fn ambiguous(lane: &str) {
    counter!(AMBIGUOUS_CALLS.name, "lane" => lane.to_owned()).increment(1);
}

/// The call is sent once more.
pub(crate) fn possible_duplicate(lane: &str, model: &str, price: &Money) {
    counter!(POSSIBLE_DUPLICATES.name, "lane" => lane.to_owned()).increment(1);
    lost(model, price, AMBIGUOUS);
}

/// A call has left a phase, successfully or not.
pub(crate) fn phase(lane: &str, phase: Phase, took: Duration) {
    let labels = [("lane", lane.to_owned()), ("phase", phase.as_str().to_owned())];
    histogram!(CALL_PHASE_DURATION.name, &labels).record(took.as_secs_f64());
}

/// A call has succeeded.
pub(crate) fn call(lane: &str, took: Duration) {
    histogram!(CALL_DURATION.name, "lane" => lane.to_owned()).record(took.as_secs_f64());
}

/// Intake has finished a message.
pub(crate) fn intake(outcome: &'static str, took: Duration) {
    histogram!(INTAKE_DURATION.name, "outcome" => outcome).record(took.as_secs_f64());
}

/// A message was delivered.
pub(crate) fn delivered(queue: &str, before: bool) {
    if before {
        counter!(REDELIVERIES.name, "queue" => queue.to_owned()).increment(1);
    }
}

/// A message was handled.
pub(crate) fn handled(queue: &str, outcome: &'static str) {
    counter!(DELIVERIES.name, "queue" => queue.to_owned(), "outcome" => outcome).increment(1);
}

/// The broker did not receive an acknowledgement.
pub(crate) fn lost_ack(queue: &str) {
    counter!(LOST_ACKS.name, "queue" => queue.to_owned()).increment(1);
}

/// A statement failed.
pub(crate) fn database_error(kind: &'static str) {
    counter!(DATABASE_ERRORS.name, "kind" => kind).increment(1);
}

/// A blob could not be read or stored.
pub(crate) fn blob_error(kind: &'static str) {
    counter!(BLOB_ERRORS.name, "kind" => kind).increment(1);
}

/// Figures were not available.
pub(crate) fn scrape_error(source: &'static str) {
    counter!(SCRAPE_ERRORS.name, "source" => source).increment(1);
}

/// Initialises counters with known labels to 0: `rate` misses the first event of a counter that appears with
/// it.
pub(crate) fn begin(queues: &[String], lanes: &[String]) {
    let zero = |counter: metrics::Counter| counter.increment(0);
    for source in ["hit", "joined", "paid", "failed"] {
        zero(counter!(IMAGES.name, "source" => source));
    }
    zero(counter!(TASKS_ACCEPTED.name));
    for status in ["completed", "partial", "failed"] {
        zero(counter!(TASKS.name, "status" => status));
    }
    for lane in lanes {
        zero(counter!(AMBIGUOUS_CALLS.name, "lane" => lane.clone()));
        zero(counter!(POSSIBLE_DUPLICATES.name, "lane" => lane.clone()));
    }
    for queue in queues {
        zero(counter!(REDELIVERIES.name, "queue" => queue.clone()));
        zero(counter!(LOST_ACKS.name, "queue" => queue.clone()));
        for outcome in ["done", "delayed", "dead", "handed_back"] {
            zero(counter!(DELIVERIES.name, "queue" => queue.clone(), "outcome" => outcome));
        }
    }
    for kind in ["conflict", "unavailable", "failed"] {
        zero(counter!(DATABASE_ERRORS.name, "kind" => kind));
    }
    for kind in ["unavailable", "corrupt", "missing"] {
        zero(counter!(BLOB_ERRORS.name, "kind" => kind));
    }
    for source in ["database", "broker"] {
        zero(counter!(SCRAPE_ERRORS.name, "source" => source));
    }
}

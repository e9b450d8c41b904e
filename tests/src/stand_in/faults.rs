//! Misbehaviour on demand. A fault belongs to a stage, is armed for the next requests there (of one model or of any), and
//! counts how often it struck, so that a test can prove that it did.
//!
//! A create's fault strikes only a request that would have been accepted: other refusals use up none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use retouch_shared::key::Digest32;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::answers::Refusal;
use super::shapes::Shape;
use crate::wait::SOON;

/// Something that goes wrong at one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A create, or OpenAI's edit, after the whole POST was read.
    Create(OnCreate),
    /// What becomes of the task (or of the work of a synchronous call) that is created.
    Task(OnTask),
    /// A query of a task.
    Poll(OnRequest),
    /// A list of tasks.
    List(OnRequest),
    /// A cancellation; nothing is cancelled.
    Cancel(OnRequest),
    /// The policy for an upload, or the upload.
    Upload(OnRequest),
    /// The download of a result.
    Result(OnResult),
}

/// A create goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCreate {
    /// The connection ends without a byte of an answer.
    Drop {
        /// Whether the work is done, and billed, anyway.
        created: bool,
    },
    /// This answer.
    Refuse {
        /// The answer.
        refusal: Refusal,
        /// Whether the work is done, and billed, anyway.
        created: bool,
    },
    /// Waits until [`Armed::release`], then continues normally.
    Hold {
        /// Whether the work is accepted before the wait, or after.
        created: bool,
    },
    /// Accepted at once, answered after this time.
    Slow(Duration),
    /// Done and billed, and answered whole in this shape.
    Shaped(Shape),
}

/// A task does not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTask {
    /// FAILED with this code and message; a synchronous call is refused with them and the status.
    Fail(Refusal),
    /// CANCELED.
    Cancel,
    /// The first picture failed with this code and message, the others are made. Of a task for one picture, the failed one
    /// is one more than was asked for, so that there is still one to be had.
    Partial(Refusal),
    /// RUNNING for ever.
    Never,
    /// RUNNING for this time.
    Slow(Duration),
}

/// A request around the work fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRequest {
    /// The connection ends without a byte of an answer.
    Drop,
    /// This answer.
    Refuse(Refusal),
    /// Waits until [`Armed::release`], then answers as ever.
    Hold,
    /// Answers as ever, after this time.
    Slow(Duration),
}

/// A download fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnResult {
    /// The connection ends without a byte of an answer.
    Drop,
    /// This status, with XML as OSS has it.
    Status(u16),
    /// Half of the bytes with a Content-Length that says so: only decoding shows it.
    Truncated,
    /// Half of the bytes, then the connection ends; the Content-Length promised all.
    CutOff,
    /// 200 with a page of HTML.
    Html,
    /// Waits until [`Armed::release`], then answers as ever.
    Hold,
    /// Answers as ever, after this time.
    Slow(Duration),
}

/// A fault with the requests that it is meant for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    fault: Fault,
    /// `None`: until cleared.
    times: Option<usize>,
    model: Option<String>,
}

impl From<Fault> for Arm {
    /// For the next request, of whatever model.
    fn from(fault: Fault) -> Self {
        Self { fault, times: Some(1), model: None }
    }
}

impl Fault {
    /// For the next `times` requests.
    #[must_use]
    pub fn times(self, times: usize) -> Arm {
        Arm { times: Some(times), ..self.into() }
    }

    /// For every request until it is cleared.
    #[must_use]
    pub fn always(self) -> Arm {
        Arm { times: None, ..self.into() }
    }

    /// For the next request of this model.
    #[must_use]
    pub fn of_model(self, model: &str) -> Arm {
        Arm::from(self).of_model(model)
    }

    fn stage(&self) -> Stage {
        match self {
            Self::Create(_) => Stage::Create,
            Self::Task(_) => Stage::Task,
            Self::Poll(_) => Stage::Poll,
            Self::List(_) => Stage::List,
            Self::Cancel(_) => Stage::Cancel,
            Self::Upload(_) => Stage::Upload,
            Self::Result(_) => Stage::Result,
        }
    }
}

impl Arm {
    /// Only requests that concern this model.
    #[must_use]
    pub fn of_model(self, model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Create,
    Task,
    Poll,
    List,
    Cancel,
    Upload,
    Result,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    fired: usize,
    arrived: usize,
    released: bool,
    cleared: bool,
}

/// A fault that was armed; dropping this changes nothing.
#[derive(Debug, Clone)]
pub struct Armed {
    progress: Arc<watch::Sender<Progress>>,
}

impl Armed {
    fn new() -> Self {
        Self { progress: Arc::new(watch::Sender::default()) }
    }

    /// How many requests it struck.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.progress.borrow().fired
    }

    /// Returns once it struck `count` requests; panics when that does not happen soon.
    pub async fn struck(&self, count: usize) {
        self.until(|progress| progress.fired >= count, &format!("the fault did not strike {count} times"))
            .await;
    }

    /// Returns once `count` requests were held; panics when that does not happen soon.
    pub async fn held(&self, count: usize) {
        self.until(
            |progress| progress.arrived >= count,
            &format!("there never were {count} requests to hold"),
        )
        .await;
    }

    /// Lets the held requests go on, and those to come.
    pub fn release(&self) {
        self.progress.send_modify(|progress| progress.released = true);
    }

    /// Strikes no more, and releases held requests.
    pub fn clear(&self) {
        self.progress.send_modify(|progress| (progress.cleared, progress.released) = (true, true));
    }

    async fn until(&self, reached: impl Fn(&Progress) -> bool, otherwise: &str) {
        let mut progress = self.progress.subscribe();
        let reached = tokio::time::timeout(SOON, progress.wait_for(reached)).await.is_ok();
        assert!(reached, "{otherwise} in {SOON:?}: {:?}", self.progress.borrow());
    }

    /// A held request waits here.
    pub(super) async fn hold(&self) {
        self.progress.send_modify(|progress| progress.arrived += 1);
        // Fails only when the sender is gone, and we have it.
        let _ = self.progress.subscribe().wait_for(|progress| progress.released).await;
    }
}

/// Faults that strike at random: each with its probability, of all requests at its stage. The random number
/// depends on the seed, the edit (or task) and the number of its requests at that stage, so that the order of
/// arrival does not matter, and the same seed gives the same faults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chaos(Vec<(f64, Fault)>);

impl Chaos {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault with its probability, 0 to 1; those of one stage together at most 1.
    #[must_use]
    pub fn with(mut self, probability: f64, fault: Fault) -> Self {
        self.0.push((probability, fault));
        self
    }

    /// Every fault that a client must survive without a loss or an avoidable second payment: no create is
    /// lost silently, no task fails for good.
    #[must_use]
    pub fn transient(probability: f64) -> Self {
        let refuse = |refusal| OnRequest::Refuse(refusal);
        let unavailable =
            Refusal::new(503, "ModelUnavailable", "Model is unavailable, please try again later.");
        Self::new()
            .with(
                probability,
                Fault::Create(OnCreate::Refuse { refusal: Refusal::throttled(), created: false }),
            )
            .with(probability, Fault::Create(OnCreate::Slow(Duration::from_millis(200))))
            .with(probability, Fault::Task(OnTask::Slow(Duration::from_millis(500))))
            .with(probability, Fault::Poll(OnRequest::Drop))
            .with(probability, Fault::Poll(refuse(Refusal::throttled())))
            .with(probability, Fault::Poll(refuse(Refusal::internal_error())))
            .with(probability, Fault::Poll(refuse(unavailable)))
            .with(probability, Fault::Result(OnResult::Drop))
            .with(probability, Fault::Result(OnResult::Status(500)))
            .with(probability, Fault::Result(OnResult::CutOff))
            .with(probability, Fault::Result(OnResult::Truncated))
    }

    /// [`Chaos::transient`], and creates whose answer is lost, with the work done and without.
    #[must_use]
    pub fn ambiguous(probability: f64) -> Self {
        [true, false].into_iter().fold(Self::transient(probability), |chaos, created| {
            let refusal = Refusal::internal_error();
            chaos
                .with(probability, Fault::Create(OnCreate::Drop { created }))
                .with(probability, Fault::Create(OnCreate::Refuse { refusal, created }))
        })
    }
}

/// All that is armed, and the dice.
#[derive(Default)]
pub(super) struct Faults {
    armed: Vec<(Arm, Armed)>,
    chaos: Option<(u64, Chaos, Armed)>,
    /// How often a subject came to a stage.
    thrown: std::collections::HashMap<(Stage, String), u64>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.armed.iter().map(|(arm, _)| arm)).finish()
    }
}

impl Faults {
    pub(super) fn arm(&mut self, arm: Arm) -> Armed {
        let armed = Armed::new();
        self.armed.push((arm, armed.clone()));
        armed
    }

    pub(super) fn clear(&mut self) {
        self.chaos = None;
        for (_, armed) in self.armed.drain(..) {
            armed.clear();
        }
    }

    pub(super) fn chaos(&mut self, seed: u64, chaos: Chaos) -> Armed {
        let armed = Armed::new();
        self.chaos = Some((seed, chaos, armed.clone()));
        armed
    }

    /// The fault that strikes this request, if one does. `subject` is what the dice are thrown for.
    pub(super) fn strike(&mut self, stage: Stage, model: &str, subject: &str) -> Option<(Fault, Armed)> {
        let meant = |(arm, armed): &&(Arm, Armed)| {
            let progress = *armed.progress.borrow();
            arm.fault.stage() == stage
                && arm.model.as_deref().is_none_or(|only| only == model)
                && !progress.cleared
                && arm.times.is_none_or(|times| progress.fired < times)
        };
        let strikes = match self.armed.iter().find(meant) {
            Some((arm, armed)) => Some((arm.fault.clone(), armed.clone())),
            None => self.throw(stage, subject),
        };
        if let Some((_, armed)) = &strikes {
            armed.progress.send_modify(|progress| progress.fired += 1);
        }
        strikes
    }

    fn throw(&mut self, stage: Stage, subject: &str) -> Option<(Fault, Armed)> {
        let (seed, chaos, armed) = self.chaos.as_ref()?;
        let count = self.thrown.entry((stage, subject.to_owned())).or_default();
        *count += 1;
        let digest = Digest32::of(format!("{seed} {stage:?} {subject} {count}").as_bytes());
        let mut first = [0; 4];
        first.copy_from_slice(&digest.as_bytes()[..4]);
        let mut left = f64::from(u32::from_be_bytes(first)) / f64::from(u32::MAX);
        for (probability, fault) in chaos.0.iter().filter(|(_, fault)| fault.stage() == stage) {
            left -= probability;
            if left < 0.0 {
                return Some((fault.clone(), armed.clone()));
            }
        }
        None
    }
}

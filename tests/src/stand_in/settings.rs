//! Settings of the stand-in's regular behaviour; all can be changed while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::models::Model;

/// The settings. Times are the provider's own, which [`super::StandIn::advance`] moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a task RUNs, and a synchronous call takes; applies to what begins to run from now on.
    pub task_duration: Duration,
    /// How long a result's URL works.
    pub result_ttl: Duration,
    /// How long after its submit a task is known; then it is UNKNOWN.
    pub task_ttl: Duration,
    /// Of submits and running tasks, for each account and model.
    pub limits: Limits,
    /// The span in which submits are counted is shorter by this part, so that a client exactly at the limit is not refused
    /// for a packet that came a little early.
    pub tolerance: f64,
    /// Most queries in a second; as many lists, and as many cancellations, each counted on its own for each account.
    pub management_per_second: Option<usize>,
    /// What a 429 of the limits says in `Retry-After`, in seconds; DashScope does not document the header.
    pub retry_after: Option<u64>,
    /// What is wrong with the parameters, the function, the mask or the pictures becomes a FAILED task, as the guide tells
    /// of some of it, in place of a 400 at the create.
    pub fails_late: bool,
    /// OpenAI answers with URLs although `response_format` does not say so.
    pub openai_urls: bool,
    /// Where results are said to be, e.g. `http://localhost:1234` through a proxy; none: where the stand-in
    /// listens.
    pub result_base: Option<String>,
    /// What every result is, in place of the picture that was made.
    pub makes: Option<Makes>,
}

/// A result of any kind: its first bytes, and zeros behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Makes {
    /// What its host says that it is.
    pub content_type: String,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// How many bytes it has at least.
    pub bytes: usize,
}

impl Makes {
    /// These bytes.
    #[must_use]
    pub fn new(content_type: &str, head: impl Into<Vec<u8>>) -> Self {
        Self { content_type: content_type.to_owned(), head: head.into(), bytes: 0 }
    }

    /// Filled up with zeros.
    #[must_use]
    pub fn filled(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> Vec<u8> {
        let mut whole = self.head.clone();
        whole.resize(self.bytes.max(whole.len()), 0);
        whole
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            task_duration: Duration::from_millis(20),
            result_ttl: Duration::from_secs(24 * 60 * 60),
            task_ttl: Duration::from_secs(24 * 60 * 60),
            limits: Limits::default(),
            tolerance: 0.05,
            management_per_second: Some(20),
            retry_after: None,
            fails_late: false,
            openai_urls: false,
            result_base: None,
            makes: None,
        }
    }
}

/// Which limits hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// Those that are documented for each model, e.g. 2 submits a second and 2 running for wanx2.1-imageedit.
    #[default]
    Documented,
    /// None, also for queries.
    Off,
    /// These for the models named, the documented ones for the others.
    Of(BTreeMap<String, ModelLimits>),
}

impl Limits {
    /// These for one model, the documented ones for the others.
    #[must_use]
    pub fn of(model: &str, limits: ModelLimits) -> Self {
        Self::Of([(model.to_owned(), limits)].into())
    }
}

/// The limits of one model, for each account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLimits {
    /// Most submits in a span of time.
    pub submits: Option<(usize, Duration)>,
    /// Most tasks running at once, the others wait as PENDING; synchronous calls are not held back by it.
    pub running: Option<usize>,
}

impl ModelLimits {
    /// So many submits a second, and so many running at once.
    #[must_use]
    pub fn new(submits_per_second: usize, running: usize) -> Self {
        Self { submits: Some((submits_per_second, Duration::from_secs(1))), running: Some(running) }
    }
}

impl Settings {
    pub(super) fn of(&self, model: &Model) -> ModelLimits {
        match &self.limits {
            Limits::Documented => model.limits(),
            Limits::Off => ModelLimits::default(),
            Limits::Of(some) => some.get(model.name).copied().unwrap_or_else(|| model.limits()),
        }
    }

    pub(super) fn management(&self) -> Option<usize> {
        match self.limits {
            Limits::Off => None,
            Limits::Documented | Limits::Of(_) => self.management_per_second,
        }
    }
}

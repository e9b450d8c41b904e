//! What the stand-in knows, behind one lock, and the gate that every request passes: key, account, model, limits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::answers::{Refusal, Wire};
use super::clock::{Clock, delta};
use super::faults::{Armed, Fault, Faults, OnTask, Stage};
use super::ledger::Ledger;
use super::models::{self, MODELS, Model};
use super::settings::Settings;
use super::tasks::{Submission, Tasks};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    pub(super) clock: Clock,
    /// For pictures that are given by URL.
    pub(super) http: reqwest::Client,
    /// Told when something changed that a synchronous call may wait for.
    pub(super) changed: watch::Sender<()>,
    state: Mutex<State>,
    /// What requests said of their traces.
    pub(super) traces: Mutex<Vec<super::Traced>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Key to account and whether it works.
    pub(super) keys: HashMap<String, (String, bool)>,
    pub(super) in_arrears: HashSet<String>,
    pub(super) retired: HashSet<String>,
    pub(super) tasks: Tasks,
    pub(super) faults: Faults,
    pub(super) ledger: Ledger,
    pub(super) uploads: Uploads,
    windows: HashMap<(String, String), VecDeque<DateTime<Utc>>>,
}

/// Temporary files.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Folder to who may put what there.
    pub(super) policies: HashMap<String, Policy>,
    pub(super) files: HashMap<String, Upload>,
}

#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) account: String,
    pub(super) model: String,
    pub(super) expires: DateTime<Utc>,
}

#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) account: String,
    pub(super) model: String,
    pub(super) expires: DateTime<Utc>,
    pub(super) bytes: Bytes,
}

impl Shared {
    pub(super) fn new(address: SocketAddr, keys: &[(&str, &str)]) -> Self {
        retouch_worker::tls::init();
        let keys =
            keys.iter().map(|(key, account)| ((*key).to_owned(), ((*account).to_owned(), true))).collect();
        let retired =
            MODELS.iter().filter(|model| model.retired).map(|model| model.name.to_owned()).collect();
        let state = State {
            settings: Settings::default(),
            keys,
            in_arrears: HashSet::new(),
            retired,
            tasks: Tasks::default(),
            faults: Faults::default(),
            ledger: Ledger::default(),
            uploads: Uploads::default(),
            windows: HashMap::new(),
        };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        let changed = watch::Sender::new(());
        Self {
            address,
            clock: Clock::new(),
            http,
            changed,
            traces: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// The state now, with all due changes applied.
    pub(super) fn now(&self) -> (MutexGuard<'_, State>, DateTime<Utc>) {
        let mut state = self.state.lock().unwrap();
        let now = self.clock.now();
        state.settle(now);
        (state, now)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl State {
    fn settle(&mut self, now: DateTime<Utc>) {
        self.tasks.settle(now, &self.settings, &mut self.ledger);
    }

    /// The account of the request's key.
    pub(super) fn account(&self, headers: &HeaderMap, wire: Wire) -> Result<String, Refusal> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default().trim();
        match (self.keys.get(key), wire) {
            (Some((account, true)), _) => Ok(account.clone()),
            (_, Wire::DashScope) if key.is_empty() => {
                Err(Refusal::new(401, "InvalidApiKey", "No API-key provided."))
            }
            (_, Wire::DashScope) => Err(Refusal::new(401, "InvalidApiKey", "Invalid API-key provided.")),
            (_, Wire::OpenAi) => Err(Refusal::new(401, "invalid_api_key", "Incorrect API key provided.")),
        }
    }

    pub(super) fn solvent(&self, account: &str, wire: Wire) -> Result<(), Refusal> {
        match (self.in_arrears.contains(account), wire) {
            (false, _) => Ok(()),
            (true, Wire::DashScope) => {
                let words = "Access denied, please make sure your account is in good standing.";
                Err(Refusal::new(400, "Arrearage", words))
            }
            (true, Wire::OpenAi) => Err(Refusal::insufficient_quota()),
        }
    }

    pub(super) fn model(&self, name: &str, wire: Wire) -> Result<&'static Model, Refusal> {
        let known = models::find(name).filter(|_| !self.retired.contains(name));
        known.ok_or_else(|| match wire {
            Wire::DashScope => Refusal::new(404, "ModelNotFound", "Model can not be found."),
            Wire::OpenAi => {
                let words = format!("The model `{name}` does not exist or you do not have access to it.");
                Refusal::new(404, "model_not_found", words)
            }
        })
    }

    /// Whether a submit is within the limits; a submit that is not does not count.
    pub(super) fn admit(
        &mut self,
        account: &str,
        model: &Model,
        at: DateTime<Utc>,
        wire: Wire,
    ) -> Result<(), Refusal> {
        let Some((most, span)) = self.settings.of(model).submits else { return Ok(()) };
        let span = span.mul_f64(1.0 - self.settings.tolerance);
        if self.within(account, model.name, most, span, at) {
            return Ok(());
        }
        let refusal = match wire {
            Wire::DashScope => Refusal::throttled(),
            Wire::OpenAi => Refusal::openai_throttled(),
        };
        Err(Refusal { retry_after: self.settings.retry_after, ..refusal })
    }

    /// As [`State::admit`], for queries, lists or cancellations.
    pub(super) fn admit_management(
        &mut self,
        account: &str,
        what: &str,
        at: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let Some(most) = self.settings.management() else { return Ok(()) };
        let span = Duration::from_secs(1).mul_f64(1.0 - self.settings.tolerance);
        if self.within(account, what, most, span, at) {
            return Ok(());
        }
        Err(Refusal { retry_after: self.settings.retry_after, ..Refusal::throttled() })
    }

    fn within(&mut self, account: &str, what: &str, most: usize, span: Duration, at: DateTime<Utc>) -> bool {
        let window = self.windows.entry((account.to_owned(), what.to_owned())).or_default();
        window.retain(|earlier| *earlier > at - delta(span));
        let within = window.len() < most;
        if within {
            window.push_back(at);
        }
        within
    }

    pub(super) fn strike(&mut self, stage: Stage, model: &str, subject: &str) -> Option<(Fault, Armed)> {
        self.faults.strike(stage, model, subject)
    }

    /// Accepts work and returns its task's id.
    pub(super) fn create(&mut self, work: Submission, now: DateTime<Utc>) -> String {
        let identity = work.edit.identity.to_hex();
        let fault = match self.strike(Stage::Task, work.model.name, &identity) {
            Some((Fault::Task(fault), _)) => Some::<OnTask>(fault),
            _ => None,
        };
        self.tasks.create(work, fault, now, &self.settings, &mut self.ledger)
    }
}

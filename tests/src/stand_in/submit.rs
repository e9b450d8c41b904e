//! A create from the gate to its answer, whatever its wire: one entry in the ledger, faults, and the work itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde_json::json;

use super::answers::{Refusal, Wire, dropped, new_id, ok};
use super::clock::between;
use super::faults::{Fault, OnCreate, Stage};
use super::ledger::{Create, Told};
use super::models::Model;
use super::shapes::Made;
use super::state::Shared;
use super::tasks::{Kind, Status, Submission};
use super::{openai, views};

/// A create that has arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) shared: Arc<Shared>,
    pub(super) headers: HeaderMap,
    pub(super) wire: Wire,
    /// Before the body was read.
    at: DateTime<Utc>,
    /// After it was.
    received: Instant,
    /// Its place in the ledger.
    entry: usize,
}

impl Arrived {
    /// Enters a create in the ledger.
    pub(super) fn enter(
        shared: Arc<Shared>,
        headers: HeaderMap,
        wire: Wire,
        at: DateTime<Utc>,
        received: Instant,
        model: &str,
    ) -> Self {
        let (mut state, _) = shared.now();
        let account = state.account(&headers, wire).ok();
        let entry = state.ledger.received.len();
        let model = model.to_owned();
        let (prepared, told) = (Duration::ZERO, Told::Nothing);
        state.ledger.received.push(Create {
            at,
            account,
            model,
            identity: None,
            task_id: None,
            prepared,
            told,
        });
        drop(state);
        Self { shared, headers, wire, at, received, entry }
    }

    /// The account of the key.
    pub(super) fn account(&self) -> Result<String, Refusal> {
        self.shared.now().0.account(&self.headers, self.wire)
    }

    /// The account and the model, if this request may reach it at all. `right` looks at what this way of calling demands.
    pub(super) fn gate(
        &self,
        model: &str,
        right: impl FnOnce(&Model) -> Result<(), Refusal>,
    ) -> Result<(String, &'static Model), Refusal> {
        let (mut state, _) = self.shared.now();
        let account = state.account(&self.headers, self.wire)?;
        state.solvent(&account, self.wire)?;
        let model = state.model(model, self.wire)?;
        right(model)?;
        state.admit(&account, model, self.at, self.wire)?;
        Ok((account, model))
    }

    /// Does the work or strikes the fault, and answers.
    pub(super) async fn finish(self, work: Result<Submission, Refusal>) -> Response {
        let work = match work {
            Ok(work) => work,
            Err(refusal) => return self.refuse(&refusal),
        };
        let strike = {
            let (mut state, _) = self.shared.now();
            let identity = work.edit.identity;
            state.ledger.received[self.entry].identity = Some(identity);
            state.strike(Stage::Create, work.model.name, &identity.to_hex())
        };
        let kind = work.kind;
        let Some((Fault::Create(fault), armed)) = strike else {
            let id = self.create(work);
            return self.answer(id).await;
        };
        match fault {
            OnCreate::Drop { created } => {
                created.then(|| self.create(work));
                self.tell(Told::Dropped);
                dropped()
            }
            OnCreate::Refuse { refusal, created } => {
                created.then(|| self.create(work));
                self.refuse(&refusal)
            }
            OnCreate::Hold { created: true } => {
                let id = self.create(work);
                armed.hold().await;
                self.answer(id).await
            }
            OnCreate::Hold { created: false } => {
                armed.hold().await;
                let id = self.create(work);
                self.answer(id).await
            }
            OnCreate::Slow(time) => {
                let id = self.create(work);
                tokio::time::sleep(time).await;
                self.answer(id).await
            }
            OnCreate::Shaped(shape) => {
                let (id, kind) = (self.create(work), kind);
                if kind == Kind::Call {
                    self.ended(&id).await;
                }
                self.tell(Told::Accepted);
                shape.answer(&Made::of(&self.shared, &id, self.wire, kind == Kind::Call))
            }
        }
    }

    fn create(&self, work: Submission) -> String {
        let (mut state, now) = self.shared.now();
        let id = state.create(work, now);
        let entry = &mut state.ledger.received[self.entry];
        (entry.task_id, entry.prepared) = (Some(id.clone()), self.received.elapsed());
        id
    }

    fn tell(&self, told: Told) {
        self.shared.now().0.ledger.received[self.entry].told = told;
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        self.tell(Told::Refused(refusal.status, refusal.code.clone()));
        refusal.answer(self.wire)
    }

    async fn answer(&self, id: String) -> Response {
        let kind = self.shared.now().0.tasks.get(&id).map(|task| task.work.kind);
        if kind == Some(Kind::Call) {
            return self.called(&id).await;
        }
        self.tell(Told::Accepted);
        let request_id = self.shared.now().0.tasks.get(&id).map(|task| task.request_id.clone());
        ok(&json!({ "output": { "task_status": "PENDING", "task_id": id }, "request_id": request_id }))
    }

    /// The answer of a synchronous call, once its work is done.
    async fn called(&self, id: &str) -> Response {
        self.ended(id).await;
        let failure = {
            let (state, _) = self.shared.now();
            let task = state.tasks.get(id).expect("it was just created");
            match task.status {
                Status::Succeeded => None,
                Status::Failed => task.failure().cloned(),
                Status::Pending | Status::Running | Status::Canceled => Some(Refusal::internal_error()),
            }
        };
        if let Some(refusal) = failure {
            return self.refuse(&refusal);
        }
        self.tell(Told::Accepted);
        match self.wire {
            Wire::DashScope => {
                let (state, _) = self.shared.now();
                let mut body = views::call(&self.shared, &state, id);
                body["request_id"] = new_id().into();
                ok(&body)
            }
            Wire::OpenAi => openai::done(&self.shared, id).await,
        }
    }

    async fn ended(&self, id: &str) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let wait = {
                let (state, now) = self.shared.now();
                let task = state.tasks.get(id).expect("it was just created");
                if task.status.ended() {
                    return;
                }
                task.due.map(|due| between(now, due))
            };
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                _ = changed.changed() => {}
            }
        }
    }
}

//! The simulation's provider: books in memory, and lost answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use retouch_shared::key::Digest32;
use retouch_worker::editor::{
    EditError, EditRequest, EditSpec, Editor, Measure, Output, Polled, Submitted, double,
};

/// A provider in memory: its books, and its dice.
pub(super) struct Provider {
    dice: StdRng,
    /// By edit: how often it was billed.
    pub(super) bills: HashMap<String, u64>,
    /// Accepted, by id.
    accepted: HashMap<String, Vec<u8>>,
    pub(super) creates: u64,
    pub(super) faults: u64,
}

/// One worker's connection to it.
pub(super) struct ToProvider(pub(super) Arc<Mutex<Provider>>);

/// The fate of a submit.
enum Answer {
    Throttled,
    Lost,
    Result(Vec<u8>),
    Id(String),
}

impl Provider {
    /// With dice of its own.
    pub(super) fn new(seed: u64) -> Self {
        let (bills, accepted) = Default::default();
        Self { dice: StdRng::seed_from_u64(seed), bills, accepted, creates: 0, faults: 0 }
    }

    fn submit(&mut self, edit: String, is_async: bool, input: &[u8]) -> Answer {
        let luck = self.dice.random_range(0..100);
        self.faults += u64::from(luck < 6);
        if luck < 2 {
            return Answer::Throttled;
        }
        if luck < 4 {
            // Never arrived, which the worker cannot know.
            return Answer::Lost;
        }
        let result = double::expected(input).unwrap();
        self.creates += 1;
        *self.bills.entry(edit).or_default() += 1;
        let id = format!("task-{}", self.creates);
        if is_async {
            self.accepted.insert(id.clone(), result.clone());
        }
        match (luck < 6, is_async) {
            (true, _) => Answer::Lost,
            (false, true) => Answer::Id(id),
            (false, false) => Answer::Result(result),
        }
    }
}

#[async_trait]
impl Editor for ToProvider {
    fn kind(&self) -> &'static str {
        "double"
    }

    fn check(&self, _: &EditSpec, _: Measure) -> Result<(), EditError> {
        Ok(())
    }

    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError> {
        let (image, is_async) =
            (Digest32::of(&request.image.bytes), request.spec.edit_type == "double_async");
        let edit = format!("{image} {}", request.spec.edit_type);
        // The answer takes a moment, in which the worker may die.
        let answer = self.0.lock().unwrap().submit(edit, is_async, &request.image.bytes);
        tokio::time::sleep(Duration::from_millis(2)).await;
        match answer {
            Answer::Throttled => Err(EditError::RateLimited {
                retry_after: Some(Duration::from_millis(10)),
                message: "slow down".to_owned(),
            }),
            Answer::Lost => Err(EditError::Ambiguous("no answer".to_owned())),
            Answer::Result(result) => Ok(Submitted::Done(result.into())),
            Answer::Id(provider_task_id) => Ok(Submitted::Accepted { provider_task_id, at_hand: None }),
        }
    }

    async fn poll(&self, id: &str, _: Duration) -> Result<Polled, EditError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut provider = self.0.lock().unwrap();
        match provider.dice.random_range(0..10) {
            0 => Err(EditError::Unavailable("not now".to_owned())),
            1..5 => Ok(Polled::Pending { after: Duration::from_millis(3) }),
            _ => match provider.accepted.get(id) {
                Some(result) => Ok(Polled::Done(Output::Bytes(result.clone().into()))),
                None => Err(EditError::rejected("unknown_task", id)),
            },
        }
    }
}

//! Performs the calls that the tasks of one command wait for, and sends no others: a person pays for what
//! that person started.
//!
//! What must stay true: no queue is consumed, and a call is begun only while an image of these tasks waits
//! for it. The one exception costs nothing: a call of another command that the provider has accepted, and
//! that keeps the lane from taking these, is polled on until its result is kept. Which process works on a
//! call is decided by its lease: one that another process holds is waited for, and begun here should that
//! process die. What this process leaves is found by the next one that wants it, or by a worker's sweep.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use retouch_shared::event::ImageStatus;
use retouch_shared::key::EditKey;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::App;
use crate::broker::{Headers, Message};
use crate::edit;
use crate::outcome::Outcome;
use crate::store::{OpenWait, SentCall, StoreError, TaskRecord};
use crate::{trace, wake};

/// Between two looks at the store; longer where a look takes long.
const LOOK: Duration = Duration::from_millis(50);

/// Calls that were sent already and are carried on at a time: each takes a place on its lane, for which those
/// wait that are not sent, so that it must never wait behind them here.
const SENT: usize = 16;

/// Where a call is counted: its lane, and whether it had been sent when it was begun here.
type Place = (String, bool);

/// One call that was worked on here.
struct Ended {
    edit_key: EditKey,
    place: Place,
    outcome: Outcome,
}

/// The calls of these tasks.
pub(crate) struct OwnCalls {
    app: Arc<App>,
    /// The images that each task still waits for.
    tasks: HashMap<String, usize>,
    waits: Vec<OpenWait>,
    running: JoinSet<Ended>,
    /// Worked on at the moment.
    at_work: HashSet<EditKey>,
    places: HashMap<Place, usize>,
    /// Worked on since the last look, which does not know it yet.
    over: HashSet<EditKey>,
    not_before: HashMap<EditKey, Instant>,
    /// Edits that the tasks of other commands had started, and that were worked on here.
    of_others: HashSet<EditKey>,
    /// Of those worked on, calls that none of these tasks waits for.
    others: HashSet<EditKey>,
    look_again: Instant,
}

impl OwnCalls {
    pub(crate) fn new(app: &Arc<App>) -> Self {
        Self {
            app: Arc::clone(app),
            tasks: HashMap::new(),
            waits: Vec::new(),
            running: JoinSet::new(),
            at_work: HashSet::new(),
            places: HashMap::new(),
            over: HashSet::new(),
            not_before: HashMap::new(),
            of_others: HashSet::new(),
            others: HashSet::new(),
            look_again: Instant::now(),
        }
    }

    /// One more task, as it was taken in.
    pub(crate) fn add(&mut self, task: &TaskRecord) {
        let waiting = task.images.iter().filter(|image| image.status == ImageStatus::Waiting);
        let waiting = waiting.count();
        if waiting > 0 {
            self.tasks.insert(task.task_id.clone(), waiting);
        }
        self.look_again = Instant::now();
    }

    /// Whether these tasks wait for nothing any more.
    pub(crate) fn is_over(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether a call that these tasks wait for is worked on here at the moment.
    pub(crate) fn is_at_work_for_own(&self) -> bool {
        self.at_work.len() > self.others.len()
    }

    /// Whether any call is worked on here at the moment.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether a call that these tasks do not wait for is worked on here at the moment.
    pub(crate) fn is_at_work_for_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// What the tasks wait for, as of the last look.
    pub(crate) fn waits(&self) -> &[OpenWait] {
        &self.waits
    }

    /// Edits that other commands had started, and that this process has worked on.
    pub(crate) fn of_others(&self) -> &HashSet<EditKey> {
        &self.of_others
    }

    /// Looks at the store, and begins what may be begun. Returns the tasks of which images were answered
    /// since the last look.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub(crate) async fn look(&mut self) -> Result<Vec<TaskRecord>, StoreError> {
        let began = Instant::now();
        // Before the question: what ends while it is asked may be open in the answer.
        self.over.clear();
        let mut ids: Vec<String> = self.tasks.keys().cloned().collect();
        ids.sort_unstable();
        self.waits = if ids.is_empty() { Vec::new() } else { self.app.store.open_waits(&ids).await? };
        self.begin();
        let mut open: HashMap<&str, usize> = HashMap::new();
        for wait in &self.waits {
            *open.entry(&wait.task_id).or_default() += 1;
        }
        let open_of = |id: &String| open.get(id.as_str()).copied().unwrap_or_default();
        let changed: Vec<(String, usize)> = ids
            .into_iter()
            .map(|id| (open_of(&id), id))
            .filter(|(open, id)| self.tasks.get(id) != Some(open))
            .map(|(open, id)| (id, open))
            .collect();
        let mut tasks = Vec::with_capacity(changed.len());
        for (id, open) in changed {
            let Some(task) = self.app.store.find_task(&id).await? else { continue };
            if task.status.has_ended() {
                self.tasks.remove(&id);
            } else {
                self.tasks.insert(id, open);
            }
            tasks.push(task);
        }
        self.look_again = Instant::now() + LOOK.max(began.elapsed() * 4);
        Ok(tasks)
    }

    /// Until it is worth looking again.
    pub(crate) async fn pause(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.look_again) => return,
                Some(ended) = self.running.join_next() => {
                    // One that panicked keeps its lease until that runs out.
                    if let Ok(ended) = ended {
                        self.ended(ended);
                    }
                    self.begin();
                    if self.running.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Begins what is free, as far as its lane has room in this process.
    fn begin(&mut self) {
        if self.app.shutdown.is_cancelled() {
            return;
        }
        let now = Instant::now();
        for wait in &self.waits {
            let key = wait.edit_key;
            let later = self.not_before.get(&key).is_some_and(|at| *at > now);
            if wait.leased || later || self.over.contains(&key) || self.at_work.contains(&key) {
                continue;
            }
            let place = (wait.lane.clone(), wait.is_sent());
            let most = if place.1 { SENT } else { self.app.lane_concurrency(&wait.lane).into() };
            let at_work = self.places.entry(place.clone()).or_default();
            if *at_work >= most {
                continue;
            }
            *at_work += 1;
            self.at_work.insert(key);
            // Started by an image of these tasks, it is no other command's, whichever task joined it.
            let own = |other: &OpenWait| other.edit_key == key && !other.joined;
            if wait.joined && !self.waits.iter().any(own) {
                self.of_others.insert(key);
            }
            self.running.spawn(perform(Arc::clone(&self.app), key, place));
        }
    }

    /// Carries on a call of this lane that none of these tasks waits for, if it is submitted and free.
    pub(crate) fn carry_on(&mut self, lane: &str, call: &SentCall) {
        let (key, place) = (call.edit_key, (lane.to_owned(), true));
        let later = self.not_before.get(&key).is_some_and(|at| *at > Instant::now());
        let at_work = self.places.entry(place.clone()).or_default();
        if later || *at_work >= SENT || self.app.shutdown.is_cancelled() || !self.at_work.insert(key) {
            return;
        }
        *at_work += 1;
        self.others.insert(key);
        let app = Arc::clone(&self.app);
        self.running.spawn(async move {
            let work = Box::pin(edit::carry_on_submitted(&app, key));
            let outcome = trace::within(trace::edit_span(), &Headers::new(), work).await;
            Ended { edit_key: key, place, outcome }
        });
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { edit_key, place, outcome } = ended;
        self.at_work.remove(&edit_key);
        self.others.remove(&edit_key);
        if let Some(at_work) = self.places.get_mut(&place) {
            *at_work = at_work.saturating_sub(1);
        }
        match outcome {
            Outcome::Delay { after, error } | Outcome::Rest { after, error } => {
                tracing::info!(%edit_key, ?after, error, "delayed");
                self.not_before.insert(edit_key, Instant::now() + after);
            }
            Outcome::Done | Outcome::HandBack | Outcome::Dead { .. } => {
                self.over.insert(edit_key);
            }
        }
    }
}

/// As if a message had come for it.
async fn perform(app: Arc<App>, edit_key: EditKey, place: Place) -> Ended {
    let message = Message::new(wake::payload(edit_key));
    let work = Box::pin(edit::handle(&app, &message));
    let outcome = trace::within(trace::edit_span(), &Headers::new(), work).await;
    Ended { edit_key, place, outcome }
}

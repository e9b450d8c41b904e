//! The provider's tasks: PENDING until the lane of their account and model has room, RUNNING for a while, then ended. No
//! timer drives them: the first reader processes everything that is due, in its order and with its due date.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use retouch_worker::media::MediaError;
use serde::{Deserialize, Serialize};

use super::answers::{Refusal, new_id};
use super::asked::{Asked, Identity, render};
use super::clock::delta;
use super::faults::OnTask;
use super::ledger::{Bill, Ledger};
use super::models::Model;
use super::settings::Settings;

/// An edit with its picture.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) asked: Asked,
    pub(super) input: Bytes,
    pub(super) mask: Option<Bytes>,
    pub(super) identity: Identity,
    /// The first picture that it makes, made at once: what cannot be decoded must fail as a task. Others are made when asked for.
    pub(super) first: Result<Bytes, MediaError>,
}

impl Edit {
    /// Costs the decoding and encoding of a picture.
    pub(super) fn new(asked: Asked, input: Bytes, mask: Option<Bytes>) -> Self {
        let asked = mask.iter().fold(asked, |asked, mask| asked.mask(mask));
        let identity = asked.identity(&input);
        let first = render(&input, &asked, 0).map(Bytes::from);
        Self { asked, input, mask, identity, first }
    }

    /// Its pictures, counting from 0.
    pub(super) fn made(&self, nth: usize) -> Result<Bytes, MediaError> {
        match nth {
            0 => self.first.clone(),
            _ => render(&self.input, &self.asked, nth).map(Bytes::from),
        }
    }
}

/// Work that may be accepted.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) account: String,
    pub(super) model: &'static Model,
    pub(super) kind: Kind,
    pub(super) edit: Arc<Edit>,
    pub(super) n: u64,
    /// Accepted, and then FAILED with this.
    pub(super) late: Option<Refusal>,
}

/// How the work is asked for, which also shapes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A task with `results`.
    Results,
    /// A task with `choices`.
    Choices,
    /// Answered when done. Known as a task to us alone.
    Call,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    Pending,
    Running,
    Succeeded,
    Failed,
    Canceled,
}

impl Status {
    pub(super) const fn ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    /// Of the request that created it.
    pub(super) request_id: String,
    pub(super) work: Submission,
    pub(super) fault: Option<OnTask>,
    pub(super) status: Status,
    pub(super) submitted: DateTime<Utc>,
    pub(super) started: Option<DateTime<Utc>>,
    /// When it will have ended, once it runs; `None` for one that never does.
    pub(super) due: Option<DateTime<Utc>>,
    pub(super) ended: Option<DateTime<Utc>>,
}

impl Task {
    /// What became of each picture: made, or failed.
    pub(super) fn pictures(&self) -> Vec<Result<(), Refusal>> {
        let n = usize::try_from(self.work.n).unwrap_or_default();
        let mut pictures = vec![Ok(()); n];
        match (self.status, &self.fault) {
            (Status::Failed, _) => pictures.clear(),
            (_, Some(OnTask::Partial(refusal))) if n == 1 => pictures.insert(0, Err(refusal.clone())),
            (_, Some(OnTask::Partial(refusal))) => pictures[0] = Err(refusal.clone()),
            (_, _) => {}
        }
        pictures
    }

    /// Why it failed.
    pub(super) fn failure(&self) -> Option<&Refusal> {
        match &self.fault {
            Some(OnTask::Fail(refusal)) => Some(refusal),
            _ => self.work.late.as_ref(),
        }
    }

    fn start(&mut self, at: DateTime<Utc>, settings: &Settings) {
        self.status = Status::Running;
        self.started = Some(at);
        self.due = match self.fault {
            Some(OnTask::Never) => None,
            Some(OnTask::Slow(time)) => Some(at + delta(time)),
            _ => Some(at + delta(settings.task_duration)),
        };
    }

    fn end(&mut self, at: DateTime<Utc>, ledger: &mut Ledger) {
        self.ended = Some(at);
        self.status = match self.fault {
            Some(OnTask::Cancel) => Status::Canceled,
            Some(OnTask::Fail(_)) => Status::Failed,
            _ if self.work.late.is_some() => Status::Failed,
            _ => Status::Succeeded,
        };
        if self.status == Status::Succeeded {
            let images = self.pictures().iter().filter(|picture| picture.is_ok()).count() as u64;
            let (task_id, model) = (self.id.clone(), self.work.model.name.to_owned());
            ledger.bills.push(Bill { at, task_id, model, identity: self.work.edit.identity, images });
        }
    }
}

/// The tasks of one account and model that have not ended.
#[derive(Debug, Default)]
struct Lane {
    pending: VecDeque<String>,
    running: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: HashMap<String, Task>,
    /// In order of submission.
    pub(super) ids: Vec<String>,
    lanes: HashMap<(String, &'static str), Lane>,
}

impl Tasks {
    pub(super) fn get(&self, id: &str) -> Option<&Task> {
        self.tasks.get(id)
    }

    pub(super) fn create(
        &mut self,
        work: Submission,
        fault: Option<OnTask>,
        at: DateTime<Utc>,
        settings: &Settings,
        ledger: &mut Ledger,
    ) -> String {
        self.settle(at, settings, ledger);
        let id = new_id();
        let name = work.model.name;
        let lane = self.lanes.entry((work.account.clone(), name)).or_default();
        let mut task = Task {
            id: id.clone(),
            request_id: new_id(),
            work,
            fault,
            status: Status::Pending,
            submitted: at,
            started: None,
            due: None,
            ended: None,
        };
        if task.work.kind == Kind::Call {
            task.start(at, settings);
            lane.running.push(id.clone());
        } else {
            lane.pending.push_back(id.clone());
        }
        self.tasks.insert(id.clone(), task);
        self.ids.push(id.clone());
        self.settle(at, settings, ledger);
        id
    }

    /// Cancels a PENDING task; `false` for any other.
    pub(super) fn cancel(&mut self, id: &str, at: DateTime<Utc>) -> bool {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.status == Status::Pending) else {
            return false;
        };
        task.status = Status::Canceled;
        task.ended = Some(at);
        let lane = self.lanes.entry((task.work.account.clone(), task.work.model.name)).or_default();
        lane.pending.retain(|pending| pending != id);
        true
    }

    /// Applies all changes that were due by `now`.
    pub(super) fn settle(&mut self, now: DateTime<Utc>, settings: &Settings, ledger: &mut Ledger) {
        for ((_, model), lane) in &mut self.lanes {
            let mut room_since = None;
            loop {
                lane.fill(&mut self.tasks, room_since, settings);
                let open = lane.pending.len() + lane.running.len();
                peak(&mut ledger.most_running, model, lane.running.len());
                peak(&mut ledger.most_open, model, open);
                let due = |id: &String| self.tasks[id].due;
                let next = (0..lane.running.len()).filter(|&at| due(&lane.running[at]).is_some());
                let Some(next) = next.min_by_key(|&at| due(&lane.running[at])) else { break };
                let Some(at) = due(&lane.running[next]).filter(|at| *at <= now) else { break };
                let id = lane.running.swap_remove(next);
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.end(at, ledger);
                }
                room_since = Some(at);
            }
        }
    }
}

impl Lane {
    /// Starts what waits while there is room.
    fn fill(&mut self, tasks: &mut HashMap<String, Task>, since: Option<DateTime<Utc>>, settings: &Settings) {
        while let Some(task) = self.pending.front().and_then(|id| tasks.get_mut(id)) {
            // A synchronous call takes no room.
            let calls = task.work.kind == Kind::Call;
            let most = settings.of(task.work.model).running;
            if !calls && most.is_some_and(|most| self.running.len() >= most) {
                return;
            }
            let submitted = task.submitted;
            task.start(since.map_or(submitted, |since| since.max(submitted)), settings);
            self.running.extend(self.pending.pop_front());
        }
    }
}

fn peak(peaks: &mut std::collections::BTreeMap<String, usize>, model: &str, now: usize) {
    match peaks.get_mut(model) {
        Some(peak) => *peak = now.max(*peak),
        None => {
            peaks.insert(model.to_owned(), now);
        }
    }
}

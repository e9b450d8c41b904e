//! The steps, as DESIGN section 6 and `worker/src/edit/` define them. A step of the store carries the name of
//! the store's function, and is one committed transaction.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use stateright::{Model, Property};

use super::promises;
use super::world::{At, Call, CallState, FREE, Left, MOST, Task, World};

/// The store's functions in the model.
pub(super) const FUNCTIONS: [&str; 18] = [
    "lookup",
    "register",
    "claim_call",
    "renew_lease",
    "begin_submit",
    "retract_submit",
    "record_submitted",
    "record_stored",
    "requeue_call",
    "hand_over_call",
    "count_ambiguous",
    "finish_edit",
    "fail_edit",
    "take_due_calls",
    "take_due_events",
    "event_sent",
    "cancel_task",
    "reopen_edits",
];

/// Tries of a call; eight in the program.
pub(super) const MAX_ATTEMPTS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Editor {
    /// The answer has the picture.
    Sync,
    /// The answer is an id to poll.
    Async,
    /// The same, and the provider has a list of accepted tasks. At most one submit of the lane is unresolved.
    List,
}

/// The policy for an ambiguous call that no list explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnAmbiguous {
    Retry,
    Hold,
}

impl OnAmbiguous {
    /// As in the program.
    pub(super) fn most_unanswered(self) -> u8 {
        match self {
            Self::Retry => 2,
            Self::Hold => 1,
        }
    }
}

/// Seeded mistakes for the checker to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seed {
    /// Intake's last cache lookup precedes the registration of its wait.
    CacheBeforeWait,
    /// The same, and it does not check the call again either.
    UnlockedWait,
    /// The old owner of a call still takes effect.
    NoFence,
    /// A requeued call keeps its old fence.
    OldFence,
    /// A submit does not check that an image still waits for it.
    SentForNobody,
    /// A new owner counts submits without an answer from 0.
    OwnerForgets,
    /// A later task queues a call as if it had never been sent.
    TaskForgets,
}

/// The model's configuration.
#[derive(Clone)]
pub(super) struct Protocol {
    pub(super) workers: usize,
    /// The edits that each task needs.
    pub(super) needs: &'static [&'static [usize]],
    pub(super) editor: Editor,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) left: Left,
    pub(super) seed: Option<Seed>,
    /// Treat workers as interchangeable: fewer states.
    pub(super) alike: bool,
    /// Which of [`FUNCTIONS`] took effect.
    pub(super) fired: Arc<[AtomicBool; FUNCTIONS.len()]>,
}

/// Answers of the outside world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Accepted,
    /// Accepted, and the answer was lost.
    AcceptedUnheard,
    /// Lost on its way; indistinguishable from the previous one.
    LostUnheard,
    NotSent,
    SlowDown,
    Rejected,
    /// The lane has no place for a long time.
    NoPlace,
    Finished,
    StillRunning,
    GaveUp,
    Forgotten,
    Listed(u8),
    NotListed,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A function of the store takes effect, and the worker is told; if not, an insisting worker tries once
    /// more.
    Store {
        function: &'static str,
        worker: usize,
        of: usize,
        unheard: bool,
    },
    /// An edit message is delivered, and the call claimed; `again`: the message comes once more.
    Claim {
        worker: usize,
        edit: usize,
        again: bool,
    },
    /// `take_due_calls`: the sweep finds the call and wakes it.
    Wake {
        edit: usize,
    },
    Outside {
        worker: usize,
        said: Said,
    },
    /// `cancel_task`: a task is cancelled, registered or not.
    Cancel {
        task: usize,
    },
    /// `reopen_edits`: a person retries a held call.
    Decide {
        edit: usize,
    },
    LeaseRunsOut {
        edit: usize,
    },
    MessageLost {
        edit: usize,
    },
    Crash {
        worker: usize,
    },
}

impl Protocol {
    /// All edits that some task needs.
    pub(super) fn edits(&self) -> std::ops::Range<usize> {
        0..self.needs.iter().flat_map(|needs| needs.iter()).max().map_or(0, |most| most + 1)
    }

    pub(super) fn tasks(&self) -> std::ops::Range<usize> {
        0..self.needs.len()
    }

    /// Whether nothing will happen without a fault.
    pub(super) fn rests(&self, world: &World) -> bool {
        let mut steps = Vec::new();
        self.work(world, &mut steps);
        steps.is_empty()
    }

    /// States reached by a step of work.
    pub(super) fn undisturbed(&self, world: &World) -> Vec<World> {
        let mut steps = Vec::new();
        self.work(world, &mut steps);
        steps.into_iter().filter_map(|step| self.next_state(world, step)).collect()
    }

    /// Steps that happen by themselves. Every step brings work nearer to its end: they alone never run in
    /// circles.
    fn work(&self, world: &World, steps: &mut Vec<Step>) {
        for edit in self.edits() {
            let call = &world.calls[edit];
            if call.wake && !world.messages[edit] {
                steps.push(Step::Wake { edit });
            }
            let mut workers = world.workers.iter();
            if call.leased && !workers.any(|worker| worker.fence && usize::from(worker.edit) == edit) {
                steps.push(Step::LeaseRunsOut { edit });
            }
        }
        let mut free = false;
        for (worker, state) in world.workers.iter().enumerate() {
            let of = usize::from(state.edit);
            let mut outside = |said| steps.push(Step::Outside { worker, said });
            match state.at {
                // They are all alike.
                At::Free if free => {}
                At::Free => {
                    free = true;
                    self.begin(world, worker, steps);
                }
                At::Send => outside(Said::Accepted),
                At::Poll { .. } => outside(Said::Finished),
                At::Doubt if self.editor == Editor::List => {
                    let unknown = listed(world, of);
                    unknown.iter().for_each(|job| outside(Said::Listed(*job)));
                    if unknown.is_empty() {
                        outside(Said::NotListed);
                    }
                }
                At::Begin if !self.has_place(world, of) => {}
                at => steps.push(Step::Store { function: function(at), worker, of, unheard: false }),
            }
            if state.fence && !world.calls[of].leased && !world.calls[of].state.is_over() {
                steps.push(Step::Store { function: "renew_lease", worker, of, unheard: false });
            }
        }
    }

    fn begin(&self, world: &World, worker: usize, steps: &mut Vec<Step>) {
        for task in self.tasks() {
            let state = &world.tasks[task];
            if !state.registered {
                steps.push(Step::Store { function: "lookup", worker, of: task, unheard: false });
            } else if state.due {
                steps.push(Step::Store { function: "take_due_events", worker, of: task, unheard: false });
            }
        }
        for edit in self.edits() {
            let call = &world.calls[edit];
            if world.messages[edit] && !call.leased && !call.state.is_over() {
                steps.push(Step::Claim { worker, edit, again: false });
            }
        }
    }

    /// Faults.
    fn trouble(&self, world: &World, steps: &mut Vec<Step>) {
        if world.left.cancels > 0 {
            let open = |task: &usize| !world.tasks[*task].ended && !world.tasks[*task].cancelled;
            steps.extend(self.tasks().filter(open).map(|task| Step::Cancel { task }));
        }
        for edit in self.edits() {
            let call = &world.calls[edit];
            if world.left.decisions > 0 && call.state == CallState::Failed && call.held {
                steps.push(Step::Decide { edit });
            }
            if world.messages[edit] {
                steps.push(Step::MessageLost { edit });
            }
            let mut workers = world.workers.iter();
            let owned = workers.any(|worker| worker.fence && usize::from(worker.edit) == edit);
            if world.left.stalls > 0 && owned && world.calls[edit].leased {
                steps.push(Step::LeaseRunsOut { edit });
            }
        }
        if let Some(worker) = world.workers.iter().position(|worker| worker.at == At::Free) {
            let mut claims = Vec::new();
            self.begin(world, worker, &mut claims);
            for step in claims {
                if let Step::Claim { worker, edit, .. } = step {
                    steps.push(Step::Claim { worker, edit, again: true });
                }
            }
        }
        for (worker, state) in world.workers.iter().enumerate() {
            if world.left.crashes > 0 && state.at != At::Free {
                steps.push(Step::Crash { worker });
            }
            if world.left.mishaps > 0 {
                self.mishaps(state.at, worker, usize::from(state.edit), steps);
            }
        }
    }

    fn mishaps(&self, at: At, worker: usize, of: usize, steps: &mut Vec<Step>) {
        let said: &[Said] = match at {
            At::Begin => &[Said::NoPlace],
            At::Send => {
                &[Said::AcceptedUnheard, Said::LostUnheard, Said::NotSent, Said::SlowDown, Said::Rejected]
            }
            // A list goes back as far as the ids do.
            At::Poll { .. } if self.editor == Editor::List => &[Said::StillRunning, Said::GaveUp],
            At::Poll { .. } => &[Said::StillRunning, Said::GaveUp, Said::Forgotten],
            _ => &[],
        };
        steps.extend(said.iter().map(|said| Step::Outside { worker, said: *said }));
        let insists = matches!(
            at,
            At::Accepted { .. }
                | At::Keep { .. }
                | At::Finish
                | At::Retract
                | At::Requeue { .. }
                | At::Fail { .. }
                | At::Refuse
        );
        if insists {
            steps.push(Step::Store { function: function(at), worker, of, unheard: true });
        }
    }

    /// With a list, a lane has one unresolved submit at most.
    fn has_place(&self, world: &World, edit: usize) -> bool {
        let unresolved = |other: usize| other != edit && world.calls[other].state.is_unresolved();
        self.editor != Editor::List || !self.edits().any(unresolved)
    }
}

/// The provider's list for an unresolved call: tasks accepted since it was sent, under an id that no call
/// has.
fn listed(world: &World, edit: usize) -> Vec<u8> {
    let known = |job: u8| world.calls.iter().any(|call| call.id == Some(job));
    let all = world.calls[edit].since..u8::try_from(world.jobs.len()).unwrap();
    all.filter(|job| !known(*job) && !world.jobs[usize::from(*job)].unbilled).collect()
}

/// The store's function that a worker in this state calls.
fn function(at: At) -> &'static str {
    match at {
        At::Intake { .. } => "register",
        At::Begin => "begin_submit",
        At::Accepted { .. } => "record_submitted",
        At::Keep { .. } => "record_stored",
        At::Finish => "finish_edit",
        At::Doubt | At::Again => "count_ambiguous",
        At::Retract => "retract_submit",
        At::Requeue { .. } => "requeue_call",
        At::HandOver => "hand_over_call",
        At::Fail { .. } | At::Refuse => "fail_edit",
        At::Tell { .. } => "event_sent",
        At::Free | At::Send | At::Poll { .. } => panic!("nothing is asked of the store at {at:?}"),
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            calls: [Call::default(); MOST],
            tasks: [Task::default(); MOST],
            cache: [None; MOST],
            messages: [false; MOST],
            workers: vec![FREE; self.workers],
            jobs: Vec::new(),
            left: self.left,
            paid_again: false,
            ended_by_a_stranger: false,
            sent_for_nobody: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.work(world, steps);
        self.trouble(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.apply(&mut next, step);
        if self.alike {
            next.workers.sort_unstable();
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}

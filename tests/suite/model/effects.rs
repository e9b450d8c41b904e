//! The effect of every step on the world. A step of the store is one committed transaction, guarded by the
//! fence and by the state of the call, like its statement.

use std::sync::atomic::Ordering;

use super::protocol::{Editor, FUNCTIONS, MAX_ATTEMPTS, Protocol, Said, Seed, Step};
use super::world::{At, Call, CallState, FREE, Image, Job, Task, Worker, World};

impl Protocol {
    /// Takes a step.
    pub(super) fn apply(&self, world: &mut World, step: Step) {
        match step {
            Step::Store { function, worker, of, unheard } => {
                world.left.mishaps -= u8::from(unheard);
                self.store(world, function, worker, of, unheard);
            }
            Step::Claim { worker, edit, again } => {
                world.messages[edit] = again;
                self.claim_call(world, worker, edit);
            }
            Step::Wake { edit } => {
                self.fired("take_due_calls");
                world.messages[edit] = true;
            }
            Step::Outside { worker, said } => self.outside(world, worker, said),
            Step::Cancel { task } => self.cancel_task(world, task),
            Step::Decide { edit } => self.reopen_edits(world, edit),
            Step::LeaseRunsOut { edit } => {
                let mut workers = world.workers.iter();
                let owned = workers.any(|worker| worker.fence && usize::from(worker.edit) == edit);
                world.left.stalls -= u8::from(owned);
                world.calls[edit].leased = false;
            }
            Step::MessageLost { edit } => world.messages[edit] = false,
            Step::Crash { worker } => {
                world.left.crashes -= 1;
                let died = std::mem::replace(&mut world.workers[worker], FREE);
                if !matches!(died.at, At::Intake { .. } | At::Tell { .. }) {
                    // Never acknowledged: delivered again.
                    world.messages[usize::from(died.edit)] = true;
                }
            }
        }
    }

    fn outside(&self, world: &mut World, worker: usize, said: Said) {
        let usual = matches!(said, Said::Accepted | Said::Finished | Said::Listed(_) | Said::NotListed);
        world.left.mishaps -= u8::from(!usual);
        let (at, of) = (world.workers[worker].at, world.workers[worker].edit);
        let edit = usize::from(of);
        let next_job = u8::try_from(world.jobs.len()).unwrap();
        let last_try = world.calls[edit].attempts + 1 >= MAX_ATTEMPTS;
        if matches!(said, Said::Accepted | Said::AcceptedUnheard) {
            let job = Job { edit: of, unbilled: false, forgotten: false, committed: false };
            world.jobs.push(job);
        }
        let polled = if let At::Poll { job } = at { job } else { 0 };
        world.workers[worker].at = match said {
            Said::Accepted if self.editor == Editor::Sync => At::Keep { job: next_job },
            Said::Accepted => At::Accepted { job: next_job },
            Said::AcceptedUnheard | Said::LostUnheard | Said::Forgotten => At::Doubt,
            Said::NotSent | Said::GaveUp if last_try => At::Fail { ambiguous: false },
            Said::NotSent | Said::GaveUp | Said::NotListed => At::Requeue { burns: true },
            Said::SlowDown => At::Retract,
            Said::Rejected => At::Fail { ambiguous: false },
            Said::NoPlace => At::Requeue { burns: false },
            Said::Finished => At::Keep { job: polled },
            Said::StillRunning => At::HandOver,
            Said::Listed(job) => At::Accepted { job },
        };
        match said {
            Said::GaveUp => world.jobs[usize::from(polled)].unbilled = true,
            Said::Forgotten => world.jobs[usize::from(polled)].forgotten = true,
            _ => {}
        }
    }

    fn fired(&self, function: &str) {
        let at = FUNCTIONS.iter().position(|name| *name == function).unwrap();
        self.fired[at].store(true, Ordering::Relaxed);
    }

    fn store(&self, world: &mut World, function: &'static str, worker: usize, of: usize, unheard: bool) {
        match function {
            "lookup" => {
                let bits = |is: &dyn Fn(usize) -> bool| {
                    self.needs[of].iter().filter(|edit| is(**edit)).fold(0, |bits, edit| bits | 1 << edit)
                };
                let seen = bits(&|edit| world.cache[edit].is_some());
                // Only a seeded mistake in intake relies on it.
                let unlocked = self.seed == Some(Seed::UnlockedWait);
                let alive = bits(&|edit| unlocked && !world.calls[edit].state.is_over());
                world.workers[worker].at = At::Intake { task: u8::try_from(of).unwrap(), seen, alive };
            }
            "register" => self.register(world, worker),
            "take_due_events" => world.workers[worker].at = At::Tell { tasks: 1 << of },
            "event_sent" => tell(world, worker),
            "renew_lease" => world.calls[of].leased = true,
            _ => {
                if !self.step(world, function, worker, of) {
                    // Another worker owns it now.
                    world.workers[worker] = FREE;
                    return;
                }
                if unheard {
                    return;
                }
                self.went_on(world, function, worker, of);
            }
        }
        self.fired(function);
    }

    fn register(&self, world: &mut World, worker: usize) {
        let At::Intake { task, seen, alive } = world.workers[worker].at else { return };
        world.workers[worker] = FREE;
        let task = usize::from(task);
        if world.tasks[task].registered {
            return;
        }
        let mut row = Task { registered: true, ..Task::default() };
        if world.tasks[task].cancelled {
            self.needs[task].iter().for_each(|edit| row.images[*edit] = Some(Image::Failed));
            (row.ended, row.due) = (true, true);
            world.tasks[task] = row;
            world.workers[worker].at = At::Tell { tasks: 1 << task };
            return;
        }
        for &edit in self.needs[task] {
            let call = &mut world.calls[edit];
            if seen & (1 << edit) != 0 {
                row.images[edit] = Some(Image::Hit);
                continue;
            }
            if call.state == CallState::Absent {
                call.state = CallState::Done;
            }
            if world.cache[edit].is_some()
                && !matches!(self.seed, Some(Seed::CacheBeforeWait | Seed::UnlockedWait))
            {
                row.images[edit] = Some(Image::Hit);
                continue;
            }
            let joined = match self.seed {
                Some(Seed::UnlockedWait) => alive & (1 << edit) != 0,
                _ => !call.state.is_over(),
            };
            row.images[edit] = Some(Image::Waiting { joined });
            row.waits[edit] = true;
            if !joined {
                let forgets = self.seed == Some(Seed::TaskForgets);
                let counted = Call {
                    possible_duplicates: call.possible_duplicates,
                    letters: call.letters,
                    unanswered: if forgets { 0 } else { call.unanswered },
                    held: call.held && !forgets,
                    ..Call::default()
                };
                *call = Call { state: CallState::Queued, wake: true, ..counted };
                world.messages[edit] = true;
                if self.seed != Some(Seed::OldFence) {
                    world.disown(edit);
                }
            }
        }
        row.ended = !row.waits.contains(&true);
        row.due = row.ended;
        world.tasks[task] = row;
        if row.ended {
            world.workers[worker].at = At::Tell { tasks: 1 << task };
        }
    }

    /// The cancel publishes no event: the sweep does.
    fn cancel_task(&self, world: &mut World, task: usize) {
        self.fired("cancel_task");
        world.left.cancels -= 1;
        if !world.tasks[task].registered {
            world.tasks[task].cancelled = true;
            return;
        }
        for edit in self.edits() {
            if !std::mem::take(&mut world.tasks[task].waits[edit]) {
                continue;
            }
            let image = world.tasks[task].images[edit].replace(Image::Failed);
            let paying = image == Some(Image::Waiting { joined: false });
            let next = world.tasks.iter_mut().find(|other| other.waits[edit]);
            match (next, world.calls[edit].state) {
                (Some(next), _) if paying => next.images[edit] = Some(Image::Waiting { joined: false }),
                (None, CallState::Queued | CallState::Claimed) => world.close_unwanted(edit),
                _ => {}
            }
        }
        let row = &mut world.tasks[task];
        (row.ended, row.due) = (true, true);
    }

    /// A person retries a call: the images that it failed wait again, and its submits are counted from 0.
    fn reopen_edits(&self, world: &mut World, edit: usize) {
        self.fired("reopen_edits");
        world.left.decisions -= 1;
        let mut joined = false;
        for task in &mut world.tasks {
            if task.images[edit] != Some(Image::Failed) {
                continue;
            }
            task.images[edit] = Some(Image::Waiting { joined });
            (task.waits[edit], task.ended, task.due, task.told) = (true, false, false, false);
            joined = true;
        }
        if !joined {
            return;
        }
        let call = &mut world.calls[edit];
        let counted = Call {
            possible_duplicates: call.possible_duplicates + 1,
            letters: call.letters,
            ..Call::default()
        };
        *call = Call { state: CallState::Queued, wake: true, ..counted };
        world.messages[edit] = true;
        world.disown(edit);
    }

    fn claim_call(&self, world: &mut World, worker: usize, edit: usize) {
        self.fired("claim_call");
        world.disown(edit);
        let call = &mut world.calls[edit];
        call.leased = true;
        call.wake = true;
        call.state = match call.state {
            CallState::Queued => CallState::Claimed,
            CallState::Submitting => CallState::Ambiguous,
            other => other,
        };
        if self.seed == Some(Seed::OwnerForgets) {
            call.unanswered = 0;
        }
        let refused = call.held || call.unanswered >= self.on_ambiguous.most_unanswered();
        let at = match (call.state, call.id) {
            (CallState::Claimed, _) if refused => At::Refuse,
            (CallState::Claimed, _) => At::Begin,
            (CallState::Submitted, Some(job)) => At::Poll { job },
            (CallState::Stored, _) => At::Finish,
            (CallState::Ambiguous, _) => At::Doubt,
            (state, id) => panic!("claimed as {state:?} with {id:?}"),
        };
        let edit = u8::try_from(edit).unwrap();
        world.workers[worker] = Worker { at, edit, fence: true };
    }

    /// A step of a call, guarded by its fence and its state. `false`: nothing was changed.
    fn step(&self, world: &mut World, function: &'static str, worker: usize, edit: usize) -> bool {
        use CallState::{Ambiguous, Claimed, Done, Failed, Queued, Stored, Submitted, Submitting};
        let (at, owned) = (world.workers[worker].at, world.workers[worker].fence);
        let state = world.calls[edit].state;
        let from: &[CallState] = match function {
            "begin_submit" => &[Claimed],
            "retract_submit" => &[Submitting],
            "record_submitted" => &[Submitting, Ambiguous],
            "record_stored" => &[Submitting, Submitted],
            "requeue_call" => &[Claimed, Submitting, Submitted, Ambiguous, Stored],
            "hand_over_call" => &[Submitted, Ambiguous, Stored],
            "count_ambiguous" => &[Submitting, Submitted, Ambiguous],
            "finish_edit" => &[Stored],
            "fail_edit" => &[Queued, Claimed, Submitting, Submitted, Ambiguous, Stored],
            other => panic!("{other} is no step of a call"),
        };
        if !from.contains(&state) || (!owned && self.seed != Some(Seed::NoFence)) {
            return false;
        }
        if function == "begin_submit" && !world.is_waited_for(edit) {
            if self.seed != Some(Seed::SentForNobody) {
                world.close_unwanted(edit);
                return false;
            }
            world.sent_for_nobody = true;
        }
        let books = u8::try_from(world.jobs.len()).unwrap();
        match (function, at) {
            ("begin_submit", _) => {
                let safe = |job: &Job| {
                    usize::from(job.edit) == edit && job.committed && !job.unbilled && !job.forgotten
                };
                world.paid_again |= world.cache[edit].is_some() || world.jobs.iter().any(safe);
                world.calls[edit].state = Submitting;
                world.calls[edit].unanswered += 1;
                world.calls[edit].since = if self.editor == Editor::List { books } else { 0 };
            }
            ("retract_submit", _) => {
                let call = &mut world.calls[edit];
                (call.state, call.unanswered) = (Claimed, call.unanswered.saturating_sub(1));
            }
            ("record_submitted", At::Accepted { job }) => {
                world.jobs[usize::from(job)].committed = true;
                let call = &mut world.calls[edit];
                (call.state, call.id) = (Submitted, Some(job));
                call.unanswered = call.unanswered.saturating_sub(1);
            }
            ("record_stored", At::Keep { job }) => {
                let job = &mut world.jobs[usize::from(job)];
                job.committed = true;
                let call = &mut world.calls[edit];
                call.unanswered = call.unanswered.saturating_sub(u8::from(state == Submitting));
                (call.state, call.result) = (Stored, Some(job.edit));
            }
            ("requeue_call", At::Requeue { burns }) => {
                // By the list it was certainly not accepted; there the program retracts it first.
                let answered = state == Submitting || (state == Ambiguous && self.editor == Editor::List);
                let call = &mut world.calls[edit];
                call.unanswered = call.unanswered.saturating_sub(u8::from(answered));
                (call.state, call.leased, call.wake) = (Queued, false, true);
                (call.id, call.since, call.result) = (None, 0, None);
                call.attempts += u8::from(burns);
                world.disown(edit);
            }
            ("hand_over_call", _) => {
                (world.calls[edit].leased, world.calls[edit].wake) = (false, true);
                world.disown(edit);
            }
            ("count_ambiguous", at) => {
                let call = &mut world.calls[edit];
                call.state = Ambiguous;
                call.unanswered += u8::from(state == Submitted);
                call.possible_duplicates += u8::from(at == At::Again);
            }
            ("finish_edit", _) => {
                world.cache[edit] = world.calls[edit].result;
                (world.calls[edit].unanswered, world.calls[edit].held) = (0, false);
                close(world, edit, Done);
            }
            ("fail_edit", At::Fail { ambiguous }) => {
                world.ended_by_a_stranger |= state == Queued;
                let call = &mut world.calls[edit];
                call.letters += u8::from(ambiguous);
                call.held |= ambiguous;
                call.unanswered = call.unanswered.saturating_sub(u8::from(state == Submitting));
                close(world, edit, Failed);
            }
            ("fail_edit", At::Refuse) => {
                world.calls[edit].held = true;
                close(world, edit, Failed);
            }
            (function, at) => panic!("{function} at {at:?}"),
        }
        true
    }

    /// The state of a worker after a step of its call that it was told of.
    fn went_on(&self, world: &mut World, function: &str, worker: usize, edit: usize) {
        let at = world.workers[worker].at;
        world.workers[worker].at = match (function, at) {
            ("begin_submit", _) => At::Send,
            ("retract_submit", _) => At::Begin,
            ("record_submitted", At::Accepted { job }) => At::Poll { job },
            ("record_stored", _) => At::Finish,
            ("count_ambiguous", At::Again) => At::Requeue { burns: true },
            ("count_ambiguous", _) => {
                let call = &world.calls[edit];
                let most = self.on_ambiguous.most_unanswered();
                let over = call.unanswered >= most || call.attempts + 1 >= MAX_ATTEMPTS;
                if over { At::Fail { ambiguous: true } } else { At::Again }
            }
            ("requeue_call" | "hand_over_call", _) => {
                world.messages[edit] = true;
                At::Free
            }
            _ => {
                let ended =
                    |task: &usize| world.tasks[*task].due && world.tasks[*task].images[edit].is_some();
                match self.tasks().filter(ended).fold(0, |bits, task| bits | 1 << task) {
                    0 => At::Free,
                    tasks => At::Tell { tasks },
                }
            }
        };
        if matches!(world.workers[worker].at, At::Free | At::Tell { .. }) {
            world.workers[worker].edit = 0;
            world.workers[worker].fence = false;
        }
    }
}

/// Fills in every image that waits, ends the tasks that have nothing left to wait for, closes the call.
fn close(world: &mut World, edit: usize, state: CallState) {
    use super::world::Image::{Failed, Joined, Paid, Waiting};
    for task in &mut world.tasks {
        if !std::mem::take(&mut task.waits[edit]) {
            continue;
        }
        task.images[edit] = match task.images[edit] {
            Some(Waiting { .. }) if state == CallState::Failed => Some(Failed),
            Some(Waiting { joined: true }) => Some(Joined),
            Some(Waiting { joined: false }) => Some(Paid),
            other => other,
        };
        if !task.images.iter().any(|image| matches!(image, Some(Waiting { .. }))) {
            (task.ended, task.due) = (true, true);
        }
    }
    let call = &mut world.calls[edit];
    (call.state, call.leased, call.wake) = (state, false, false);
}

/// The first of its events is published and confirmed, and `event_sent`.
fn tell(world: &mut World, worker: usize) {
    let At::Tell { tasks } = world.workers[worker].at else { return };
    let task = &mut world.tasks[tasks.trailing_zeros() as usize];
    (task.told, task.due) = (true, false);
    let rest = tasks & (tasks - 1);
    world.workers[worker].at = if rest == 0 { At::Free } else { At::Tell { tasks: rest } };
}

//! The state that the steps change: the rows of the store, the messages, the provider's books, and the state
//! of every worker.
//!
//! Time is not counted. A lease either runs or has expired; a fence is either current or not: growing numbers
//! would make every state a new one.

/// Edits and tasks are few, and the same in every state.
pub(super) const MOST: usize = 2;

/// As in the store; `Absent` where there is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum CallState {
    #[default]
    Absent,
    Queued,
    Claimed,
    Submitting,
    Submitted,
    Ambiguous,
    Stored,
    Done,
    Failed,
}

impl CallState {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Absent | Self::Done | Self::Failed)
    }

    /// It may have been paid, under an unknown id.
    pub(super) fn is_unresolved(self) -> bool {
        matches!(self, Self::Submitting | Self::Ambiguous)
    }
}

/// A row of `image_edit_calls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) state: CallState,
    /// The lease has not run out.
    pub(super) leased: bool,
    /// `wake_at` is set: the sweep looks after it.
    pub(super) wake: bool,
    pub(super) attempts: u8,
    /// `provider_task_id`, as a place in the provider's books.
    pub(super) id: Option<u8>,
    /// `submitted_at`, as the length of the provider's books at that time; used with the provider's list only.
    pub(super) since: u8,
    /// `result_hash`: the edit of the picture.
    pub(super) result: Option<u8>,
    pub(super) possible_duplicates: u8,
    /// Submits that were not answered.
    pub(super) unanswered: u8,
    /// Only a person retries it.
    pub(super) held: bool,
    /// Dead letters that say `ambiguous`.
    pub(super) letters: u8,
}

/// One image of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Image {
    Waiting { joined: bool },
    Hit,
    Joined,
    Paid,
    Failed,
}

/// A row of `image_edit_tasks`, with its waits. Its images are the edits that it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) registered: bool,
    /// A row of `cancels`: it was cancelled before it came.
    pub(super) cancelled: bool,
    pub(super) ended: bool,
    /// `event_due` is set.
    pub(super) due: bool,
    /// Its producer has had an event.
    pub(super) told: bool,
    pub(super) images: [Option<Image>; MOST],
    /// Rows of `image_edit_waits`.
    pub(super) waits: [bool; MOST],
}

/// One submit that the provider accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) edit: u8,
    /// It gave up, or the picture was refused: not charged.
    pub(super) unbilled: bool,
    /// It no longer knows the id.
    pub(super) forgotten: bool,
    /// Its id, or its picture, was once committed.
    pub(super) committed: bool,
}

/// The state of a worker: its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum At {
    Free,
    /// Has looked up the edits of a task: which were in the cache, and which calls were alive.
    Intake {
        task: u8,
        seen: u8,
        alive: u8,
    },
    /// Has claimed a call that is to be sent.
    Begin,
    /// Is about to send.
    Send,
    /// Has the provider's id in hand.
    Accepted {
        job: u8,
    },
    Poll {
        job: u8,
    },
    /// Has a result in our blobs.
    Keep {
        job: u8,
    },
    Finish,
    /// Does not know whether it was accepted.
    Doubt,
    /// Is about to send it once more all the same.
    Again,
    /// Has claimed a call that only a person may send again.
    Refuse,
    Retract,
    Requeue {
        burns: bool,
    },
    HandOver,
    Fail {
        ambiguous: bool,
    },
    /// Sends the events of these tasks.
    Tell {
        tasks: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Worker {
    pub(super) at: At,
    pub(super) edit: u8,
    /// Its fence is still the row's.
    pub(super) fence: bool,
}

pub(super) const FREE: Worker = Worker { at: At::Free, edit: 0, fence: false };

/// Remaining faults on this path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Left {
    /// Workers that die.
    pub(super) crashes: u8,
    /// Leases that run out although their worker lives.
    pub(super) stalls: u8,
    /// Failures of the provider, the lane, or the connection to the store.
    pub(super) mishaps: u8,
    /// Cancelled tasks.
    pub(super) cancels: u8,
    /// Retries by a person.
    pub(super) decisions: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) calls: [Call; MOST],
    pub(super) tasks: [Task; MOST],
    /// A row of `image_edit_cache`, and the edit of its picture.
    pub(super) cache: [Option<u8>; MOST],
    /// An edit message is on its way or in its queue.
    pub(super) messages: [bool; MOST],
    pub(super) workers: Vec<Worker>,
    pub(super) jobs: Vec<Job>,
    pub(super) left: Left,
    /// A call was begun although its result was safe.
    pub(super) paid_again: bool,
    /// A call was ended by a worker that did not own it.
    pub(super) ended_by_a_stranger: bool,
    /// A call was begun without a waiting image.
    pub(super) sent_for_nobody: bool,
}

impl World {
    /// Submits that the provider charges for.
    pub(super) fn charges(&self, edit: usize) -> usize {
        self.jobs.iter().filter(|job| usize::from(job.edit) == edit && !job.unbilled).count()
    }

    /// Charges, and those that may come any moment.
    pub(super) fn alive(&self, edit: usize) -> usize {
        let sending = |worker: &&Worker| worker.at == At::Send && usize::from(worker.edit) == edit;
        self.charges(edit) + self.workers.iter().filter(sending).count()
    }

    /// Possible duplicates counted by the store.
    pub(super) fn counted(&self, edit: usize) -> usize {
        usize::from(self.calls[edit].possible_duplicates + self.calls[edit].letters)
    }

    /// Whether an image waits for it.
    pub(super) fn is_waited_for(&self, edit: usize) -> bool {
        self.tasks.iter().any(|task| task.waits[edit])
    }

    /// queued or claimed → done, without a result.
    pub(super) fn close_unwanted(&mut self, edit: usize) {
        let call = &mut self.calls[edit];
        (call.state, call.leased, call.wake) = (CallState::Done, false, false);
        self.disown(edit);
    }

    /// The call's fence has grown: its previous owner has lost it.
    pub(super) fn disown(&mut self, edit: usize) {
        for worker in self.workers.iter_mut().filter(|worker| usize::from(worker.edit) == edit) {
            worker.fence = false;
        }
    }
}

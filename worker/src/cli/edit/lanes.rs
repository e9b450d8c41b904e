//! What keeps a command's own calls from being sent: its lane is closed, or the places of the lane are taken.
//!
//! What must stay true: nothing is sent for another command's task; a call that the provider has accepted is
//! carried on, for every command that started it, because that costs nothing; and a command does not wait
//! without end for calls that no process works on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use retouch_shared::key::EditKey;

use super::super::report::Stopped;
use super::left::other_processes;
use super::progress::{Progress, SILENCE, processes, seconds};
use crate::app::App;
use crate::broker::Queue;
use crate::outcome::origin;
use crate::perform::OwnCalls;
use crate::store::{
    CallState, ClosedBy, Closure, LaneView, OpenWait, ReplicaView, SentCall, UNANSWERED, Unfetched,
};
use crate::words::counted;

/// So long a person waits for a lane that may mend itself.
const BEARABLE: Duration = Duration::from_secs(60);

/// The lanes of a command, looked at now and then.
pub(super) struct Lanes {
    app: Arc<App>,
    /// Lanes that keep calls waiting, for each reason since when.
    since: HashMap<(String, Reason), Instant>,
    /// Lanes of which it was said that other commands' calls are carried on.
    named: HashSet<String>,
    /// Other commands' calls that are carried on here, or will be when their leases run out.
    carried_on: HashSet<EditKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reason {
    /// It is closed.
    Closed,
    /// Other processes work on the calls that hold its places.
    Busy,
    /// No process does.
    Stuck,
}

/// A lane, and what of it is under way.
struct Places<'a> {
    lane: &'a LaneView,
    sent: Vec<SentCall>,
    /// Calls that the command's own tasks wait for.
    own: HashSet<EditKey>,
    /// The other processes that live.
    others: Vec<ReplicaView>,
    app: &'a App,
}

impl Lanes {
    pub(super) fn new(app: &Arc<App>) -> Self {
        Self {
            app: Arc::clone(app),
            since: HashMap::new(),
            named: HashSet::new(),
            carried_on: HashSet::new(),
        }
    }

    /// Other commands' calls that were or will be carried on here.
    pub(super) fn carried_on(&self) -> usize {
        self.carried_on.len()
    }

    /// Carries on what keeps these calls waiting and costs nothing, says what they wait for, and returns why
    /// the command should end, if it should.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub(super) async fn look(
        &mut self,
        calls: &mut OwnCalls,
        progress: &mut Progress,
    ) -> Result<Option<Stopped>> {
        for lane in self.app.store.lanes().await? {
            let of_lane = |wait: &&OpenWait| wait.lane == lane.name;
            let unsent = calls.waits().iter().filter(of_lane).any(|wait| !wait.is_sent());
            let unfetched = calls.waits().iter().filter(of_lane).any(|wait| wait.unfetched.is_some());
            let by_fetch = lane.closed.as_ref().is_some_and(|closure| closure.by == ClosedBy::Fetch);
            // The end of the command will say it.
            if let Some(result) = lane.unfetched.as_ref().filter(|_| unfetched && !by_fetch) {
                progress.tell(format!("retouch: {}", result.notice()));
            }
            let open = lane.closed.is_none() && !lane.is_full() && !lane.policy.one_unresolved;
            if open || !(unsent || (unfetched && by_fetch)) {
                self.since.retain(|(name, _), _| *name != lane.name);
                continue;
            }
            let app = Arc::clone(&self.app);
            let places = Places {
                lane: &lane,
                sent: app.store.sent_calls(&lane.name).await?,
                own: calls.waits().iter().map(|wait| wait.edit_key).collect(),
                others: other_processes(&app).await?,
                app: &app,
            };
            let stopped = match &lane.closed {
                Some(closure) => self.closed(&places, closure, calls, progress),
                None => {
                    self.since.remove(&(lane.name.clone(), Reason::Closed));
                    self.taken(&places, calls, progress)
                }
            };
            if stopped.is_some() {
                return Ok(stopped);
            }
        }
        Ok(None)
    }

    /// A worker waits for a closed lane for ever; a person wants to know, and to mend it. Waits only for a
    /// lane that may mend itself, or where a call is under way that may find it open.
    fn closed(
        &mut self,
        places: &Places<'_>,
        closure: &Closure,
        calls: &mut OwnCalls,
        progress: &mut Progress,
    ) -> Option<Stopped> {
        let name = &places.lane.name;
        let (heals, next) = match (closure.by, closure.probe_in) {
            (ClosedBy::Pause, _) => (false, None),
            (ClosedBy::Fetch, _) => {
                let paid = places.sent.iter().filter(|call| call.ended && places.is_resumable(call));
                let paid: Vec<&SentCall> = paid.collect();
                let keep = ["has a result that blocks", "have results that block"];
                self.carry_on(places, &paid, keep, calls, progress);
                (false, None)
            }
            // A call is about to try, unless the lane has no place for it either.
            (ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Budget, None) => {
                return self.taken(places, calls, progress);
            }
            (ClosedBy::Budget, next) => (true, next),
            // What else a provider refuses, a person has to mend; the command that is started then tries at
            // once.
            (ClosedBy::Submit | ClosedBy::Poll, next) => (closure.code == UNANSWERED, next),
        };
        self.since.retain(|(of, reason), _| of != name || *reason == Reason::Closed);
        let (waited, new) = self.waited(name, Reason::Closed);
        if let Some(next) = next.filter(|next| heals && *next + waited <= BEARABLE) {
            if new {
                let (code, why) = (&closure.code, sentence(&closure.message));
                let next = seconds(next);
                progress.tell(format!("the lane {name} is blocked: {code}: {why}; next try in {next} s"));
            }
            return None;
        }
        let fetching = closure.by == ClosedBy::Fetch && calls.is_at_work_for_others();
        if fetching || places.sent.iter().any(|call| places.is_under_way(call)) {
            return None;
        }
        let message = match closure.by {
            ClosedBy::Fetch => self.refused_host(places.lane, closure),
            ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Budget | ClosedBy::Pause => refusal(name, closure),
        };
        Some(Stopped { lane: name.clone(), code: closure.code.clone(), message })
    }

    /// The lane is open, or may try, and has no place.
    fn taken(
        &mut self,
        places: &Places<'_>,
        calls: &mut OwnCalls,
        progress: &mut Progress,
    ) -> Option<Stopped> {
        let name = &places.lane.name;
        let holders = places.holders();
        let free: Vec<&SentCall> = holders.iter().copied().filter(|call| places.is_resumable(call)).collect();
        // The provider cannot say what became of some.
        if let Some(why) = places.lane.reason().filter(|_| places.lane.closed.is_none()) {
            progress.tell(format!("the lane {name}: {why}"));
        }
        let moves = |call: &&SentCall| places.own.contains(&call.edit_key) || places.is_attended(call);
        let moves = !free.is_empty() || holders.iter().any(moves);
        self.carry_on(places, &free, ["holds a place of", "hold places of"], calls, progress);
        let elsewhere = |call: &&SentCall| places.is_anothers(call);
        if !holders.is_empty() && holders.iter().all(elsewhere) {
            if self.waited(name, Reason::Busy).0 >= SILENCE {
                let owners = holders.iter().filter_map(|call| call.owner.as_deref());
                let owners = processes(owners);
                progress.tell(format!("the places of the lane {name} are all in use by {owners}"));
            }
        } else {
            self.since.remove(&(name.clone(), Reason::Busy));
        }
        let at_work =
            |wait: &OpenWait| wait.is_sent() && wait.owner.as_deref() == Some(places.app.owner.as_str());
        if holders.is_empty() || moves || places.is_served() || calls.waits().iter().any(at_work) {
            self.since.remove(&(name.clone(), Reason::Stuck));
            return None;
        }
        let patience = self.app.settings.rhythm.patience;
        let (waited, new) = self.waited(name, Reason::Stuck);
        if new {
            let (held, wait) = (places.held(&holders), seconds(patience));
            progress.tell(format!("the lane {name} takes no calls: {held}; waiting {wait} s for a place"));
        }
        (waited >= patience).then(|| Stopped {
            lane: name.clone(),
            code: "places_taken".to_owned(),
            message: format!(
                "the lane {name} takes no calls: {}. Nothing is lost: `retouch worker` settles them \
                 (RETOUCH_ON_AMBIGUOUS decides whether one is sent once more), and the same command then goes on",
                places.held(&holders)
            ),
        })
    }

    /// Polls these calls of other commands on, once their leases allow it; says so once for each lane.
    fn carry_on(
        &mut self,
        places: &Places<'_>,
        others: &[&SentCall],
        keep: [&str; 2],
        calls: &mut OwnCalls,
        progress: &mut Progress,
    ) {
        let name = &places.lane.name;
        self.carried_on.extend(others.iter().map(|call| call.edit_key));
        for call in others.iter().filter(|call| call.owner.is_none()) {
            calls.carry_on(name, call);
        }
        if others.is_empty() || !self.named.insert(name.clone()) {
            return;
        }
        let (edits, keep) = (counted(others.len() as u64, "edit"), keep[usize::from(others.len() > 1)]);
        let leased =
            others.iter().filter(|call| call.owner.as_deref().is_some_and(|owner| owner != places.app.owner));
        let from = leased.map(|call| call.lease_left).max().map_or_else(String::new, |left| {
            format!(", when the leases of the process that died run out (in {} s at most)", seconds(left))
        });
        progress.tell(format!(
            "{edits} of earlier commands {keep} the lane {name}: carried on first{from}, which costs nothing more"
        ));
    }

    /// How long a lane has kept calls waiting for this reason, and whether that is new.
    fn waited(&mut self, lane: &str, reason: Reason) -> (Duration, bool) {
        let mut new = false;
        let since = self.since.entry((lane.to_owned(), reason)).or_insert_with(|| {
            new = true;
            Instant::now()
        });
        (since.elapsed(), new)
    }

    /// What a person with one command does about results on a host that is not allowed.
    fn refused_host(&self, lane: &LaneView, closure: &Closure) -> String {
        let (name, code) = (&lane.name, &closure.code);
        let Some(result) = &lane.unfetched else { return refusal(name, closure) };
        let advice = match result.setting() {
            Some(Unfetched::ALLOW_HOSTS) if self.app.settings.allow_hosts == Default::default() => {
                format!("set {}={}", Unfetched::ALLOW_HOSTS, result.host)
            }
            Some(Unfetched::ALLOW_HOSTS) => format!("add {} to {}", result.host, Unfetched::ALLOW_HOSTS),
            Some(_) | None => "mend that".to_owned(),
        };
        let why = if result.setting() == Some(Unfetched::ALLOW_HOSTS) { result.why() } else { &result.error };
        format!(
            "the lane {name} takes no calls: {code}: {why}. Nothing is lost: {advice} and run the same command again: what \
             is paid for is fetched, and costs nothing more"
        )
    }
}

impl Places<'_> {
    /// A living process works on it, this one included.
    fn is_attended(&self, call: &SentCall) -> bool {
        call.owner.as_deref() == Some(self.app.owner.as_str()) || self.is_anothers(call)
    }

    /// At the provider, for this command or another living process.
    fn is_under_way(&self, call: &SentCall) -> bool {
        let own = self.own.contains(&call.edit_key) && call.owner.as_deref() == Some(self.app.owner.as_str());
        !call.ended && (own || self.is_anothers(call))
    }

    fn is_anothers(&self, call: &SentCall) -> bool {
        let owner = call.owner.as_deref();
        self.others.iter().any(|replica| Some(replica.report.owner.as_str()) == owner)
    }

    /// Another command's call that can be polled on here, now or when its lease runs out.
    fn is_resumable(&self, call: &SentCall) -> bool {
        let known = self.app.editors.contains_key(call.provider.as_str());
        let submitted = call.state == CallState::Submitted && call.has_id && known;
        submitted && !self.own.contains(&call.edit_key) && !self.is_anothers(call)
    }

    /// What keeps the lane from taking a call.
    fn holders(&self) -> Vec<&SentCall> {
        // One call that finds out whether it is open needs no place.
        let full = self.lane.is_full() && !self.lane.may_try();
        let holds = |call: &&SentCall| match call.state {
            CallState::Submitting | CallState::Ambiguous => full || self.lane.policy.one_unresolved,
            _ => full && !call.ended,
        };
        self.sent.iter().filter(holds).collect()
    }

    /// A worker lives whose sweep comes to all of them.
    fn is_served(&self) -> bool {
        let queue = origin(&Queue::Edits { lane: self.lane.name.clone() });
        let consumes = |replica: &ReplicaView| {
            let queues = replica.report.doing["queues"].as_array();
            queues.is_some_and(|queues| queues.iter().any(|known| *known == queue.as_str()))
        };
        self.others.iter().any(consumes)
    }

    /// Who holds what, where no process works on it.
    fn held(&self, holders: &[&SentCall]) -> String {
        let of = self.lane.policy.max_in_flight.map_or_else(String::new, |most| format!(" of {most}"));
        let tasks: BTreeSet<&str> = holders.iter().flat_map(|call| &call.tasks).map(String::as_str).collect();
        let tasks = match tasks.len() {
            0 => "cancelled tasks".to_owned(),
            1 => format!("task {}", tasks.into_iter().collect::<String>()),
            _ => format!("tasks {}", tasks.into_iter().collect::<Vec<_>>().join(" ")),
        };
        let places = holders.len();
        let are = if places == 1 { "is" } else { "are" };
        format!(
            "{places}{of} places {are} held by edits that may have been sent, and that no process works on ({tasks})"
        )
    }
}

/// Why a lane takes no calls, and what helps.
fn refusal(name: &str, closure: &Closure) -> String {
    let (code, why) = (&closure.code, sentence(&closure.message));
    let next = closure.probe_in.map_or_else(String::new, |next| format!("; next try in {} s", seconds(next)));
    let resume = format!("`retouch lanes resume {name}`");
    match closure.by {
        ClosedBy::Pause => format!(
            "the lane {name} is paused by a person. Nothing is lost: {resume} lets it go on, and then the same command does"
        ),
        ClosedBy::Budget => format!(
            "the lane {name} takes no calls: {code}: {why}{next}. Nothing is lost: the same command goes on then"
        ),
        ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Fetch => format!(
            "the lane {name} takes no calls: {code}: {why}{next}. Nothing is lost: once that is mended, the same command goes \
             on; {resume} lets the lane try at once"
        ),
    }
}

/// Without its full stop.
fn sentence(message: &str) -> &str {
    message.trim_end_matches('.')
}

//! A submit that was sent, and of which nobody knows what became: looked up in the provider's list where that makes the answer
//! certain (docs/decisions/0007), otherwise left to the policy. Never blindly again.
//!
//! What must stay true: the list is read before what we know of it; a call is taken for certainly not accepted only by a
//! list that must have it; and any doubt ends in the policy, never in a guess.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{FutureExt, TryFutureExt};

use super::submit::MAX_ATTEMPTS;
use super::{Age, HOLD, RETRY, Stop, Work, clipped, lost};
use crate::delay::Backoff;
use crate::editor::{AGE_ERROR, EditError, Listed, ListedTask};
use crate::lanes::wished;
use crate::metrics::count;
use crate::outcome::{Outcome, rung};
use crate::store::{CallState, ClosedBy, Unexplained};

/// Between two looks at a list that does not have the task yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A provider that refuses to be asked (a key that was revoked) is asked again after this, by whoever comes next.
const REFUSED: Duration = Duration::from_secs(5);

/// When it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    /// When it began.
    pub(super) began: Age,
    /// When it was over, without an answer; not known where its worker died.
    pub(super) over: Option<Age>,
}

/// What a list says of one submit.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing that could be it.
    None,
    /// This, and nothing else could be it.
    One(String),
    /// What is nobody's is more than one thing, or came at another time than the submit.
    Doubt(BTreeSet<String>),
}

/// `nobodys` is what no call accounts for, which is this call's or somebody else's. Only a single task of the right time is
/// taken: what was created earlier or later shows that somebody else is about, or that a clock is not what it seems.
fn judge(
    listed: &[ListedTask],
    nobodys: BTreeSet<String>,
    began: Duration,
    over: Option<Duration>,
) -> Verdict {
    let mut meant = listed.iter().filter(|task| nobodys.contains(&task.provider_task_id));
    let (first, second) = (meant.next(), meant.next());
    let Some(task) = first else { return Verdict::None };
    let earliest = began + AGE_ERROR;
    let latest = over.unwrap_or_default().saturating_sub(AGE_ERROR);
    let in_time = task.age.is_some_and(|age| (latest..=earliest).contains(&age));
    if second.is_none() && in_time {
        return Verdict::One(task.provider_task_id.clone());
    }
    Verdict::Doubt(nobodys)
}

/// What asking the provider once has come to.
enum Asked {
    /// It cannot be asked, or its answer is no answer.
    Unknown(BTreeSet<String>),
    Accepted(String),
    NotAccepted,
    /// To be asked again.
    NotYet {
        pause: Duration,
        why: String,
    },
    /// This delivery is done with it.
    End(Outcome),
}

impl Work<'_> {
    /// Whether the provider's list is asked, and at most one submit of the lane is unresolved.
    fn looks_up(&self) -> bool {
        self.app.lane_limits(&self.call.spec.lane).one_unresolved
    }

    /// A call that its last owner left ambiguous, or while it was sending.
    pub(super) async fn resolve_left(&self) -> Result<Outcome, Stop> {
        let why = "the worker died while it was sending";
        // What had an id was accepted, and lost later: no list says more. What has no time of a send any more is counted, and
        // decided to be sent again: its last owner died before it was back in the queue.
        if self.call.provider_task_id.is_some() || self.call.since_submit.is_zero() {
            return self.by_policy(why).await;
        }
        let began = Age::new(self.call.since_submit);
        Box::pin(self.resolve(why, Sending { began, over: None })).await
    }

    /// Sent, and nobody knows whether it was accepted.
    pub(super) async fn resolve(&self, why: &str, sending: Sending) -> Result<Outcome, Stop> {
        self.app.bill.unanswered(self.call.lease.edit_key);
        if !self.looks_up() {
            return self.by_policy(why).await;
        }
        let why = clipped(why);
        tracing::warn!(why, "ambiguous; asking the provider");
        // Whoever comes next, if this takes too long or we die, asks on.
        let (store, lease) = (&self.app.store, self.call.lease);
        let noted = self
            .insist(|| store.count_ambiguous(lease, false, why).map_err(|error| error.to_string()).boxed());
        if noted.await?.is_none() {
            return Ok(lost());
        }
        self.count(false);
        let asking = Instant::now();
        let mut backoff = Backoff::new(RETRY);
        loop {
            let (pause, error) = match self.ask(sending, asking, &mut backoff).await? {
                Asked::Accepted(id) => return self.accepted_after_all(&id, sending).await,
                Asked::NotAccepted => return self.not_accepted_after_all(why).await,
                Asked::Unknown(nobodys) => return self.doubtful(why, &nobodys).await,
                Asked::End(outcome) => return Ok(outcome),
                Asked::NotYet { pause, why } => (pause, why),
            };
            if asking.elapsed() + pause > HOLD {
                return self.by_policy(&format!("{why}; and then: {error}")).await;
            }
            tokio::select! {
                () = self.app.shutdown.cancelled() => return Ok(self.hand_over(Some(why), Duration::ZERO).await),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn ask(&self, sending: Sending, asking: Instant, backoff: &mut Backoff) -> Result<Asked, Stop> {
        let began = sending.began.now();
        let over = sending.over.map(Age::now);
        let looked = asking.elapsed();
        let listed = match self.editor.list_submitted(&self.call.spec.model, began).await {
            Ok(None) => return Ok(Asked::Unknown(BTreeSet::new())),
            Ok(Some(listed)) => listed,
            Err(error) => return self.ask_failed(error, backoff).await,
        };
        if self.gate.was_closed() {
            self.reopen(true).await;
        }
        self.heard().await;
        let Listed { tasks, settles } = listed;
        let ids: Vec<String> = tasks.iter().map(|task| task.provider_task_id.clone()).collect();
        let (lease, lane) = (self.call.lease, &self.call.spec.lane);
        let nobodys = match self.app.store.unexplained(lease, lane, &ids).await {
            Ok(Unexplained::These(nobodys)) => nobodys,
            Ok(Unexplained::NotAlone) => {
                let why = "another submit of this lane is not resolved either".to_owned();
                return Ok(Asked::NotYet { pause: LOOK_AGAIN, why });
            }
            Err(error) => {
                return Ok(Asked::NotYet { pause: backoff.next_delay(), why: error.to_string() });
            }
        };
        Ok(match judge(&tasks, nobodys, began, over) {
            Verdict::One(id) => Asked::Accepted(id),
            Verdict::None if looked >= settles => Asked::NotAccepted,
            Verdict::None => Asked::NotYet {
                pause: LOOK_AGAIN.min(settles),
                why: "the provider lists no such task".to_owned(),
            },
            Verdict::Doubt(nobodys) => Asked::Unknown(nobodys),
        })
    }

    async fn ask_failed(&self, error: EditError, backoff: &mut Backoff) -> Result<Asked, Stop> {
        let text = error.to_string();
        tracing::info!(error = text, "the provider's list could not be had");
        Ok(match error {
            EditError::Blocked { code, message } => {
                self.block(ClosedBy::Poll, &code, &message, 0).await;
                Asked::End(self.hand_over(Some(&text), REFUSED).await)
            }
            EditError::RateLimited { retry_after: Some(after), .. } => {
                Asked::NotYet { pause: wished(after), why: text }
            }
            EditError::RateLimited { retry_after: None, .. }
            | EditError::NotSent(_)
            | EditError::Unavailable(_)
            | EditError::Ambiguous(_)
            | EditError::Unreadable(_)
            | EditError::Unbilled { .. } => {
                self.unheard(&text).await;
                Asked::NotYet { pause: backoff.next_delay(), why: text }
            }
            EditError::Rejected { .. } => Asked::Unknown(BTreeSet::new()),
        })
    }

    /// ambiguous → submitted, as if the answer had come.
    async fn accepted_after_all(&self, id: &str, sending: Sending) -> Result<Outcome, Stop> {
        tracing::info!(provider_task_id = id, "it was accepted; going on with it");
        self.record_submitted(id).await?;
        self.app.bill.accepted_after_all(&self.call);
        // Whatever the lane thought: its account and model work.
        self.reopen(false).await;
        Box::pin(self.poll(id, sending.began)).await
    }

    /// Nothing was paid, so nothing may be paid twice.
    async fn not_accepted_after_all(&self, why: &str) -> Result<Outcome, Stop> {
        tracing::info!("it was not accepted");
        self.retract().await?;
        let attempts = self.call.attempts;
        if attempts + 1 >= MAX_ATTEMPTS {
            let text = format!("given up after {MAX_ATTEMPTS} attempts: {why}");
            return Ok(self.fail("unavailable", &text, false).await);
        }
        Ok(self.again(true, why, rung(attempts)).await)
    }

    async fn doubtful(&self, why: &str, nobodys: &BTreeSet<String>) -> Result<Outcome, Stop> {
        if !nobodys.is_empty() {
            tracing::error!(
                tasks = nobodys.len(),
                "the provider has tasks of this time that are nobody's: does somebody else submit with this account?"
            );
        }
        let outcome = self.by_policy(why).await?;
        // After the policy has taken its course: with these accounted for before, whoever came after a crash would take the
        // call for certainly not accepted. Later submits need not stumble over them.
        if !nobodys.is_empty()
            && let Err(error) = self.app.store.explain(nobodys).await
        {
            tracing::warn!(%error, "tasks that are nobody's stay so, and may raise doubt for a minute");
        }
        Ok(outcome)
    }

    /// Commits that it is ambiguous, and whether it is about to be sent once more. Returns how many of its
    /// submits have no answer; `None`: the lease was lost.
    async fn note(&self, duplicate: bool, why: &str) -> Result<Option<u32>, Stop> {
        let noted = self.step(self.app.store.count_ambiguous(self.call.lease, duplicate, why)).await?;
        if noted.is_some() {
            self.count(duplicate);
        }
        Ok(noted)
    }

    /// For metrics: once for each time that it was sent, as the store does.
    fn count(&self, duplicate: bool) {
        let lane = &self.call.spec.lane;
        // Its last owner counted it, and died before it was back in the queue.
        let counted = self.call.state == CallState::Ambiguous && self.call.since_submit.is_zero();
        if !counted && !self.noted.swap(true, Ordering::Relaxed) {
            count::ambiguous(lane);
        }
        if duplicate && !counted {
            count::possible_duplicate(lane, &self.call.spec.model, &self.call.spec.price);
        }
    }

    /// `RETOUCH_ON_AMBIGUOUS`: once more at most over all owners, then a person decides. What costs
    /// nothing cannot be paid twice, and is sent as often as any other.
    pub(super) async fn by_policy(&self, why: &str) -> Result<Outcome, Stop> {
        let why = clipped(why);
        self.app.bill.unanswered(self.call.lease.edit_key);
        let (free, policy) = (self.is_free(), self.app.settings.on_ambiguous);
        tracing::warn!(why, free, ?policy, "ambiguous");
        let Some(sent) = self.note(false, why).await? else { return Ok(lost()) };
        if !free && sent >= policy.most_unanswered() {
            let times = if sent > 1 { format!("{sent} times") } else { "once".to_owned() };
            let message = format!(
                "sent {times} and not answered, so it may have been paid: {why}; look at the provider's account: only a person's \
                 `retouch dead retry` sends it again, and may pay it again"
            );
            return Ok(self.fail("ambiguous", &message, true).await);
        }
        if self.call.attempts + 1 >= MAX_ATTEMPTS {
            let text = format!("given up after {MAX_ATTEMPTS} attempts: {why}");
            return Ok(self.fail("ambiguous", &text, true).await);
        }
        if self.note(!free, why).await?.is_none() {
            return Ok(lost());
        }
        Ok(self.again(true, why, Duration::from_secs(1)).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// `age` before the name of each task in seconds; none for one without; `k` is known.
    fn verdict(tasks: &[(&str, Option<u64>)], began: u64, over: Option<u64>) -> Verdict {
        let listed: Vec<_> = tasks
            .iter()
            .map(|(id, age)| ListedTask { provider_task_id: (*id).to_owned(), age: age.map(seconds) })
            .collect();
        let nobodys = tasks.iter().map(|(id, _)| (*id).to_owned()).filter(|id| id != "k").collect();
        judge(&listed, nobodys, seconds(began), over.map(seconds))
    }

    #[test]
    fn only_a_single_task_of_the_right_time_that_is_nobodys_is_taken() {
        let one = || Verdict::One("a".to_owned());
        let none = || Verdict::None;
        let doubt = |ids: &[&str]| Verdict::Doubt(ids.iter().map(|id| (*id).to_owned()).collect());
        for (what, tasks, over, expected) in [
            ("nothing", &[][..], Some(20), none()),
            ("what is known", &[("k", Some(21))], Some(20), none()),
            ("one", &[("a", Some(25))], Some(20), one()),
            ("one beside what is known", &[("k", Some(25)), ("a", Some(25))], Some(20), one()),
            ("at the first moment", &[("a", Some(33))], Some(20), one()),
            ("earlier", &[("a", Some(34))], Some(20), doubt(&["a"])),
            ("at the last moment", &[("a", Some(17))], Some(20), one()),
            ("later", &[("a", Some(16))], Some(20), doubt(&["a"])),
            ("whenever its worker may have died", &[("a", Some(0))], None, one()),
            ("nobody knows when", &[("a", None)], Some(20), doubt(&["a"])),
            ("two", &[("a", Some(25)), ("b", Some(25))], Some(20), doubt(&["a", "b"])),
            ("one and an earlier one", &[("a", Some(25)), ("b", Some(50))], Some(20), doubt(&["a", "b"])),
        ] {
            assert_eq!(verdict(tasks, 30, over), expected, "{what}");
        }
    }
}

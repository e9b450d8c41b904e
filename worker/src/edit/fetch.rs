//! Fetching a paid result: from the provider's temporary address past the guard, for as long as the provider
//! keeps it.
//!
//! What must stay true: the provider's work has ended, so a result that is not at hand at once takes no place
//! on its lane, here or in the store; and while it cannot be had, the lane says why.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::{Age, HOLD, Stop, Work};
use crate::editor::ResultUrl;
use crate::failpoint::around;
use crate::media;
use crate::outcome::Outcome;
use crate::sources::fetch::FetchError;
use crate::sources::fetch::result::{ResultError, ResultFile};
use crate::store::{ClosedBy, Closure};

use super::keep::Taken;

/// A result that is not at hand after this is fetched beside the lane's places.
const MOMENT: Duration = Duration::from_secs(2);
/// What a setting decides is asked for again this often; a worker that starts asks at once.
const SETTING_DECIDES: Duration = Duration::from_secs(10 * 60);
/// A picture that cannot be decoded is fetched so often before it is kept as it came: a transfer can be cut.
const DAMAGED_FETCHES: u32 = 4;
const DAMAGED_PAUSE: Duration = Duration::from_millis(500);

/// How a try to fetch a result went.
pub(super) type Fetched = Result<ResultFile, Trouble>;

/// Why a result is not at hand.
#[derive(Debug)]
pub(super) struct Trouble {
    host: String,
    /// For people; never the address, which may be signed.
    error: String,
    next: Next,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Asking again.
    Again,
    /// Asking again, for a result that is new; where it was lost before, its host says that it is gone.
    Gone,
    /// Asking again, however late: it is our own blob store that cannot take the result.
    OwnStore,
    /// A setting that says where results may be: the next ones will be there too.
    AllowHost,
    /// A setting that says how large results may be.
    AllowSize,
}

impl Work<'_> {
    /// Fetches a result, beside the lane's places if that takes more than a moment.
    pub(super) async fn fetch_off_the_lane(
        &self,
        from: &ResultUrl,
        fetching: impl Future<Output = Result<Taken, Stop>>,
    ) -> Result<Taken, Stop> {
        let mut fetching = pin!(fetching);
        if let Ok(done) = tokio::time::timeout(MOMENT, &mut fetching).await {
            return done;
        }
        if !self.unfetched.load(Ordering::Relaxed) {
            let slow = format!("it has not been delivered within {MOMENT:?}; it is waited for");
            self.note_unfetched(&Trouble { host: host_of(from), error: slow, next: Next::Again }).await;
        }
        if !self.leave_delivery() {
            let why = "as many results of the lane are being fetched as may be";
            return Err(self.hand_over(Some(why), MOMENT).await);
        }
        fetching.await
    }

    /// `first` is how the first try went, where it was made already. Never submits again: it is paid for.
    pub(super) async fn fetch(
        &self,
        from: &ResultUrl,
        age: Age,
        mut first: Option<Fetched>,
    ) -> Result<Taken, Stop> {
        let mut damaged = 0;
        loop {
            let fetched = match first.take() {
                Some(fetched) => fetched,
                None => self.fetch_once(from).await,
            };
            let trouble = match fetched {
                Err(trouble) if self.is_gone(&trouble, from, age) => {
                    return Err(self.paid_result_is_gone(&trouble.error).await);
                }
                Err(trouble) if age.now() >= from.lives && trouble.next != Next::OwnStore => {
                    let message = format!("the provider's result cannot be had: {}", trouble.error);
                    return Err(self.fail("result_lost", &message, true).await);
                }
                Err(trouble) => trouble,
                Ok(file) => match media::identify(file.received.head()) {
                    Some(kind) => {
                        let taken = self.taken(file, kind).await;
                        damaged += 1;
                        if taken.check.is_none() || damaged == DAMAGED_FETCHES {
                            self.fetched().await;
                            return Ok(taken);
                        }
                        tracing::warn!(error = taken.check, "the result is damaged; fetching it again");
                        self.app.blobs.discard_received(taken.file.received).await;
                        tokio::time::sleep(DAMAGED_PAUSE).await;
                        continue;
                    }
                    None if age.now() >= from.lives.min(self.app.settings.rhythm.result_doubt) => {
                        self.fetched().await;
                        return Err(self.keep_unusable(file).await);
                    }
                    None => self.no_picture(from, file).await,
                },
            };
            self.wait_to_fetch_again(from, age, &trouble).await?;
        }
    }

    /// One try.
    pub(super) async fn fetch_once(&self, from: &ResultUrl) -> Fetched {
        let hosts = self.editor.result_hosts();
        let most = self.app.settings.rhythm.result_max;
        let fetched = self.app.results.fetch_result(&from.url, &hosts, most, &self.app.blobs);
        let error = match around("fetch_result", fetched).await {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let text = error.to_string();
        Err(match error {
            ResultError::Blobs(_) => Trouble { host: host_of(from), error: text, next: Next::OwnStore },
            ResultError::Fetch(error) => {
                let host = error.host().map_or_else(|| host_of(from), str::to_owned);
                let (error, next) = match error {
                    FetchError::ForeignHost { .. } => {
                        let section = self.editor.kind();
                        let fix = format!("{text}; add it to result_hosts in [editors.{section}]");
                        (fix, Next::AllowHost)
                    }
                    FetchError::PrivateAddress(_) => (text, Next::AllowHost),
                    FetchError::TooLarge { .. } => {
                        (format!("{text}; raise RETOUCH_RESULT_MAX_MIB"), Next::AllowSize)
                    }
                    FetchError::NotFound { .. } => (text, Next::Gone),
                    FetchError::BadUrl(_)
                    | FetchError::Refused { .. }
                    | FetchError::Unavailable { .. }
                    | FetchError::TooManyRedirects { .. } => (text, Next::Again),
                };
                Trouble { host, error, next }
            }
        })
    }

    /// Whether a result that was lost before is certainly not there any more. A setting that keeps it away
    /// would keep the next one away too.
    fn is_gone(&self, trouble: &Trouble, from: &ResultUrl, age: Age) -> bool {
        let gone = match trouble.next {
            Next::Gone => true,
            Next::Again => age.now() >= from.lives,
            Next::OwnStore | Next::AllowHost | Next::AllowSize => false,
        };
        gone && self.was_lost()
    }

    /// A page, an error or nothing at all: it can go away.
    async fn no_picture(&self, from: &ResultUrl, file: ResultFile) -> Trouble {
        let what = media::describe(file.received.head());
        self.app.blobs.discard_received(file.received).await;
        Trouble {
            host: host_of(from),
            error: format!("what it sends is no picture but {what}"),
            next: Next::Again,
        }
    }

    /// Until the next try, here or by the next owner.
    async fn wait_to_fetch_again(&self, from: &ResultUrl, age: Age, trouble: &Trouble) -> Result<(), Stop> {
        self.note_unfetched(trouble).await;
        let pause = match trouble.next {
            Next::Again | Next::Gone | Next::OwnStore => refetch(age.now()),
            // Its last try comes when the address ends.
            Next::AllowHost | Next::AllowSize => {
                SETTING_DECIDES.min(from.lives.saturating_sub(age.now()) + Duration::from_secs(1))
            }
        };
        let error = &trouble.error;
        tracing::warn!(
            error,
            ?pause,
            "the result cannot be had yet; it is paid for, so it is asked for again"
        );
        if pause > Duration::from_secs(30) || self.began.elapsed() + pause > HOLD {
            let later = self.hand_over(Some(error), pause).await;
            return Err(match (trouble.next, later) {
                (Next::AllowHost | Next::AllowSize, Outcome::Delay { after, error }) => {
                    Outcome::Rest { after, error }
                }
                (_, later) => later,
            });
        }
        tokio::select! {
            () = self.app.shutdown.cancelled() => Err(self.hand_over(Some(error), Duration::ZERO).await),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// The lane has a place again, and says why the result is not there. Not worth failing for: the next try
    /// says it again.
    async fn note_unfetched(&self, trouble: &Trouble) {
        let Trouble { host, error, next } = trouble;
        let lane = &self.call.spec.lane;
        // The lane first: with a place free the next call would be sent, and its result be there too.
        if *next == Next::AllowHost {
            let closure = Closure {
                by: ClosedBy::Fetch,
                code: "result_host".to_owned(),
                message: format!(
                    "{error}; restart the worker then: results that are paid for are fetched, and cost nothing more"
                ),
                probe_in: None,
            };
            self.gate.closed(lane, &closure);
            if let Err(error) = self.app.store.block_lane(lane, &closure).await {
                tracing::warn!(lane, %error, "cannot block the lane; the next result will");
            }
        }
        self.unfetched.store(true, Ordering::Relaxed);
        match self.app.store.note_unfetched(self.call.lease, host, error).await {
            Ok(true) => self.gate.freed(),
            // The provider's answer is being committed, or another owner has the call.
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot note that a result is not at hand"),
        }
    }

    /// A result that was not at hand is: what blocked the lane is mended.
    async fn fetched(&self) {
        if !self.call.ended && !self.unfetched.load(Ordering::Relaxed) {
            return;
        }
        let lane = &self.call.spec.lane;
        match self.app.store.reopen_fetched(lane).await {
            Ok(true) => self.gate.open(lane),
            Ok(false) => {}
            Err(error) => tracing::warn!(lane, %error, "cannot note that results can be fetched"),
        }
    }
}

fn host_of(from: &ResultUrl) -> String {
    let url = Url::parse(&from.url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("no host");
    match url.as_ref().and_then(Url::port) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Soon at first, then less and less often: a tenth of its age, half a second at least and ten minutes at
/// most.
fn refetch(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_millis(500), Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_asked_for_soon_and_then_less_and_less_often() {
        for (age, pause) in [(0, 500), (10_000, 1_000), (600_000, 60_000), (86_000_000, 600_000)] {
            assert_eq!(refetch(Duration::from_millis(age)), Duration::from_millis(pause), "{age}");
        }
    }
}

//! From a result to the end of the edit: fetched, verified, in our own blobs, stored, finished. What was paid for is tried
//! again for as long as the provider keeps it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{FutureExt, TryFutureExt};
use retouch_shared::key::Digest32;

use super::{Age, HOLD, Stop, Work, lost};
use crate::activity;
use crate::blobs::reference;
use crate::editor::{Output, local};
use crate::failpoint::around;
use crate::media::{self, Media, Pixels};
use crate::metrics::count::{self, Phase};
use crate::outcome::Outcome;
use crate::sources::fetch::Purpose;
use crate::store::{Finished, StoredResult};

/// What arrives and is no picture is asked for again for this long: a transfer can be cut, a page of errors can go away.
const DOUBT: Duration = Duration::from_secs(60 * 60);

impl Work<'_> {
    /// What a poll answered.
    pub(super) async fn keep(&self, output: Output, age: Age) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        match output {
            Output::Bytes(bytes) => self.keep_bytes(bytes).await,
            Output::Url { url, lives } => {
                let fetched = self.phase(Phase::Fetch, self.fetch(&url, lives, age));
                let (bytes, media) = fetched.await?;
                self.store(bytes, media).await
            }
        }
    }

    /// A picture that came with the answer, and cannot be asked for again.
    pub(super) async fn keep_bytes(&self, bytes: Bytes) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        match self.verified(&bytes).await {
            Ok(media) => self.store(bytes, media).await,
            Err(error) => {
                let message = format!("the provider's result is unusable: {error}");
                Ok(self.fail("bad_result", &message, true).await)
            }
        }
    }

    /// A picture of a kind and size that we know, whose every pixel can be had.
    async fn verified(&self, bytes: &Bytes) -> Result<Media, String> {
        let media = media::inspect(bytes).map_err(|error| error.to_string())?;
        if self.editor.kind() == local::KIND {
            // Encoded a moment ago, by us.
            return Ok(media);
        }
        let bytes = bytes.clone();
        let decoded = tokio::task::spawn_blocking(move || Pixels::decode(&bytes, &media).map(drop));
        match decoded.await {
            Ok(decoded) => decoded.map(|()| media).map_err(|error| error.to_string()),
            Err(_) => Err("the decoder failed unexpectedly".to_owned()),
        }
    }

    /// From the provider's temporary URL, past the guard. Never submits again: it is paid for.
    async fn fetch(&self, url: &str, lives: Duration, age: Age) -> Result<(Bytes, Media), Stop> {
        let hosts = self.editor.result_hosts();
        loop {
            let fetched = self.app.results.fetch(url, Purpose::ProviderResult { hosts: &hosts });
            let (error, give_up) = match around("fetch_result", fetched).await {
                Err(error) => (error.to_string(), lives),
                Ok(bytes) => match self.verified(&bytes).await {
                    Ok(media) => return Ok((bytes, media)),
                    Err(error) => (error, lives.min(DOUBT)),
                },
            };
            let age = age.now();
            if age >= give_up {
                let message = format!("the provider's result cannot be had: {error}");
                return Err(self.fail("result_lost", &message, true).await);
            }
            let pause = refetch(age);
            tracing::warn!(
                error,
                ?pause,
                "the result cannot be had yet; it is paid for, so it is asked for again"
            );
            if pause > Duration::from_secs(30) || self.began.elapsed() + pause > HOLD {
                return Err(self.hand_over(Some(&error), pause).await);
            }
            tokio::select! {
                () = self.app.shutdown.cancelled() => return Err(self.hand_over(Some(&error), Duration::ZERO).await),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The result into our own blobs, then stored, then finished.
    async fn store(&self, bytes: Bytes, media: Media) -> Result<Outcome, Stop> {
        match self.phase(Phase::Store, self.put_and_record(bytes, media)).await? {
            Some(result) => self.finish_as(&result).await,
            None => Ok(lost()),
        }
    }

    /// `None`: the lease was lost.
    async fn put_and_record(&self, bytes: Bytes, media: Media) -> Result<Option<StoredResult>, Stop> {
        let content_type = media.format.content_type();
        // Both together: where the blob was deleted in between, it is kept again.
        let kept = self.insist(|| {
            self.put_once(bytes.clone(), content_type, media).map_err(|error| error.to_string()).boxed()
        });
        let (result, stored) = kept.await?;
        if !stored {
            self.not_ours(result.hash).await;
            return Ok(None);
        }
        // The lane has a place again, whatever finishing takes.
        self.gate.freed();
        Ok(Some(result))
    }

    /// The result, and whether it is recorded: `false` where the lease was lost.
    async fn put_once(
        &self,
        bytes: Bytes,
        content_type: &'static str,
        media: Media,
    ) -> anyhow::Result<(StoredResult, bool)> {
        let began = Instant::now();
        let kept = around("put_result", self.app.blobs.put(bytes, content_type)).await?;
        let result = StoredResult {
            hash: kept.hash,
            content_type: content_type.to_owned(),
            width: media.width,
            height: media.height,
            bytes: kept.bytes,
        };
        let stored = self.app.store.record_stored(self.call.lease, &result, began.elapsed()).await?;
        Ok((result, stored))
    }

    /// Whoever owns the call now has kept the same result, or nobody wants it: the call was forgotten, and the picture must not stay.
    /// It goes unless a row names it. Should we die here, it is swept with whatever else no row names.
    async fn not_ours(&self, hash: Digest32) {
        if let Err(error) = self.app.store.drop_blobs(&[hash].into()).await {
            tracing::warn!(%error, blob = %hash, "a result that nobody asks for stays until blobs are swept");
        }
    }

    /// A call whose result somebody else stored.
    pub(super) async fn finish(&self) -> Result<Outcome, Stop> {
        match &self.call.result {
            Some(result) => self.finish_as(result).await,
            None => {
                let message = "the call is stored, and its result is not in the store";
                Ok(self.fail("no_result", message, true).await)
            }
        }
    }

    /// stored → done, and every task that ends by it is told.
    async fn finish_as(&self, result: &StoredResult) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        self.keeper.stop();
        let url = reference(result.hash);
        let (store, lease) = (&self.app.store, self.call.lease);
        let finished =
            self.insist(|| store.finish_edit(lease, &url).map_err(|error| error.to_string()).boxed());
        let finished = self.phase(Phase::Finish, finished).await?;
        if let Finished::Ended(_) = finished {
            count::call(&self.call.spec.lane, self.call.since_submit + self.began.elapsed());
        }
        self.told(finished).await
    }
}

/// Soon at first, then less and less often: a tenth of its age, half a second at least and ten minutes at most.
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

//! From a result to the end of the edit: fetched, verified, in our own blobs, stored, finished. What was paid for is tried
//! again for as long as the provider keeps it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{FutureExt, TryFutureExt};
use retouch_shared::key::Digest32;

use super::{Age, HOLD, Stop, Work, lost};
use crate::activity;
use crate::blobs::{BlobError, reference};
use crate::editor::{Output, ResultUrl, local};
use crate::failpoint::around;
use crate::media::{self, Media, Pixels};
use crate::metrics::count::{self, Phase};
use crate::outcome::Outcome;
use crate::sources::fetch::Purpose;
use crate::store::{ClaimedCall, Finished, StoredResult};

/// What arrives and is no picture is asked for again for this long: a transfer can be cut, a page of errors can go away.
const DOUBT: Duration = Duration::from_secs(60 * 60);

/// How a try to fetch a result went: its bytes, whatever they are, or why not.
type Fetched = Result<Bytes, String>;

impl Work<'_> {
    /// What a poll answered.
    pub(super) async fn keep(&self, output: Output, age: Age) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        match output {
            Output::Bytes(bytes) => {
                let media = self.usable(&bytes).await?;
                self.keep_and_finish(bytes, media).await
            }
            Output::Url(result) => {
                let (bytes, media) = self.phase(Phase::Fetch, self.fetch(&result, age, None)).await?;
                self.keep_and_finish(bytes, media).await
            }
        }
    }

    /// A picture at an address that came with the answer. It is on its way while `recorded` commits that address, and is looked at
    /// after that: a picture can be one that kills who opens it.
    pub(super) async fn keep_at_hand(
        &self,
        result: &ResultUrl,
        age: Age,
        recorded: impl Future<Output = Result<(), Stop>>,
    ) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        let fetched = async {
            let first = self.fetch_once(result).map(Ok);
            let ((), first) = tokio::try_join!(recorded, first)?;
            self.fetch(result, age, Some(first)).await
        };
        let (bytes, media) = self.phase(Phase::Fetch, fetched).await?;
        self.keep_and_finish(bytes, media).await
    }

    /// A picture that came with the answer, and cannot be asked for again.
    pub(super) async fn keep_bytes(&self, bytes: Bytes) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        let media = self.usable(&bytes).await?;
        self.store(bytes, media).await
    }

    /// As [`Work::verified`], of bytes that nobody is asked for again: what is no picture ends the edit.
    async fn usable(&self, bytes: &Bytes) -> Result<Media, Stop> {
        match self.verified(bytes).await {
            Ok(media) => Ok(media),
            Err(error) => {
                let message = format!("the provider's result is unusable: {error}");
                Err(self.fail("bad_result", &message, true).await)
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
        let need = media::memory::decode_bytes(&bytes, &media);
        let decoded = media::memory::run(need, move || Pixels::decode(&bytes, &media).map(drop));
        match decoded.await {
            Ok(decoded) => decoded.map(|()| media).map_err(|error| error.to_string()),
            Err(_) => Err("the decoder failed unexpectedly".to_owned()),
        }
    }

    /// From the provider's temporary URL, past the guard; `first` is how the first try went, where it was made already. Never submits
    /// again: it is paid for.
    async fn fetch(
        &self,
        from: &ResultUrl,
        age: Age,
        mut first: Option<Fetched>,
    ) -> Result<(Bytes, Media), Stop> {
        loop {
            let fetched = match first.take() {
                Some(fetched) => fetched,
                None => self.fetch_once(from).await,
            };
            let (error, give_up) = match fetched {
                Err(error) => (error, from.lives),
                Ok(bytes) => match self.verified(&bytes).await {
                    Ok(media) => return Ok((bytes, media)),
                    Err(error) => (error, from.lives.min(DOUBT)),
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

    /// One try.
    async fn fetch_once(&self, from: &ResultUrl) -> Fetched {
        let hosts = self.editor.result_hosts();
        let fetched = self.app.results.fetch(&from.url, Purpose::ProviderResult { hosts: &hosts });
        around("fetch_result", fetched).await.map_err(|error| error.to_string())
    }

    /// The result of a call whose id is committed into our own blobs, and the edit's end, with nothing in between: where
    /// it ends early, whoever comes next has the result from the provider again.
    async fn keep_and_finish(&self, bytes: Bytes, media: Media) -> Result<Outcome, Stop> {
        // Until it is finished the picture is recorded nowhere: nobody else should come for it.
        self.keeper.ending();
        let kept = self.insist(|| {
            self.keep_and_finish_once(bytes.clone(), media).map_err(|error| error.to_string()).boxed()
        });
        let (hash, finished) = kept.await?;
        self.keeper.stop();
        if let Finished::LostLease = finished {
            self.not_ours(hash).await;
        }
        // The lane has a place again, whatever telling takes.
        self.gate.freed();
        self.ended(finished).await
    }

    async fn keep_and_finish_once(&self, bytes: Bytes, media: Media) -> anyhow::Result<(Digest32, Finished)> {
        let began = Instant::now();
        let result = self.phase(Phase::Store, self.put(bytes, media)).await?;
        let url = reference(result.hash);
        let (store, ClaimedCall { lease, spec, .. }) = (&self.app.store, &self.call);
        let finish = store.store_and_finish(*lease, spec, &result, began, &url);
        Ok((result.hash, self.phase(Phase::Finish, finish).await?))
    }

    /// The result of a call that can't be asked for again: into our own blobs, then stored, then finished.
    async fn store(&self, bytes: Bytes, media: Media) -> Result<Outcome, Stop> {
        match self.phase(Phase::Store, self.put_and_record(bytes, media)).await? {
            Some(result) => self.finish_as(&result).await,
            None => Ok(lost()),
        }
    }

    /// `None`: the lease was lost.
    async fn put_and_record(&self, bytes: Bytes, media: Media) -> Result<Option<StoredResult>, Stop> {
        // Both together: where the blob was deleted in between, it is kept again.
        let kept =
            self.insist(|| self.put_once(bytes.clone(), media).map_err(|error| error.to_string()).boxed());
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
    async fn put_once(&self, bytes: Bytes, media: Media) -> anyhow::Result<(StoredResult, bool)> {
        let began = Instant::now();
        let result = self.put(bytes, media).await?;
        let stored = self.app.store.record_stored(self.call.lease, &result, began.elapsed()).await?;
        Ok((result, stored))
    }

    async fn put(&self, bytes: Bytes, media: Media) -> Result<StoredResult, BlobError> {
        let content_type = media.format.content_type();
        let kept = around("put_result", self.app.blobs.put(bytes, content_type)).await?;
        Ok(StoredResult {
            hash: kept.hash,
            content_type: content_type.to_owned(),
            width: media.width,
            height: media.height,
            bytes: kept.bytes,
        })
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
        self.ended(finished).await
    }

    async fn ended(&self, finished: Finished) -> Result<Outcome, Stop> {
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

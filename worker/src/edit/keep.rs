//! From a result to the end of the edit: in our own blobs as it came, stored, finished. What was paid for is
//! kept, whatever it is: pixels that cannot be decoded are recorded and no reason, and what is no picture at
//! all is kept for a person.

use std::time::Instant;

use bytes::Bytes;
use futures::future::{FutureExt, TryFutureExt};
use retouch_shared::key::Digest32;

use super::{Age, Stop, Work, lost};
use crate::activity;
use crate::blobs::{BlobError, Received, UNKNOWN_TYPE, reference};
use crate::editor::{Output, ResultUrl, local};
use crate::failpoint::around;
use crate::media::{self, Kind, MediaError, Pixels};
use crate::metrics::count::{self, Phase};
use crate::outcome::Outcome;
use crate::sources::fetch::result::ResultFile;
use crate::store::{ClaimedCall, Finished, KeptAnswer, StoredResult};

/// A result at hand, which is a picture.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) file: ResultFile,
    kind: Kind,
    /// Why it could not be decoded; none: it was, or was not looked at.
    pub(super) check: Option<String>,
}

impl Work<'_> {
    /// What a poll answered.
    pub(super) async fn keep(&self, output: Output, age: Age) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        match output {
            Output::Bytes(bytes) => {
                let result = self.usable(bytes).await?;
                self.keep_and_finish(result).await
            }
            Output::Url(result) => {
                let fetched = self.fetch_off_the_lane(&result, self.fetch(&result, age, None));
                let result = self.phase(Phase::Fetch, fetched).await?;
                self.keep_and_finish(result).await
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
        let fetched = self.fetch_off_the_lane(result, fetched);
        let result = self.phase(Phase::Fetch, fetched).await?;
        self.keep_and_finish(result).await
    }

    /// A picture that came with the answer, and cannot be asked for again.
    pub(super) async fn keep_bytes(&self, bytes: Bytes) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Keeping);
        let result = self.usable(bytes).await?;
        self.store(result).await
    }

    /// Bytes that the provider is not asked for again: what is no picture ends the edit.
    async fn usable(&self, bytes: Bytes) -> Result<Taken, Stop> {
        let kind = media::identify(&bytes);
        let file = ResultFile { received: Received::Whole(bytes), said: String::new() };
        match kind {
            Some(kind) => Ok(self.taken(file, kind).await),
            None => Err(self.keep_unusable(file).await),
        }
    }

    /// A picture is kept as it came; whether its pixels can be had is looked at, and recorded.
    pub(super) async fn taken(&self, file: ResultFile, kind: Kind) -> Taken {
        let check = match &file.received {
            // Encoded a moment ago, by us.
            Received::Whole(_) if self.editor.kind() == local::KIND => None,
            // A process has died of this call already, perhaps of this picture.
            Received::Whole(bytes) if self.call.starts.is_some_and(|starts| starts > 0) => {
                let cut = kind.format.is_some_and(|format| media::is_cut_short(bytes, format));
                cut.then(|| "it is cut short".to_owned())
            }
            Received::Whole(bytes) if kind.format.is_some() => decode_error(bytes.clone()).await,
            Received::Whole(_) | Received::Incoming(_) => None,
        };
        Taken { file, kind, check }
    }

    /// What came in place of a result, and is no picture at all: paid for, so it is kept for a person.
    pub(super) async fn keep_unusable(&self, file: ResultFile) -> Outcome {
        let what = media::describe(file.received.head());
        let content_type = if file.said.is_empty() { UNKNOWN_TYPE } else { file.said.as_str() };
        let put = || self.app.blobs.put_received(&file.received, content_type);
        let kept = self.insist(|| put().map_err(|error| error.to_string()).boxed()).await;
        let kept = match kept {
            Ok(kept) => KeptAnswer { hash: kept.hash, content_type: content_type.to_owned() },
            Err(stop) => return stop,
        };
        let blob = kept.hash;
        let message =
            format!("the provider's result is no picture but {what}; it is kept as the blob {blob}");
        self.fail_kept("bad_result", &message, Some(kept)).await
    }

    /// The result of a call whose id is committed into our own blobs, and the edit's end, with nothing in between: where
    /// it ends early, whoever comes next has the result from the provider again.
    async fn keep_and_finish(&self, result: Taken) -> Result<Outcome, Stop> {
        // Until it is finished the picture is recorded nowhere: nobody else should come for it.
        self.keeper.ending();
        let kept =
            self.insist(|| self.keep_and_finish_once(&result).map_err(|error| error.to_string()).boxed());
        let (hash, finished) = kept.await?;
        self.keeper.stop();
        if let Finished::LostLease = finished {
            self.not_ours(hash).await;
        }
        // The lane has a place again, whatever telling takes.
        self.gate.freed();
        self.ended(finished).await
    }

    async fn keep_and_finish_once(&self, taken: &Taken) -> anyhow::Result<(Digest32, Finished)> {
        let began = Instant::now();
        let result = self.phase(Phase::Store, self.put(taken)).await?;
        let url = reference(result.hash);
        let (store, ClaimedCall { lease, spec, .. }) = (&self.app.store, &self.call);
        let finish = store.store_and_finish(*lease, spec, &result, began, &url);
        Ok((result.hash, self.phase(Phase::Finish, finish).await?))
    }

    /// The result of a call that can't be asked for again: into our own blobs, then stored, then finished.
    async fn store(&self, taken: Taken) -> Result<Outcome, Stop> {
        match self.phase(Phase::Store, self.put_and_record(taken)).await? {
            Some(result) => self.finish_as(&result).await,
            None => Ok(lost()),
        }
    }

    /// `None`: the lease was lost.
    async fn put_and_record(&self, taken: Taken) -> Result<Option<StoredResult>, Stop> {
        // Both together: where the blob was deleted in between, it is kept again.
        let kept = self.insist(|| self.put_once(&taken).map_err(|error| error.to_string()).boxed());
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
    async fn put_once(&self, taken: &Taken) -> anyhow::Result<(StoredResult, bool)> {
        let began = Instant::now();
        let result = self.put(taken).await?;
        let stored = self.app.store.record_stored(self.call.lease, &result, began.elapsed()).await?;
        Ok((result, stored))
    }

    async fn put(&self, taken: &Taken) -> Result<StoredResult, BlobError> {
        let content_type = taken.kind.content_type;
        let put = self.app.blobs.put_received(&taken.file.received, content_type);
        let kept = around("put_result", put).await?;
        let (width, height) = taken.kind.size.unwrap_or_default();
        Ok(StoredResult {
            hash: kept.hash,
            content_type: content_type.to_owned(),
            width,
            height,
            bytes: kept.bytes,
            check: taken.check.clone(),
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
            self.app.bill.answered(&self.call);
            count::call(&self.call.spec.lane, self.call.since_submit + self.began.elapsed());
        }
        self.told(finished).await
    }
}

/// Why the pixels cannot be had; none where they can, or are too many to try.
async fn decode_error(bytes: Bytes) -> Option<String> {
    let media = match media::inspect(&bytes) {
        Ok(media) => media,
        Err(MediaError::TooManyPixels { .. }) => return None,
        Err(error) => return Some(error.to_string()),
    };
    let need = media::memory::decode_bytes(&bytes, &media);
    let decoded = media::memory::run(need, move || Pixels::decode(&bytes, &media).map(drop)).await;
    match decoded {
        Ok(decoded) => decoded.err().map(|error| error.to_string()),
        Err(_) => Some("the decoder failed unexpectedly".to_owned()),
    }
}

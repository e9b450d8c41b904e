//! A whole answer that cannot be read: kept as it came, its lane blocked, its call ended; and read again,
//! free, before its call is ever sent again.
//!
//! What must stay true: nothing of this sends anything; what was kept is read before the call is sent, by task or by retry; and
//! a call that is held is sent by a person's decision only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Age, HOLD, RETRY, Stop, Work};
use crate::blobs::{BlobError, Blobs};
use crate::delay::Backoff;
use crate::editor::{EditSpec, Editor, Submitted, UnreadableAnswer};
use crate::lanes::probe_after;
use crate::outcome::Outcome;
use crate::store::{ClosedBy, KeptAnswer, UNREADABLE_ANSWER};

/// A probe of such a lane is a call that is paid and most likely lost as well: so much rarer than one of a
/// lane that charges nothing.
const PROBE_FACTOR: u32 = 120;
/// What a blob is said to be where the provider said nothing.
const NO_TYPE: &str = "application/octet-stream";

impl Work<'_> {
    /// The answer is kept, the lane is blocked, the edit ends. `probes`: how often in a row a call has found
    /// the lane blocked.
    pub(super) async fn unreadable(&self, answer: UnreadableAnswer, probes: u32) -> Outcome {
        let said = answer.to_string();
        // The lane first: its next call would be answered the same.
        let sentence = format!(
            "{said}; the call was paid, most likely, and the next one would be lost too: `retouch dead list --reason {UNREADABLE_ANSWER} --each` names its letter"
        );
        let probes = self.probes_of(UNREADABLE_ANSWER, probes).await;
        let probe_in = probe_after(self.app.settings.rhythm.probe.saturating_mul(PROBE_FACTOR), probes);
        self.block_for(ClosedBy::Submit, UNREADABLE_ANSWER, &sentence, probe_in).await;
        let content_type = answer.content_type.clone();
        match self.put_answer(answer.body, &content_type).await {
            Ok(kept) => {
                let message = format!("{said}; the whole answer is kept as the blob {}", kept.hash);
                self.fail_kept(UNREADABLE_ANSWER, &message, Some(kept)).await
            }
            // Left as it is, it would be taken for a call without an answer, and sent again.
            Err(error) => {
                let message = format!("{said}; the answer could not be kept: {error}");
                self.fail(UNREADABLE_ANSWER, &message, true).await
            }
        }
    }

    /// Tries for as long as a delivery may be held: it was paid for.
    async fn put_answer(&self, body: Bytes, content_type: &str) -> Result<KeptAnswer, BlobError> {
        let of_type = if content_type.is_empty() { NO_TYPE } else { content_type };
        let (mut backoff, began) = (Backoff::new(RETRY), Instant::now());
        loop {
            let error = match self.app.blobs.put(body.clone(), of_type).await {
                Ok(kept) => return Ok(KeptAnswer { hash: kept.hash, content_type: content_type.to_owned() }),
                Err(error) => error,
            };
            tracing::warn!(%error, "an answer cannot be kept; trying again, because it was paid for");
            let pause = backoff.next_delay();
            if began.elapsed() + pause > HOLD {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Goes on with what an answer that was kept says, if it can be read by now. `None`: there is none, or it
    /// cannot, and a person has decided that the call is sent again.
    pub(super) async fn read_kept(&self) -> Result<Option<Outcome>, Stop> {
        let Some(kept) = &self.call.answer else { return Ok(None) };
        let spec = &self.call.spec;
        let spec = EditSpec {
            edit_type: spec.edit_type.clone(),
            prompt: spec.prompt.clone(),
            model: spec.model.clone(),
            params: spec.params.clone(),
            mask: None,
        };
        let read = match read_answer(&self.app.blobs, self.editor, spec, kept).await {
            Ok(read) => read,
            Err(error) => return Err(self.again(false, &error, Duration::from_secs(5)).await),
        };
        match read {
            Ok(submitted) => {
                tracing::info!(blob = %kept.hash, "an answer that was kept can be read now; nothing is sent");
                Box::pin(self.go_on_with(submitted)).await.map(Some)
            }
            Err(why) => Ok(self.still_unreadable(kept, &why).await),
        }
    }

    /// As if it had been answered a moment ago.
    async fn go_on_with(&self, submitted: Submitted) -> Result<Outcome, Stop> {
        let lane = &self.call.spec.lane;
        // Such answers can be read now, so the next call may show whether the lane works.
        if let Err(error) = self.app.store.probe_lane(lane, Duration::ZERO).await {
            tracing::warn!(lane, %error, "cannot let the lane be tried again soon");
        }
        let age = Age::new(self.call.since_submit);
        match submitted {
            Submitted::Done(bytes) => self.keep_bytes(bytes).await,
            Submitted::Accepted { provider_task_id, at_hand: None } => {
                self.record_submitted(&provider_task_id).await?;
                Box::pin(self.poll(&provider_task_id, age)).await
            }
            Submitted::Accepted { provider_task_id, at_hand: Some(result) } => {
                let recorded = self.record_submitted(&provider_task_id);
                Box::pin(self.keep_at_hand(&result, age, recorded)).await
            }
        }
    }

    /// Ends the edit again, unless a person has decided that it is sent once more.
    async fn still_unreadable(&self, kept: &KeptAnswer, why: &str) -> Option<Outcome> {
        let Some(held) = &self.call.held else {
            tracing::info!(why, blob = %kept.hash, "the answer that was kept still cannot be read; sending again, as a person asked for");
            return None;
        };
        let message = format!(
            "an earlier answer was paid for and cannot be read; it is kept as the blob {}, and nothing was sent: `retouch dead retry` reads it again and sends again ({why})",
            kept.hash
        );
        Some(self.fail_kept(held, &message, Some(kept.clone())).await)
    }
}

/// Reads an answer that was kept, free: the inner error says why it still cannot be read.
///
/// # Errors
/// The blob store cannot be asked.
pub(crate) async fn read_answer(
    blobs: &Blobs,
    editor: &Arc<dyn Editor>,
    spec: EditSpec,
    kept: &KeptAnswer,
) -> Result<Result<Submitted, String>, String> {
    let body = match blobs.get(kept.hash).await {
        Ok(body) => body,
        Err(BlobError::Unavailable(error)) => return Err(error),
        Err(error @ (BlobError::Missing(_) | BlobError::Corrupt(_))) => return Ok(Err(error.to_string())),
    };
    let (editor, content_type) = (Arc::clone(editor), kept.content_type.clone());
    let read = tokio::task::spawn_blocking(move || editor.read_answer(&spec, &content_type, body)).await;
    Ok(match read {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    })
}

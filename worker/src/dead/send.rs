//! Sends letters again. An edit's letter is retried in the transaction that queues its call anew; a message's letter is claimed,
//! published and noted as sent. So the same command may run twice, at once or after a kill: each letter is sent once, and what
//! was published just before a kill is told by its number when it comes twice.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::FutureExt;
use futures::stream::{self, StreamExt};
use retouch_shared::key::EditKey;
use serde::Serialize;

use super::gone::gone_blobs;
use super::letter::target;
use crate::app::App;
use crate::broker::{ATTEMPT, Destination, ERROR, LETTER, Message, ORIGIN, REASON};
use crate::failpoint::around;
use crate::store::{
    ClaimedLetter, DeadPayload, EditRetry, Letter, LetterCall, LetterRef, LetterState, Money, Reopened,
    Reopening, TASKS,
};
use crate::{events, wake};

/// Letters of one transaction.
const BATCH: usize = 50;
/// Letters that are looked at together before the first is sent.
const SEEN: usize = 500;
/// How long a claim holds: a batch is published in much less.
const CLAIM: Duration = Duration::from_secs(15);
/// Published at a time.
const PUBLISHES: usize = 64;
/// Between two looks at letters that somebody else has claimed.
const LOOK: Duration = Duration::from_millis(250);

/// What sending letters again came to.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sent {
    /// Letters that were sent again by this run.
    pub(crate) retried: u64,
    /// Images that were answered from the cache.
    pub(crate) hit: u64,
    /// Images that wait for their call.
    pub(crate) waiting: u64,
    /// Letters about which somebody else decided meanwhile.
    pub(crate) skipped: u64,
    /// Letters that cannot be sent again.
    pub(crate) cannot: u64,
}

/// Sends these letters again, at most `rate` a second; tells `progress` how many more it has dealt with.
/// `anew`: a call whose paid result the provider may still have is paid again without asking for that.
///
/// # Errors
/// The store or the broker cannot be used; what was not sent stays open or is taken up by the next run.
pub(crate) async fn send(
    app: &App,
    ids: &[i64],
    anew: bool,
    rate: Option<u32>,
    progress: impl Fn(u64),
) -> Result<Sent> {
    let (mut sent, began, mut dealt) = (Sent::default(), Instant::now(), 0u32);
    let batch = rate.map_or(BATCH, |rate| BATCH.min(rate.div_ceil(10).max(1) as usize));
    let mut wanted = Vec::new();
    for ids in ids.chunks(SEEN) {
        let letters = app.store.letters(ids).await?;
        let open = letters.iter().filter(|letter| !letter.state.is_decided());
        wanted.extend(open.map(Letter::next_retry));
    }
    sent.skipped += (ids.len() - wanted.len()) as u64;
    let mut held = Vec::new();
    for wanted in wanted.chunks(batch) {
        held.extend(one_batch(app, wanted, anew, &mut sent).await?);
        dealt += u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        progress(wanted.len() as u64);
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(f64::from(dealt) / f64::from(rate.max(1)));
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    // Somebody is at these, or was killed at it: then they are ours when the claim has run out.
    while !held.is_empty() {
        tokio::time::sleep(LOOK).await;
        let mut still = Vec::new();
        for wanted in held.chunks(batch) {
            still.extend(one_batch(app, wanted, anew, &mut sent).await?);
        }
        held = still;
    }
    Ok(sent)
}

/// Returns what somebody else has claimed.
async fn one_batch(app: &App, wanted: &[LetterRef], anew: bool, sent: &mut Sent) -> Result<Vec<LetterRef>> {
    let ids: Vec<i64> = wanted.iter().map(|letter| letter.id).collect();
    let letters = app.store.letters(&ids).await?;
    let mut held = Vec::new();
    let (mut edits, mut messages) = (Vec::new(), Vec::new());
    for letter in &letters {
        let this = letter.next_retry();
        // Sent by somebody else since we looked first; perhaps it has failed again already.
        if letter.state.is_decided() || !wanted.contains(&this) {
            sent.skipped += 1;
            continue;
        }
        if letter.held {
            held.push(this);
            continue;
        }
        match EditRetry::of(letter) {
            Some(retry) => edits.push(retry),
            None if target(&app.settings.topology, &letter.queue).is_none() => sent.cannot += 1,
            None => messages.push(this),
        }
    }
    if !edits.is_empty() {
        reopen(app, &edits, anew, sent).await?;
    }
    if !messages.is_empty() {
        held.extend(publish(app, &messages, sent).await?);
    }
    Ok(held)
}

async fn reopen(app: &App, edits: &[EditRetry], anew: bool, sent: &mut Sent) -> Result<()> {
    let keys: Vec<EditKey> = edits.iter().map(|retry| retry.edit_key).collect();
    let found = app.store.lookup(&keys).await?;
    let refused = gone_blobs(&app.blobs, found.values()).await?;
    let routes = routes(app, &app.store.calls_of_letters(&keys).await?);
    let reopened = app.store.reopen_edits(edits, &Reopening { refused, routes, anew }).await?;
    let Reopened { retried, lost, ended, wake, hit, waiting } = reopened;
    sent.retried += retried.len() as u64;
    sent.cannot += lost.len() as u64;
    sent.skipped += (edits.len() - retried.len() - lost.len()) as u64;
    sent.hit += hit;
    sent.waiting += waiting;
    // The store has it all: whoever dies from here on is followed by the sweep.
    wake::calls(app, wake).await;
    let told: Vec<_> = ended.iter().map(|task| events::publish(app, task).boxed()).collect();
    stream::iter(told).buffer_unordered(PUBLISHES).collect::<()>().await;
    Ok(())
}

/// Where these calls queue now, and what they cost.
pub(super) fn routes(app: &App, calls: &[LetterCall]) -> HashMap<EditKey, (String, Money)> {
    let route = |call: &LetterCall| {
        let route = app.settings.offer.resolve(&call.edit_type, Some(&call.model)).ok()?;
        (route.editor.name == call.provider).then_some((call.edit_key, (route.lane, route.price)))
    };
    calls.iter().filter_map(route).collect()
}

/// Returns what somebody else has claimed meanwhile.
async fn publish(app: &App, wanted: &[LetterRef], sent: &mut Sent) -> Result<Vec<LetterRef>> {
    let claimed = app.store.claim_letters(wanted, &app.owner, CLAIM).await?;
    let ours: BTreeSet<i64> = claimed.iter().map(|letter| letter.retry.id).collect();
    let published: Vec<_> = claimed
        .into_iter()
        .map(|letter| {
            async { (letter.retry.id, around("send_letter", publish_one(app, letter)).await) }.boxed()
        })
        .collect();
    let published: Vec<(i64, Result<()>)> =
        stream::iter(published).buffer_unordered(PUBLISHES).collect().await;
    let (mut confirmed, mut failed, mut why) = (Vec::new(), Vec::new(), None);
    for (id, result) in published {
        match result {
            Ok(()) => confirmed.push(id),
            Err(error) => {
                failed.push(id);
                why = Some(error);
            }
        }
    }
    app.store.letters_sent(&confirmed, &app.owner).await?;
    sent.retried += confirmed.len() as u64;
    if let Some(why) = why {
        app.store.give_letters_back(&failed, &app.owner).await?;
        return Err(why.context("some messages could not be published; the same command goes on from here"));
    }
    Ok(wanted.iter().copied().filter(|letter| !ours.contains(&letter.id)).collect())
}

async fn publish_one(app: &App, letter: ClaimedLetter) -> Result<()> {
    let ClaimedLetter { retry, queue, mut headers, properties, payload } = letter;
    let Some(to) = target(&app.settings.topology, &queue) else {
        anyhow::bail!("letter {}: it is not known which queue it comes from", retry.id);
    };
    let payload = match payload {
        Some(DeadPayload::Inline(bytes)) => bytes,
        Some(DeadPayload::Blob(hash)) => app.blobs.get(hash).await?,
        None => anyhow::bail!("letter {}: its payload is gone", retry.id),
    };
    // Its tries begin anew; what it died of is not its message's.
    for header in [ATTEMPT, ERROR, REASON, ORIGIN, TASKS] {
        headers.remove(header);
    }
    headers.insert(LETTER.to_owned(), retry.to_string());
    let message = Message {
        payload,
        headers,
        reply_to: properties.reply_to,
        correlation_id: properties.correlation_id,
        message_id: None,
    };
    Ok(app.broker.publish(Destination::Queue(to), message).await?)
}

/// Whether a letter can be sent again at all, as far as its row tells; why not, otherwise.
pub(super) fn cannot(app: &App, letter: &Letter) -> Option<&'static str> {
    match letter.state {
        LetterState::Retried => return Some("it was sent again already"),
        LetterState::Discarded => return Some("it was discarded"),
        LetterState::Retrying if letter.held => {
            return Some("somebody is sending it again right now; it is taken up here if they die");
        }
        LetterState::Open | LetterState::Retrying => {}
    }
    if letter.edit_key.is_none() && target(&app.settings.topology, &letter.queue).is_none() {
        return Some("it is not known which queue it comes from");
    }
    None
}

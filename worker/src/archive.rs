//! Archive: drains the dead queue into the `dead_letters` table, where people and tools read it. A call whose
//! message the broker gave up on is failed here, so that its tasks end.

use std::time::Duration;

use retouch_shared::event::ImageError;
use retouch_shared::key::{Digest32, EditKey};
use retouch_shared::task::peek_task_id;
use retouch_shared::wire::EditMessage;
use serde::Deserialize;

use crate::app::App;
use crate::broker::{Delivery, ERROR, LETTER, Message, ORIGIN, REASON};
use crate::delay::{Backoff, Pace};
use crate::outcome::{Outcome, attempt};
use crate::store::{CallState, Claim, DeadLetter, Finished, LetterRef, Properties};
use crate::{events, intake, wake};

/// Archives one dead message. Retries until the store takes it: there is no other place for it.
pub(crate) async fn handle(app: &App, delivery: &Delivery) -> Outcome {
    let mut backoff = Backoff::new(Pace::RECONNECT);
    loop {
        match keep(app, delivery).await {
            Ok(()) => return Outcome::Done,
            Err(error) => tracing::warn!(error = %format!("{error:#}"), "cannot archive a dead message yet"),
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return Outcome::HandBack,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

async fn keep(app: &App, delivery: &Delivery) -> anyhow::Result<()> {
    let Delivery { message, broker_death, .. } = delivery;
    let header = |name| message.headers.get(name).cloned();
    let (death, died_in) = broker_death.clone().unzip();
    let reason = header(REASON).or(death).unwrap_or_else(|| "unknown".to_owned());
    let died_in = died_in.map(|name| meant(app, &name));
    let queue = header(ORIGIN).or(died_in).unwrap_or_else(|| "unknown".to_owned());
    let text = header(ERROR).unwrap_or_else(|| explain(&reason));
    let edit_key = edit_key(message);
    if let Some(edit_key) = edit_key {
        fail_call(app, edit_key, &reason, &text).await?;
    }
    let letter = DeadLetter {
        letter_key: letter_key(message, &queue, &reason),
        queue,
        reason,
        message: text,
        payload: intake::dead_payload(&app.blobs, &message.payload).await?,
        kept: None,
        headers: message.headers.clone(),
        attempts: attempt(message) + 1,
        task_id: peek_task_id(&message.payload),
        edit_key,
        edit_type: peek_edit_type(&message.payload),
        properties: Properties {
            reply_to: message.reply_to.clone(),
            correlation_id: message.correlation_id.clone(),
        },
        again: header(LETTER).as_deref().and_then(LetterRef::parse),
        // An edit message only woke its call, which goes on, is over, or has just failed with a letter of its
        // own.
        settled: edit_key.is_some(),
    };
    app.store.archive(&letter).await?;
    tracing::info!(
        reason = letter.reason,
        queue = letter.queue,
        task_id = letter.task_id,
        "archived a dead letter"
    );
    Ok(())
}

fn edit_key(message: &Message) -> Option<EditKey> {
    serde_json::from_slice::<EditMessage>(&message.payload).ok().map(|message| message.edit_key)
}

/// A queue's name without the namespace, as in our own letters.
fn meant(app: &App, queue: &str) -> String {
    let prefix = format!("{}.", app.settings.topology.exchange());
    queue.strip_prefix(&prefix).unwrap_or(queue).to_owned()
}

/// The `edit_type` of an undecodable message, if it shows one: for filters only.
fn peek_edit_type(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Peek {
        edit_type: String,
    }
    serde_json::from_slice(payload).ok().map(|Peek { edit_type }| edit_type)
}

/// A redelivery of the same dead message is the same letter.
fn letter_key(message: &Message, queue: &str, reason: &str) -> Digest32 {
    let mut identity = format!("{queue}\n{reason}\n{:?}\n", message.headers).into_bytes();
    identity.extend_from_slice(Digest32::of(&message.payload).as_bytes());
    Digest32::of(&identity)
}

fn explain(reason: &str) -> String {
    match reason {
        "delivery_limit" => {
            "it was delivered too often without being finished: each time the worker died or lost it"
                .to_owned()
        }
        "expired" => {
            "it expired in its queue: no worker took it within the time that its producer gave it".to_owned()
        }
        other => format!("the broker gave it up: {other}"),
    }
}

/// An edit that no delivery can finish has to fail, or its tasks would wait for ever.
async fn fail_call(app: &App, edit_key: EditKey, reason: &str, text: &str) -> anyhow::Result<()> {
    match app.store.claim_call(edit_key, &app.owner, Duration::from_secs(30)).await? {
        Claim::Won(call) if matches!(call.state, CallState::Submitted | CallState::Stored) => {
            // Paid for: the next owner carries it on, although this message is dead.
            app.store.hand_over_call(call.lease, Some(text), Duration::ZERO).await?;
            wake::calls(app, vec![(edit_key, call.spec.lane)]).await;
            Ok(())
        }
        Claim::Won(call) => {
            let error = ImageError { code: reason.to_owned(), message: text.to_owned() };
            if let Finished::Ended(tasks) = app.store.fail_edit(call.lease, &error, true).await? {
                for task in tasks {
                    events::publish(app, &task).await;
                }
            }
            Ok(())
        }
        Claim::Done => Ok(()),
        // Another owner works on it, or will: its result decides.
        Claim::Held { .. } => Ok(()),
    }
}

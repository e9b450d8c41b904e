//! `retouch dead show`: everything that is known of one letter, and what to do about it.

use std::path::{Path, PathBuf};

use clap::Args;
use retouch_shared::event::decimal;
use serde_json::{Map, Value, json};

use super::super::say::say;
use super::super::{Ending, Failure};
use super::save::save;
use super::{json_time, kept_json, no_letter, time};
use crate::app::App;
use crate::blobs::BlobError;
use crate::config::Settings;
use crate::dead::{advice, payloads, shortened};
use crate::store::{Letter, LetterCall, Money, PastFailure};
use crate::words::counted;

/// Show one letter: what it was, every time it failed, and how to fix it
///
/// Example: retouch dead show 4711 --save answer.bin
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The letter's id
    id: i64,
    /// Write what was paid for and could not be used into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Show {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
        let found = app.store.letters(&[self.id]).await.map_err(Failure::unreachable)?.pop();
        let letter = found.ok_or_else(|| no_letter(self.id))?;
        let history = app.store.letter_history(letter.id).await.map_err(Failure::unreachable)?;
        let call = match letter.edit_key {
            Some(key) => app.store.calls_of_letters(&[key]).await.map_err(Failure::unreachable)?.pop(),
            None => None,
        };
        let payload = payloads(&app, &[&letter]).await.map_err(Failure::Unreachable)?.remove(&letter.id);
        let payload = payload.map_or(Value::Null, |payload| shortened(&payload));
        let kept_bytes = kept_bytes(&app, &letter).await?;
        let saved = match &self.save {
            Some(file) => Some((file.as_path(), save(&app, &letter, file).await?)),
            None => None,
        };
        app.store.close().await;
        let (call, payload) = (call.as_ref(), &payload);
        let shown = Shown { letter: &letter, history: &history, call, payload, kept_bytes, saved };
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&shown.json()).unwrap_or_default());
        } else {
            shown.print();
        }
        Ok(Ending::Done)
    }
}

struct Shown<'a> {
    letter: &'a Letter,
    history: &'a [PastFailure],
    call: Option<&'a LetterCall>,
    payload: &'a Value,
    /// The size of what is kept; none where it is gone.
    kept_bytes: Option<u64>,
    /// Where it was written, and how many bytes.
    saved: Option<(&'a Path, u64)>,
}

/// The size of what a letter keeps; none where nothing is, or it is gone.
async fn kept_bytes(app: &App, letter: &Letter) -> Result<Option<u64>, Failure> {
    let Some(kept) = &letter.kept else { return Ok(None) };
    match app.blobs.get(kept.hash).await {
        Ok(bytes) => Ok(Some(bytes.len() as u64)),
        Err(BlobError::Missing(_) | BlobError::Corrupt(_)) => Ok(None),
        Err(error @ BlobError::Unavailable(_)) => Err(Failure::Unreachable(error.into())),
    }
}

impl Shown<'_> {
    /// The provider's name for the request, where it said one: it is kept with its message.
    fn request_id(&self) -> Option<&str> {
        let (_, id) = self.letter.message.rsplit_once("(request_id ")?;
        id.split_once(')').map(|(id, _)| id)
    }

    fn history(&self) -> Vec<Value> {
        let mut events = Vec::new();
        for past in self.history {
            events.push(json!({"at": json_time(past.failed_at), "what": "failed", "reason": past.reason,
                "message": past.message, "attempts": past.attempts}));
            events.push(json!({"at": json_time(past.retried_at), "what": "retried", "number": past.number}));
        }
        let letter = self.letter;
        // What was sent again and has not failed since has told its last failure above.
        if self.history.last().is_none_or(|past| past.failed_at != letter.last_at) {
            events.push(json!({"at": json_time(letter.last_at), "what": "failed", "reason": letter.reason,
                "message": letter.message, "attempts": letter.attempts}));
        }
        if letter.state == crate::store::LetterState::Discarded {
            events.push(json!({"at": letter.decided_at.map(json_time), "what": "discarded"}));
        }
        events
    }

    fn json(&self) -> Value {
        let letter = self.letter;
        let mut shown = json!({
            "id": letter.id, "state": letter.state, "reason": letter.reason, "message": letter.message, "group": letter.group,
            "fix": advice::fix_for(&letter.reason), "queue": letter.queue, "edit_type": letter.edit_type, "task_id": letter.task_id,
            "tasks": letter.tasks(), "edit_key": letter.edit_key, "attempts": letter.attempts, "retries": letter.retries,
            "first_at": json_time(letter.first_at), "last_at": json_time(letter.last_at),
            "request_id": self.request_id(), "headers": letter.headers, "properties": letter.properties,
            "history": self.history(), "payload": self.payload,
        });
        if let (Some(call), Some(members)) = (self.call, shown.as_object_mut()) {
            members.insert("call".to_owned(), call_json(call));
        }
        shown["kept"] = kept_json(letter);
        if let (Some(bytes), Some(kept)) = (self.kept_bytes, shown["kept"].as_object_mut()) {
            kept.insert("bytes".to_owned(), json!(bytes));
        }
        if let Some((file, _)) = self.saved {
            shown["saved"] = json!(file);
        }
        shown
    }

    fn print(&self) {
        let letter = self.letter;
        say(format!("letter {}: {} ({})", letter.id, letter.reason, letter.state.as_str()));
        for line in letter.message.lines() {
            say(format!("  {line}"));
        }
        say(format!("fix: {}", advice::fix_for(&letter.reason)));
        let mut facts = vec![("queue", letter.queue.clone())];
        facts.extend(letter.edit_type.clone().map(|edit_type| ("edit type", edit_type)));
        let tasks = letter.tasks();
        if !tasks.is_empty() {
            let more = tasks.len().saturating_sub(5);
            let named = tasks[..tasks.len() - more].join(", ");
            facts.push(("tasks", if more > 0 { format!("{named} and {more} more") } else { named }));
        }
        if let Some(call) = self.call {
            facts.push(("edit", call.edit_key.to_string()));
            facts.push(("model", format!("{} on lane {}", call.model, call.lane)));
            facts.push(("prompt", call.prompt.chars().take(200).collect()));
            facts.push(("params", call.params.clone()));
            facts.extend(call.provider_task_id.clone().map(|id| ("provider's task", id)));
            facts.extend(call.paid_result.then(|| ("retry", asks_first(call))));
            facts.push((
                "paid calls",
                format!("{}, possible duplicates {}", call.paid_calls, call.possible_duplicates),
            ));
        }
        facts.extend(self.request_id().map(|id| ("request id", id.to_owned())));
        if let Some(kept) = &letter.kept {
            let content_type =
                if kept.content_type.is_empty() { "no content type" } else { &kept.content_type };
            let size = self
                .kept_bytes
                .map_or("gone from the blob store".to_owned(), |bytes| format!("{bytes} bytes"));
            facts.push((
                "kept",
                format!("blob {} ({content_type}, {size}); --save FILE writes it", kept.hash),
            ));
        }
        for (name, value) in facts {
            say(format!("{name}: {value}"));
        }
        say("history:");
        for event in self.history() {
            say(format!("  {}", told(&event)));
        }
        for (name, value) in &letter.headers {
            say(format!("header {name}: {}", value.chars().take(200).collect::<String>()));
        }
        match self.payload {
            Value::Null => say("payload: not kept, or gone from the blob store"),
            Value::String(text) => say(format!("payload: {text}")),
            // Plain data always serialises.
            payload => say(format!("payload: {}", serde_json::to_string_pretty(payload).unwrap_or_default())),
        }
        if let Some((file, bytes)) = self.saved {
            say(format!("saved {bytes} bytes as {}", file.display()));
        }
    }
}

/// What a retry does about a call whose paid result the provider may still have.
fn asks_first(call: &LetterCall) -> String {
    let Money { micros, currency } = &call.price;
    format!(
        "asks for the paid result again first; pays again only if the provider no longer has it (about {} {currency})",
        decimal(*micros)
    )
}

/// One line of the history.
fn told(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let at = text("at").parse().map_or_else(|_| text("at"), time);
    match text("what").as_str() {
        "failed" => {
            let line = text("message").lines().next().unwrap_or_default().to_owned();
            let attempts = counted(event["attempts"].as_u64().unwrap_or_default(), "attempt");
            format!("{at} failed after {attempts}: {}: {line}", text("reason"))
        }
        "retried" => format!("{at} sent again, for the {}. time", event["number"]),
        what => format!("{at} {what}"),
    }
}

fn call_json(call: &LetterCall) -> Value {
    let mut shown = Map::new();
    for (name, value) in [
        ("edit_type", json!(call.edit_type)),
        ("prompt", json!(call.prompt)),
        ("model", json!(call.model)),
        ("params", serde_json::from_str(&call.params).unwrap_or_default()),
        ("lane", json!(call.lane)),
        ("image_hash", json!(call.image_hash)),
        ("provider_task_id", json!(call.provider_task_id)),
        ("paid_result", json!(call.paid_result)),
        ("paid_calls", json!(call.paid_calls)),
        ("possible_duplicates", json!(call.possible_duplicates)),
    ] {
        shown.insert(name.to_owned(), value);
    }
    Value::Object(shown)
}

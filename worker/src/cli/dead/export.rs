//! `retouch dead export`: letters as JSON Lines, whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::super::say::say;
use super::super::{Ending, Failure};
use super::pick::{Filter, States};
use super::{json_time, kept_json};
use crate::app::App;
use crate::config::Settings;
use crate::dead::payloads;
use crate::store::Letter;

/// Letters that are read at a time, with their payloads.
const PAGE: usize = 50;

/// Write letters as JSON Lines, everything that is known of each
///
/// The payload is in `payload` where it is text, and otherwise in `payload_base64`.
///
/// Example: retouch dead export --state all > letters.jsonl
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    filter: Filter,
    /// What became of them
    #[arg(long, value_enum, default_value = "open")]
    state: States,
}

impl Export {
    pub(super) async fn run(self, settings: Settings) -> Result<Ending, Failure> {
        let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
        let filter = self.filter.of(self.state);
        for ids in app.store.letter_ids(&filter).await.map_err(Failure::unreachable)?.chunks(PAGE) {
            let letters = app.store.letters(ids).await.map_err(Failure::unreachable)?;
            let of: Vec<&Letter> = letters.iter().collect();
            let payloads = payloads(&app, &of).await.map_err(Failure::Unreachable)?;
            for letter in &letters {
                let history = if letter.retries > 0 {
                    app.store.letter_history(letter.id).await.map_err(Failure::unreachable)?
                } else {
                    Vec::new()
                };
                let mut line = line(letter);
                line["retried"] = history
                    .iter()
                    .map(|past| {
                        json!({"number": past.number, "failed_at": json_time(past.failed_at), "reason": past.reason,
                            "message": past.message, "attempts": past.attempts, "retried_at": json_time(past.retried_at)})
                    })
                    .collect();
                let (name, value) = match payloads.get(&letter.id).map(|payload| std::str::from_utf8(payload))
                {
                    None => ("payload", Value::Null),
                    Some(Ok(text)) => ("payload", json!(text)),
                    Some(Err(_)) => {
                        let bytes = payloads.get(&letter.id).map(|payload| STANDARD.encode(payload));
                        ("payload_base64", json!(bytes))
                    }
                };
                line[name] = value;
                say(line);
            }
        }
        app.store.close().await;
        Ok(Ending::Done)
    }
}

fn line(letter: &Letter) -> Value {
    json!({
        "id": letter.id, "letter_key": letter.letter_key, "state": letter.state, "queue": letter.queue, "reason": letter.reason,
        "message": letter.message, "group": letter.group, "headers": letter.headers, "properties": letter.properties,
        "attempts": letter.attempts, "retries": letter.retries, "task_id": letter.task_id, "edit_key": letter.edit_key,
        "edit_type": letter.edit_type, "payload_blob": letter.payload_blob, "kept": kept_json(letter), "first_at": json_time(letter.first_at),
        "last_at": json_time(letter.last_at), "decided_at": letter.decided_at.map(json_time),
    })
}

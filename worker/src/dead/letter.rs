//! What is in a letter: its payload, where it came from, and how it is shown.

use std::collections::HashMap;

use bytes::Bytes;
use retouch_shared::topology::Topology;
use serde_json::Value;

use crate::app::App;
use crate::blobs::BlobError;
use crate::broker::Queue;
use crate::store::Letter;

/// Longest text of a payload that is shown.
const SHOWN: usize = 300;

/// The payloads of letters, from their rows and from the blob store. One that is gone from there is not among them.
///
/// # Errors
/// The store or the blob store cannot be asked.
pub(crate) async fn payloads(app: &App, letters: &[&Letter]) -> anyhow::Result<HashMap<i64, Bytes>> {
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    let inline = app.store.letter_payloads(&ids).await?;
    let mut payloads: HashMap<i64, Bytes> =
        inline.into_iter().map(|(id, payload)| (id, payload.into())).collect();
    for letter in letters {
        let Some(hash) = letter.payload_blob else { continue };
        match app.blobs.get(hash).await {
            Ok(payload) => drop(payloads.insert(letter.id, payload)),
            Err(BlobError::Missing(_) | BlobError::Corrupt(_)) => {}
            Err(error @ BlobError::Unavailable(_)) => return Err(error.into()),
        }
    }
    Ok(payloads)
}

/// The queue that a letter's message goes to; `None` where it is not known.
pub(crate) fn target(topology: &Topology, queue: &str) -> Option<Queue> {
    let prefix = format!("{}.", topology.exchange());
    let name = queue.strip_prefix(&prefix).unwrap_or(queue);
    match name.strip_prefix("edits.") {
        Some(lane) if !lane.is_empty() => Some(Queue::Edits { lane: lane.to_owned() }),
        _ if name == "tasks" => Some(Queue::Tasks),
        _ => None,
    }
}

/// A valid task has a third of these.
const MAX_SHOWN_VALUES: usize = 30_000;

/// A payload for people: JSON with its long texts cut, text cut, or how many bytes of something else.
pub(crate) fn shortened(payload: &[u8]) -> Value {
    // A value takes up to a hundred times the memory of its text.
    if payload.iter().filter(|byte| b"{[,".contains(byte)).count() > MAX_SHOWN_VALUES {
        return Value::String(cut(&String::from_utf8_lossy(payload)));
    }
    match serde_json::from_slice::<Value>(payload) {
        Ok(mut value) => {
            shorten(&mut value);
            value
        }
        Err(_) => match std::str::from_utf8(payload) {
            Ok(text) => Value::String(cut(text)),
            Err(_) => Value::String(format!("({} bytes that are not text)", payload.len())),
        },
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => *text = cut(text),
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(members) => members.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn cut(text: &str) -> String {
    if let Some((head, _)) =
        text.split_once(',').filter(|(head, _)| head.starts_with("data:") && head.len() < 100)
    {
        return format!("{head},… ({} bytes)", text.len());
    }
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// The task in a payload, if it is one.
pub(crate) fn decoded(payload: &[u8]) -> Option<retouch_shared::task::Task> {
    retouch_shared::task::Task::decode(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_shows_no_picture_and_no_endless_text() {
        let picture = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let payload =
            serde_json::json!({"task_id": "t", "images": [{"data": picture}], "prompt": "é".repeat(9000)});
        let shown = shortened(payload.to_string().as_bytes());
        assert_eq!(shown["images"][0]["data"], "data:image/png;base64,… (100022 bytes)");
        assert!(shown["prompt"].as_str().unwrap().ends_with("… (18000 bytes)"));
        assert_eq!(shown["task_id"], "t");
        assert_eq!(shortened(b"\xff"), "(1 bytes that are not text)");
        assert_eq!(shortened(b"plain"), "plain");
    }

    #[test]
    fn a_letter_of_millions_of_values_is_shown_as_text() {
        let shown =
            shortened(format!(r#"{{"params":[{}]}}"#, vec![r#"{"":0}"#; 100_000].join(",")).as_bytes());
        assert!(shown.as_str().is_some_and(|text| text.starts_with(r#"{"params":[{"":0}"#)), "{shown}");
    }

    #[test]
    fn a_letter_goes_back_to_where_it_came_from_and_nowhere_else() {
        let names = Topology::new("ns").unwrap();
        let lane = |lane: &str| Some(Queue::Edits { lane: lane.to_owned() });
        for (queue, to) in [
            ("tasks", Some(Queue::Tasks)),
            ("ns.tasks", Some(Queue::Tasks)),
            ("edits.local", lane("local")),
            ("ns.edits.dashscope.wanx", lane("dashscope.wanx")),
            ("edits.", None),
            ("unknown", None),
            ("other.tasks", None),
        ] {
            assert_eq!(target(&names, queue), to, "{queue}");
        }
    }
}

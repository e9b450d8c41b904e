//! The schemas under `docs/` are those of the types, take what the contract shows and refuse what validation refuses.

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::event::Event;
use crate::task::{MAX_METADATA_BYTES, MAX_PARAMS_BYTES, MAX_PROMPT_CHARS, Task};

const CONTRACT: &str = include_str!("../../../docs/contract.md");

fn validator(schema: &schemars::Schema) -> Validator {
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema.as_value()).unwrap()
}

/// The JSON examples of the contract, in their order: task, event, cancel.
fn examples() -> Vec<Value> {
    let blocks = CONTRACT.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap()).collect()
}

fn small() -> Value {
    json!({"v": 1, "task_id": "t-1", "edit_type": "blur", "images": [{"url": "https://example.com/a.png"}]})
}

fn with(field: &str, value: Value) -> Value {
    let mut message = small();
    message[field] = value;
    message
}

/// A task with every field and every kind of picture.
fn full() -> Value {
    json!({
        "v": 1, "task_id": "0193-a", "edit_type": "remove_watermark", "prompt": "Remove it", "model": "wanx2.1-imageedit",
        "params": {"seed": 7}, "mask": {"url": "https://example.com/mask.png"},
        "images": [{"url": "https://example.com/a"}, {"data": "data:image/png;base64,AA=="},
                   {"blob": "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"},
                   {"url": "https://example.com/", "image_hash": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}],
        "variant": "b", "metadata": {"user_id": "42"}
    })
}

#[test]
fn the_schemas_under_docs_are_those_of_the_types() {
    let task = include_str!("../../../docs/task.schema.json");
    let event = include_str!("../../../docs/event.schema.json");
    let cancel = include_str!("../../../docs/cancel.schema.json");
    for (name, schema, checked_in) in
        [("task", super::task(), task), ("event", super::event(), event), ("cancel", super::cancel(), cancel)]
    {
        let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert!(
            generated == checked_in,
            "docs/{name}.schema.json is not what the types say; write it again:\n    \
             cargo run -- schema {name} > docs/{name}.schema.json"
        );
    }
}

#[test]
fn the_examples_of_the_contract_are_valid() {
    let [task, event, cancel] = examples().try_into().expect("a task, an event and a cancel");
    Cancel::decode(cancel.to_string().as_bytes()).unwrap();
    validator(&super::cancel()).validate(&cancel).unwrap();
    Task::decode(task.to_string().as_bytes()).unwrap();
    let read: Event = serde_json::from_value(event.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), event);
    assert_eq!(
        read.event_id,
        Event::id_for(&read.task_id, read.status, [read.hit, read.joined, read.paid, read.failed])
    );
    validator(&super::event()).validate(&event).unwrap();
    let schema = validator(&super::task());
    schema.validate(&task).unwrap();
}

#[test]
fn a_schema_takes_every_message_that_the_worker_takes() {
    let schema = validator(&super::task());
    let null_image = json!({"url": "https://example.com/", "data": null, "blob": null});
    for message in [
        small(),
        full(),
        with("prompt", json!("")),
        with("prompt", json!(format!("{} \n", "x".repeat(MAX_PROMPT_CHARS)))),
        with("prompt", Value::Null),
        with("model", Value::Null),
        with("params", Value::Null),
        with("mask", Value::Null),
        with("variant", Value::Null),
        with("metadata", Value::Null),
        with("images", json!([null_image])),
        with("images", json!(vec![null_image; 64])),
        with("task_id", json!("x".repeat(64))),
        with("edit_type", json!("x".repeat(32))),
        with("model", json!("\u{1f600}".repeat(128))),
        with("variant", json!("\u{1f600}".repeat(64))),
    ] {
        let worker = Task::decode(message.to_string().as_bytes()).map(drop);
        let refused: Vec<_> = schema.iter_errors(&message).map(|error| error.to_string()).collect();
        assert!(worker.is_ok() && refused.is_empty(), "{message}: {worker:?} {refused:?}");
    }
}

#[test]
fn rules_of_the_schema_are_refused_by_schema_and_worker_alike() {
    let url = json!({"url": "https://example.com/"});
    let mut messages = vec![
        json!(null),
        json!([1, "a", "blur", "", null, {}, null, [url], null, null]),
        with("colour", json!(1)),
        with("v", json!(2)),
        with("v", json!("1")),
        with("task_id", json!("")),
        with("task_id", json!("a b")),
        with("task_id", json!("x".repeat(65))),
        with("task_id", json!(7)),
        with("edit_type", json!("")),
        with("edit_type", json!("a:b")),
        with("edit_type", json!("x".repeat(33))),
        with("prompt", json!(7)),
        with("prompt", json!("a\0b")),
        with("model", json!("")),
        with("model", json!("\0")),
        with("model", json!("x".repeat(129))),
        with("params", json!([])),
        with("mask", json!("https://example.com/")),
        with("mask", json!({})),
        with("mask", json!({"uri": "x"})),
        with("images", json!([])),
        with("images", json!(vec![url; 65])),
        with("images", json!({"url": "x"})),
        with("images", json!(["https://example.com/"])),
        with("images", json!([["https://example.com/", null, null]])),
        with("images", json!([{}])),
        with("images", json!([{"url": null}])),
        with("images", json!([{"url": 7}])),
        with("images", json!([{"url": "a", "data": "b"}])),
        with("images", json!([{"url": "a", "position": 0}])),
        with("images", json!([{"url": "x".repeat(8193)}])),
        with("images", json!([{"blob": "6b86"}])),
        with("images", json!([{"url": "a", "image_hash": "6b86"}])),
        with("images", json!([{"url": "a", "image_hash": "A".repeat(64)}])),
        with("images", json!([{"data": "a", "image_hash": "a".repeat(64)}])),
        with("images", json!([{"blob": format!("sha256:{}", "a".repeat(64)), "image_hash": "a".repeat(64)}])),
        with("images", json!([{"blob": format!("sha256:{}", "A".repeat(64))}])),
        with("variant", json!("")),
        with("variant", json!("x".repeat(65))),
        with("metadata", json!([])),
        with("metadata", json!("x")),
    ];
    for field in ["v", "task_id", "edit_type", "images"] {
        let mut message = small();
        message.as_object_mut().unwrap().remove(field);
        messages.push(message);
    }
    let schema = validator(&super::task());
    for message in messages {
        let text = message.to_string();
        let text = &text[..text.len().min(200)];
        assert!(Task::decode(message.to_string().as_bytes()).is_err(), "the worker takes {text}");
        assert!(!schema.is_valid(&message), "the schema takes {text}");
    }
}

/// A known, short list. Duplicate keys are missing from it: a parsed document no longer shows them.
#[test]
fn rules_that_a_schema_cannot_express_are_refused_by_the_worker() {
    let schema = validator(&super::task());
    for message in [
        with("v", json!(1.0)),
        with("prompt", json!("x".repeat(MAX_PROMPT_CHARS + 1))),
        with("params", json!({"a": "x".repeat(MAX_PARAMS_BYTES)})),
        with("metadata", json!({"a": "x".repeat(MAX_METADATA_BYTES)})),
        with("images", json!([{"url": "é".repeat(8000)}])),
    ] {
        assert!(schema.is_valid(&message));
        assert!(Task::decode(message.to_string().as_bytes()).is_err());
    }
}

#[test]
fn an_event_that_no_worker_sends_is_refused_by_its_schema() {
    let schema = validator(&super::event());
    let event = examples().swap_remove(1);
    let changed = |path: &str, value: Value| {
        let mut event = event.clone();
        *event.pointer_mut(path).unwrap() = value;
        event
    };
    let mut unknown = event.clone();
    unknown["news"] = json!({"in": "a later version"});
    schema.validate(&unknown).unwrap();
    let mut both = event.clone();
    both["images"][0]["error"] = event["images"][2]["error"].clone();
    for wrong in [
        changed("/v", json!(2)),
        changed("/event_id", json!("one")),
        changed("/task_id", json!("a b")),
        changed("/status", json!("processing")),
        changed("/hit", json!(-1)),
        changed("/images", json!([])),
        changed("/images/0/status", json!("waiting")),
        changed("/images/0/source", json!("cache")),
        changed("/images/0/result_url", Value::Null),
        changed("/images/0/image_hash", json!("6b86")),
        changed("/images/2", json!({"position": 2, "status": "failed"})),
        changed("/images/1", json!({"position": 1, "status": "done"})),
        changed("/cost/paid", json!(0.14)),
        changed("/cost/currency", json!("yuan")),
        changed("/received_at", json!("yesterday")),
        changed("/metadata", json!("x")),
        both,
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}

//! The provider's JSON: request bodies, and readers of answers.
//!
//! Answers are read leniently: documents, SDKs and gateways differ in omitted, null and nested fields. A paid
//! result is looked for first, in every place; an error code counts only without a result.

use std::time::Duration;

use bytes::Bytes;
use chrono::NaiveDateTime;
use retouch_shared::task::Params;
use serde_json::{Map, Value, json};

use super::functions::{COMMON, FUNCTIONS, PROMPT_EXTEND};
use super::models::Style;
use crate::editor::EditSpec;
use crate::editor::answer::Contents;

/// An entry of `params` that is not sent as a parameter.
pub(super) const FUNCTION: &str = "function";
/// Likewise, for `i2i`.
pub(super) const NEGATIVE_PROMPT: &str = "negative_prompt";

/// Addresses of the pictures for the provider: `data:`, `https:` or `oss:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) image: String,
    pub(super) mask: Option<String>,
}

/// The request body for one picture. `function` is only for [`Style::ImageEdit`].
pub(super) fn body(style: Style, function: &str, spec: &EditSpec, given: Given) -> Value {
    let prompt = &spec.prompt;
    let mut parameters = parameters(&spec.params);
    let input = match style {
        Style::ImageEdit => {
            parameters.remove(FUNCTION);
            let mut input = json!({ "function": function, "prompt": prompt, "base_image_url": given.image });
            if let Some(mask) = given.mask {
                input["mask_image_url"] = Value::from(mask);
            }
            input
        }
        Style::I2i => {
            let mut input = json!({ "prompt": prompt, "images": [given.image] });
            if let Some(negative) = parameters.remove(NEGATIVE_PROMPT) {
                input[NEGATIVE_PROMPT] = negative;
            }
            input
        }
        Style::Messages | Style::MessagesAsync => json!({
            "messages": [{ "role": "user", "content": [{ "image": given.image }, { "text": prompt }] }]
        }),
    };
    json!({ "model": spec.model, "input": input, "parameters": parameters })
}

/// `n` is always written out; whole numbers as integers; the rest as given.
fn parameters(params: &Params) -> Map<String, Value> {
    let known = FUNCTIONS.iter().flat_map(|function| function.params).chain(COMMON).chain([&PROMPT_EXTEND]);
    let mut parameters = params.as_object().clone();
    for param in known {
        if let Some(value) = parameters.get_mut(param.name)
            && let Some(read) = param.range.read(value)
        {
            *value = read;
        }
    }
    parameters.insert("n".to_owned(), Value::from(1));
    parameters
}

/// An answer of the provider; empty if it is not JSON.
#[derive(Debug, Clone)]
pub(super) struct Said(Value);

/// A page of the list of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) lines: Vec<Line>,
    /// Entries on all pages.
    pub(super) total: u64,
    pub(super) pages: u64,
}

/// One task of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) task_id: String,
    pub(super) model: String,
    /// Milliseconds since 1970.
    pub(super) created_ms: Option<u64>,
}

/// A task's state in a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskStatus {
    /// Waiting or running.
    Pending,
    Succeeded,
    Failed,
    Canceled,
    /// The provider does not know the task, or no longer.
    Unknown,
    /// An undocumented state; empty if there is none.
    Other(String),
}

impl Said {
    pub(super) fn read(body: &Bytes) -> Self {
        Self::of(&Contents::of(body))
    }

    pub(super) fn of(contents: &Contents) -> Self {
        Self(contents.object())
    }

    /// The task's fields, also if a gateway has wrapped them.
    fn output(&self) -> &Value {
        let whole = &self.0;
        let wrapped = [&whole["data"]["output"], &whole["data"], &whole["result"], whole];
        let is_one = |value: &&&Value| value["task_status"].is_string();
        if whole["output"].is_object() {
            return &whole["output"];
        }
        wrapped.iter().find(is_one).copied().unwrap_or(&whole["output"])
    }

    /// An error's code and message; the code is empty without an error. Compatible gateways nest them.
    pub(super) fn fault(&self) -> (String, String) {
        let flat = fault(&self.0);
        if flat.0.is_empty() { fault(&self.0["error"]) } else { flat }
    }

    pub(super) fn request_id(&self) -> String {
        text(&self.0["request_id"])
    }

    pub(super) fn task_status(&self) -> TaskStatus {
        match self.output()["task_status"].as_str().unwrap_or_default() {
            "PENDING" | "RUNNING" | "SUSPENDED" => TaskStatus::Pending,
            "SUCCEEDED" => TaskStatus::Succeeded,
            "FAILED" => TaskStatus::Failed,
            "CANCELED" => TaskStatus::Canceled,
            "UNKNOWN" => TaskStatus::Unknown,
            other => TaskStatus::Other(other.chars().take(40).collect()),
        }
    }

    /// A task's duration from submit to end by the provider's clock, if it is stated.
    pub(super) fn took(&self) -> Option<Duration> {
        let time = |name: &str| {
            let text = self.output()[name].as_str()?;
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()
        };
        (time("end_time")? - time("submit_time")?).to_std().ok()
    }

    /// Why a task has no picture: its own code, or the first of its results.
    pub(super) fn task_fault(&self) -> (String, String) {
        let own = fault(self.output());
        let mut results = items(&self.output()["results"]).map(fault);
        match results.find(|(code, _)| own.0.is_empty() && !code.is_empty()) {
            Some(first) => first,
            None if own.0.is_empty() => self.fault(),
            None => own,
        }
    }

    /// A page of the list of tasks; `None` if it is not one.
    pub(super) fn page(&self) -> Option<Page> {
        let lines = self.0["data"].as_array()?;
        let line = |line: &Value| Line {
            task_id: text(&line["task_id"]),
            model: text(&line["model_name"]),
            created_ms: line["gmt_create"].as_u64(),
        };
        let lines = lines.iter().map(line).collect();
        let count = |name: &str| self.0[name].as_u64();
        Some(Page { lines, total: count("total")?, pages: count("total_page")? })
    }

    /// The number of billed pictures, if it is stated.
    pub(super) fn billed(&self) -> Option<u64> {
        let usage = &self.0["usage"];
        usage["image_count"].as_u64().or_else(|| usage["output_image_count"].as_u64())
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fault(value: &Value) -> (String, String) {
    (text(&value["code"]), text(&value["message"]))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

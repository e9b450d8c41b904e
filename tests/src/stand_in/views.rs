//! How tasks are written: in a query, in a list, and as the answer of a synchronous call.

use serde_json::{Value, json};

use super::clock::{delta, written};
use super::results;
use super::state::{Shared, State};
use super::tasks::{Kind, Status, Task};

/// The answer to a query.
pub(super) fn query(shared: &Shared, state: &State, task: &Task) -> Value {
    let mut output = json!({
        "task_id": task.id,
        "task_status": task.status,
        "submit_time": written(task.submitted),
    });
    for (name, at) in [("scheduled_time", task.started), ("end_time", task.ended)] {
        if let Some(at) = at {
            output[name] = written(at).into();
        }
    }
    let pictures = task.pictures();
    let total = pictures.len().max(usize::try_from(task.work.n).unwrap_or_default());
    let made = match task.status {
        Status::Succeeded => pictures.iter().filter(|picture| picture.is_ok()).count(),
        _ => 0,
    };
    let failed = if task.status.ended() { total - made } else { 0 };
    output["task_metrics"] = json!({ "TOTAL": total, "SUCCEEDED": made, "FAILED": failed });
    let mut body = json!({ "request_id": super::answers::new_id() });
    match task.status {
        Status::Pending | Status::Running | Status::Canceled => {}
        Status::Failed => {
            if let Some(refusal) = task.failure() {
                output["code"] = refusal.code.clone().into();
                output["message"] = refusal.message.clone().into();
            }
        }
        Status::Succeeded => {
            match task.work.kind {
                Kind::Choices => {
                    output["finished"] = true.into();
                    output["choices"] = choices(shared, state, task, true);
                }
                Kind::Results | Kind::Call => output["results"] = results(shared, state, task),
            }
            body["usage"] = json!({ "image_count": made });
        }
    }
    body["output"] = output;
    body
}

/// The answer to a query of an unknown or expired task.
pub(super) fn unknown(id: &str) -> Value {
    json!({ "request_id": super::answers::new_id(), "output": { "task_id": id, "task_status": "UNKNOWN" } })
}

/// A line of a list, which does not show the request.
pub(super) fn line(task: &Task) -> Value {
    let (group, function) = match task.work.kind {
        Kind::Results => ("image2image", "image-synthesis"),
        Kind::Choices => ("image-generation", "generation"),
        Kind::Call => ("multimodal-generation", "generation"),
    };
    let model = task.work.model.name;
    let mut line = json!({
        "api_key_id": "1",
        "caller_parent_id": task.work.account,
        "caller_uid": task.work.account,
        "gmt_create": task.submitted.timestamp_millis(),
        "start_time": task.started.unwrap_or(task.submitted).timestamp_millis(),
        "model_name": model,
        "region": "cn-beijing",
        "request_id": task.request_id,
        "status": task.status,
        "task_id": task.id,
        "user_api_unique_key": format!("apikey:v1:aigc:{group}:{function}:{model}"),
    });
    if let Some(ended) = task.ended {
        line["end_time"] = ended.timestamp_millis().into();
    }
    line
}

/// The answer of a synchronous call that went well.
pub(super) fn call(shared: &Shared, state: &State, id: &str) -> Value {
    let task = state.tasks.get(id).expect("a task that ended");
    let made = task.pictures().iter().filter(|picture| picture.is_ok()).count();
    let size = retouch_worker::media::inspect(&task.work.edit.input).ok();
    let (width, height) = size.map_or((0, 0), |media| (media.width, media.height));
    let usage = match task.work.model.name.starts_with("qwen-image-edit") {
        true => json!({ "image_count": made, "width": width, "height": height }),
        false => json!({
            "output_image_count": made, "output_width": width, "output_height": height,
            "image_count": made, "input_image_count": 1,
        }),
    };
    json!({ "output": { "choices": choices(shared, state, task, false) }, "usage": usage })
}

fn results(shared: &Shared, state: &State, task: &Task) -> Value {
    let urls = urls(shared, state, task);
    let results = task.pictures().into_iter().zip(urls).map(|(picture, url)| match picture {
        Ok(()) => json!({ "url": url }),
        Err(refusal) => json!({ "code": refusal.code, "message": refusal.message }),
    });
    results.collect()
}

fn choices(shared: &Shared, state: &State, task: &Task, typed: bool) -> Value {
    let made =
        task.pictures().into_iter().zip(urls(shared, state, task)).filter(|(picture, _)| picture.is_ok());
    let content: Vec<Value> = made
        .map(
            |(_, url)| if typed { json!({ "type": "image", "image": url }) } else { json!({ "image": url }) },
        )
        .collect();
    json!([{ "finish_reason": "stop", "message": { "role": "assistant", "content": content } }])
}

/// The URLs of a task's pictures, also of those that failed.
pub(super) fn urls(shared: &Shared, state: &State, task: &Task) -> Vec<String> {
    let expires = task.ended.unwrap_or(task.submitted) + delta(state.settings.result_ttl);
    let base = state.settings.result_base.clone().unwrap_or_else(|| shared.url(""));
    (0..task.pictures().len()).map(|nth| results::url(&base, &task.id, nth, expires)).collect()
}

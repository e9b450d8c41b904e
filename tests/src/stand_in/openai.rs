//! OpenAI's `POST /v1/images/edits`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::answers::{Refusal, Wire, ok};
use super::asked::Asked;
use super::dashscope::MOST_BODY;
use super::form::{Field, Form};
use super::inputs::{self, Loader, Trouble};
use super::models::{self, Model, Style, Takes};
use super::state::Shared;
use super::submit::Arrived;
use super::tasks::{Edit, Kind, Submission};
use super::views;

const DEFAULT_MODEL: &str = "gpt-image-1.5";
const MOST_IMAGES: usize = 16;

pub(super) async fn edits(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let at = shared.clock.now();
    let headers = request.headers().clone();
    let json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let form = if json { read_json(request).await } else { Form::read(request).await };
    let received = Instant::now();
    // From here on the client's leaving changes nothing: the provider has the request.
    let work = tokio::spawn(async move {
        let model =
            form.as_ref().ok().and_then(|form| form.text("model")).unwrap_or(DEFAULT_MODEL).to_owned();
        let arrived = Arrived::enter(shared, headers, Wire::OpenAi, at, received, &model);
        let work = match form {
            Ok(form) => read(&arrived, form, &model).await,
            Err(words) => arrived.account().and(Err(Refusal::new(400, "invalid_request", words))),
        };
        arrived.finish(work).await
    });
    work.await.unwrap()
}

/// `GET /v1/models`: what an account may use, and so whether a key is one.
pub(super) async fn models(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let (state, _) = shared.now();
    if let Err(refusal) = state.account(&headers, Wire::OpenAi) {
        return refusal.answer(Wire::OpenAi);
    }
    let model = json!({"id": DEFAULT_MODEL, "object": "model", "created": 1, "owned_by": "openai"});
    ok(&json!({"object": "list", "data": [model]}))
}

/// The JSON body as the form that it stands for: `images` of `image_url`s become images with a URL in place of bytes.
async fn read_json(request: Request) -> Result<Form, String> {
    let body = to_bytes(request.into_body(), MOST_BODY).await.map_err(|error| error.to_string())?;
    let body: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let mut fields = Vec::new();
    for (name, value) in body {
        match (name.as_str(), value) {
            ("images", Value::Array(images)) => {
                fields.extend(images.iter().map(|image| link("image[]", image)))
            }
            ("mask", mask) => fields.push(link("mask", &mask)),
            (_, Value::String(text)) => fields.push(Field { name, bytes: text.into() }),
            (_, other) => fields.push(Field { name, bytes: other.to_string().into() }),
        }
    }
    Ok(Form(fields))
}

fn link(name: &str, image: &Value) -> Field {
    let url = image["image_url"].as_str().unwrap_or_default();
    Field { name: name.to_owned(), bytes: Bytes::from(url.to_owned()) }
}

async fn read(arrived: &Arrived, form: Form, name: &str) -> Result<Submission, Refusal> {
    let (account, model) = arrived.gate(name, |model| match model.style {
        Style::Form => Ok(()),
        Style::Functions | Style::Images | Style::Messages => {
            Err(Refusal::new(404, "model_not_found", "The model does not exist."))
        }
    })?;
    let prompt = form.text("prompt").filter(|prompt| !prompt.is_empty()).ok_or_else(|| missing("prompt"))?;
    if prompt.chars().count() > model.prompt_limit {
        let words = format!("Invalid 'prompt': string too long. Expected at most {}.", model.prompt_limit);
        return Err(Refusal::new(400, "string_above_max_length", words));
    }
    let urls = form.text("response_format");
    if urls.is_some() && name != "dall-e-2" {
        return Err(Refusal::new(400, "unknown_parameter", "Unknown parameter: 'response_format'."));
    }
    let params = params(&form, model)?;
    let n = match form.text("n") {
        None => 1,
        Some(n) => n.parse().ok().filter(|n| (1..=model.most).contains(n)).ok_or_else(|| {
            Refusal::new(400, "invalid_value", format!("Invalid 'n': {n}; 1 to {} are allowed.", model.most))
        })?,
    };
    let mut asked = Asked::new(name).prompt(prompt).params(&params);
    // Kept with the edit for the answer; no parameter that makes another picture.
    for echoed in ["response_format"].iter().filter_map(|name| Some((name, form.text(name)?))) {
        asked = asked.param(echoed.0, echoed.1);
    }
    let (images, mask) = pictures(arrived, &account, model, form).await?;
    let edit = spawn_blocking(move || {
        let mut images = images.into_iter();
        let input = images.next().unwrap_or_default();
        let asked = images.fold(asked, |asked, more| asked.and_image(&more));
        Edit::new(asked, input, mask)
    });
    let edit = edit.await.unwrap();
    if edit.first.is_err() {
        return Err(Refusal::new(400, "invalid_image_file", "Invalid image file or mode for image 1."));
    }
    Ok(Submission { account, model, kind: Kind::Call, edit: Arc::new(edit), n, late: None })
}

/// The parameters that make another picture, as JSON: a form has only text.
fn params(form: &Form, model: &Model) -> Result<Map<String, Value>, Refusal> {
    let mut params = Map::new();
    for param in models::params(model, "") {
        let Some(text) = form.text(param.name) else { continue };
        let value = match param.takes {
            Takes::Text(_) => Value::from(text),
            _ => serde_json::from_str(text).unwrap_or(Value::Null),
        };
        if let Some(wrong) = param.refuses(&value) {
            return Err(Refusal::new(400, "invalid_value", wrong));
        }
        params.insert(param.name.to_owned(), value);
    }
    Ok(params)
}

async fn pictures(
    arrived: &Arrived,
    account: &str,
    model: &'static Model,
    form: Form,
) -> Result<(Vec<Bytes>, Option<Bytes>), Refusal> {
    let loader = Loader { shared: &arrived.shared, account, model, headers: &arrived.headers };
    let (mut images, mut mask, mut size) = (Vec::new(), None, None);
    for field in form.0 {
        if !matches!(field.name.as_str(), "image" | "image[]" | "mask") {
            continue;
        }
        let link = std::str::from_utf8(&field.bytes).ok().filter(|text| text.contains(':'));
        let bytes = match link {
            Some(url) => loader.load(url).await.map_err(Trouble::refusal)?,
            None => field.bytes,
        };
        if field.name == "mask" {
            mask = Some(bytes);
        } else {
            size = size.or(Some(inputs::check(model, &bytes)?));
            images.push(bytes);
        }
    }
    let size = size.ok_or_else(|| missing("image"))?;
    if images.len() > MOST_IMAGES {
        return Err(Refusal::new(400, "array_above_max_length", "Invalid 'image': at most 16 are allowed."));
    }
    if let Some(mask) = &mask {
        inputs::check_mask(model, size, mask)?;
    }
    Ok((images, mask))
}

fn missing(name: &str) -> Refusal {
    Refusal::new(400, "missing_required_parameter", format!("Missing required parameter: '{name}'."))
}

/// The answer once the work is done: the pictures themselves, or URLs of them.
pub(super) async fn done(shared: &Shared, id: &str) -> Response {
    let (edit, pictures, urls, as_urls, created) = {
        let (state, now) = shared.now();
        let task = state.tasks.get(id).expect("a task that ended");
        let edit = Arc::clone(&task.work.edit);
        let urls = views::urls(shared, &state, task);
        let as_urls = match (state.settings.openai_urls, task.work.model.name) {
            (true, _) => true,
            (false, "dall-e-2") => edit.asked.get("response_format") != Some("b64_json"),
            (false, _) => false,
        };
        (edit, task.pictures(), urls, as_urls, now.timestamp())
    };
    let asked = edit.asked.clone();
    let many = pictures.iter().filter(|picture| picture.is_ok()).count();
    let makes = shared.now().0.settings.makes.clone();
    let data: Vec<Value> = if let (Some(makes), false) = (makes, as_urls) {
        vec![json!({ "b64_json": BASE64.encode(makes.whole()) })]
    } else if as_urls {
        pictures
            .iter()
            .zip(urls)
            .filter(|(made, _)| made.is_ok())
            .map(|(_, url)| json!({ "url": url }))
            .collect()
    } else {
        let made = spawn_blocking(move || {
            let made = (0..many).filter_map(|nth| edit.made(nth).ok());
            made.map(|bytes| json!({ "b64_json": BASE64.encode(bytes) })).collect()
        });
        made.await.unwrap()
    };
    let said = |name: &str, otherwise: &str| asked.get(name).unwrap_or(otherwise).to_owned();
    ok(&json!({
        "created": created,
        "data": data,
        "background": said("background", "opaque"),
        "output_format": said("output_format", "png"),
        "size": said("size", "1024x1024"),
        "quality": said("quality", "high"),
        "usage": {
            "total_tokens": 100 + 1000 * many, "input_tokens": 100, "output_tokens": 1000 * many,
            "input_tokens_details": { "text_tokens": 10, "image_tokens": 90 },
        },
    }))
}

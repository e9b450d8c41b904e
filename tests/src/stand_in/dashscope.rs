//! DashScope's creates: the image2image path with its functions, and the messages-style paths.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde_json::{Map, Value};
use tokio::task::spawn_blocking;

use super::answers::{Refusal, Wire};
use super::asked::Asked;
use super::inputs::{self, Loader, Trouble};
use super::models::{self, FUNCTIONS, Model, Style};
use super::state::Shared;
use super::submit::Arrived;
use super::tasks::{Edit, Kind, Submission};

/// Most bytes of a request. The provider's own limit is not documented.
pub(super) const MOST_BODY: usize = 200 * 1024 * 1024;

/// Where the request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Image2Image,
    Messages,
    MessagesTask,
}

pub(super) async fn image2image(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    create(shared, headers, body, Way::Image2Image).await
}

pub(super) async fn messages(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    create(shared, headers, body, Way::Messages).await
}

pub(super) async fn messages_task(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    create(shared, headers, body, Way::MessagesTask).await
}

async fn create(shared: Arc<Shared>, headers: HeaderMap, body: Body, way: Way) -> Response {
    let at = shared.clock.now();
    let body = to_bytes(body, MOST_BODY).await;
    let received = Instant::now();
    // From here on the client's leaving changes nothing: the provider has the request.
    let work = tokio::spawn(async move {
        let request = match body {
            Ok(body) => parse(&headers, body).await,
            Err(_) => Err(Refusal::new(413, "BadRequest.TooLarge", "Payload Too Large")),
        };
        let model =
            request.as_ref().ok().and_then(|request| text(request, "model")).unwrap_or_default().to_owned();
        let arrived = Arrived::enter(shared, headers, Wire::DashScope, at, received, &model);
        let work = match request {
            Ok(request) => read(&arrived, &request, &model, way).await,
            // Authorisation is checked first.
            Err(refusal) => arrived.account().and(Err(refusal)),
        };
        arrived.finish(work).await
    });
    work.await.unwrap()
}

async fn parse(headers: &HeaderMap, body: Bytes) -> Result<Map<String, Value>, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(Refusal::invalid("Content-Type must be application/json."));
    }
    let parsed = spawn_blocking(move || serde_json::from_slice(&body)).await.unwrap();
    parsed.map_err(|error| {
        Refusal::invalid(format!("Required body invalid, please check the request body format: {error}"))
    })
}

async fn read(
    arrived: &Arrived,
    request: &Map<String, Value>,
    name: &str,
    way: Way,
) -> Result<Submission, Refusal> {
    let (account, model) = arrived.gate(name, |model| right_way(&arrived.headers, model, way))?;
    let empty = Map::new();
    let input = request.get("input").and_then(Value::as_object).unwrap_or(&empty);
    let given = request.get("parameters").and_then(Value::as_object).unwrap_or(&empty);
    if input.is_empty() {
        return Err(Refusal::new(
            400,
            "BadRequest.EmptyInput",
            "Required input parameter missing from request.",
        ));
    }
    let wish = Wish::of(model, input, given);
    let fails_late = arrived.shared.now().0.settings.fails_late;
    let (wish, mut late) = match wish {
        Ok(wish) => (wish, None),
        Err(refusal) if fails_late => (Wish::default(), Some(refusal)),
        Err(refusal) => return Err(refusal),
    };
    let loader = Loader { shared: &arrived.shared, account: &account, model, headers: &arrived.headers };
    let pictures = match pictures(&loader, &wish).await {
        Ok(pictures) => pictures,
        Err(Trouble::Refused(refusal)) if !fails_late => return Err(refusal),
        Err(Trouble::Refused(refusal) | Trouble::Unreachable(refusal)) => {
            late = late.or(Some(refusal));
            Pictures::default()
        }
    };
    let kind = match way {
        Way::Image2Image => Kind::Results,
        Way::Messages => Kind::Call,
        Way::MessagesTask => Kind::Choices,
    };
    let n = wish.n;
    let asked = wish.asked(model);
    let edit = spawn_blocking(move || pictures.edit(asked)).await.unwrap();
    if late.is_none() && edit.first.is_err() {
        let words = "Invalid image type. Please ensure the uploaded file is a valid image.";
        late = Some(Refusal::new(400, "InvalidImage.FileFormat", words));
    }
    Ok(Submission { account, model, kind, edit: Arc::new(edit), n, late })
}

fn right_way(headers: &HeaderMap, model: &Model, way: Way) -> Result<(), Refusal> {
    let fits = match way {
        Way::Image2Image => matches!(model.style, Style::Functions | Style::Images),
        Way::Messages => model.style == Style::Messages,
        Way::MessagesTask => model.has_messages_tasks(),
    };
    if !fits {
        return Err(Refusal::new(400, "InvalidURL", "url error, please check url!"));
    }
    let asked = headers.get("x-dashscope-async").is_some_and(|value| value == "enable");
    match (way, asked) {
        (Way::Image2Image | Way::MessagesTask, false) => {
            Err(Refusal::new(403, "AccessDenied", "current user api does not support synchronous calls."))
        }
        (Way::Messages, true) => {
            Err(Refusal::new(403, "AccessDenied", "current user api does not support asynchronous calls."))
        }
        (Way::Image2Image | Way::MessagesTask, true) | (Way::Messages, false) => Ok(()),
    }
}

/// What a request asks for, before its pictures are had.
#[derive(Debug, Default)]
struct Wish {
    function: String,
    prompt: String,
    images: Vec<String>,
    mask: Option<String>,
    params: Map<String, Value>,
    n: u64,
}

impl Wish {
    fn of(model: &Model, input: &Map<String, Value>, given: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut wish = match model.style {
            Style::Functions => Self::function(input)?,
            Style::Images => Self::images(input)?,
            Style::Messages | Style::Form => Self::message(input)?,
        };
        wish.params.extend(given.clone());
        for param in models::params(model, &wish.function) {
            if let Some(wrong) = wish.params.get(param.name).and_then(|value| param.refuses(value)) {
                return Err(Refusal::invalid(wrong));
            }
        }
        wish.n = match given.get("n") {
            None => 1,
            Some(n) => n
                .as_u64()
                .filter(|n| (1..=model.most).contains(n))
                .ok_or_else(|| Refusal::invalid(format!("n must be in 1..{}, got {n}", model.most)))?,
        };
        Ok(wish)
    }

    fn function(input: &Map<String, Value>) -> Result<Self, Refusal> {
        let function = required(input, "function")?;
        if !FUNCTIONS.contains(&function) {
            return Err(Refusal::invalid(format!("function {function} is not supported")));
        }
        let masked = function == "description_edit_with_mask";
        Ok(Self {
            function: function.to_owned(),
            prompt: required(input, "prompt")?.to_owned(),
            images: vec![required(input, "base_image_url")?.to_owned()],
            mask: if masked { Some(required(input, "mask_image_url")?.to_owned()) } else { None },
            ..Self::default()
        })
    }

    fn images(input: &Map<String, Value>) -> Result<Self, Refusal> {
        let images = input.get("images").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let images: Option<Vec<_>> = images.iter().map(|image| image.as_str().map(str::to_owned)).collect();
        let images = images.filter(|images| (1..=3).contains(&images.len()));
        let images = images.ok_or_else(|| Refusal::invalid("images must be 1 to 3 URLs"))?;
        let mut params = Map::new();
        if let Some(negative) = input.get("negative_prompt") {
            params.insert("negative_prompt".to_owned(), negative.clone());
        }
        Ok(Self { prompt: required(input, "prompt")?.to_owned(), images, params, ..Self::default() })
    }

    fn message(input: &Map<String, Value>) -> Result<Self, Refusal> {
        let one = |value: &'_ Value| value.as_array().filter(|all| all.len() == 1).map(|all| all[0].clone());
        let message = input.get("messages").and_then(one);
        let message = message.filter(|message| message["role"] == "user");
        let content = message.as_ref().and_then(|message| message["content"].as_array());
        let content = content.ok_or_else(|| Refusal::invalid("messages must be one message of the user"))?;
        let all = |name: &str| -> Vec<String> {
            content.iter().filter_map(|item| item[name].as_str().map(str::to_owned)).collect()
        };
        let (images, texts) = (all("image"), all("text"));
        match (images.len(), texts.as_slice()) {
            (1..=3, [text]) => Ok(Self { prompt: text.clone(), images, ..Self::default() }),
            (1..=3, _) => Err(Refusal::invalid("the message must have exactly one text")),
            _ => Err(Refusal::invalid("the message must have 1 to 3 images")),
        }
    }

    fn asked(&self, model: &Model) -> Asked {
        Asked::new(model.name).function(&self.function).prompt(&self.prompt).params(&self.params)
    }
}

#[derive(Debug, Default)]
struct Pictures {
    images: Vec<Bytes>,
    mask: Option<Bytes>,
}

impl Pictures {
    fn edit(self, mut asked: Asked) -> Edit {
        let mut images = self.images.into_iter();
        let input = images.next().unwrap_or_default();
        for more in images {
            asked = asked.and_image(&more);
        }
        Edit::new(asked, input, self.mask)
    }
}

async fn pictures(loader: &Loader<'_>, wish: &Wish) -> Result<Pictures, Trouble> {
    let mut pictures = Pictures::default();
    let mut media = None;
    for url in &wish.images {
        let bytes = loader.load(url).await?;
        let found = inputs::check(loader.model, &bytes).map_err(Trouble::Refused)?;
        media = media.or(Some(found));
        pictures.images.push(bytes);
    }
    if let (Some(url), Some(media)) = (&wish.mask, media) {
        let bytes = loader.load(url).await?;
        inputs::check_mask(loader.model, media, &bytes).map_err(Trouble::Refused)?;
        pictures.mask = Some(bytes);
    }
    Ok(pictures)
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn required<'a>(input: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    text(input, name)
        .ok_or_else(|| Refusal::invalid(format!("Required parameter({name}) missing or invalid")))
}

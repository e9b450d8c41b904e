//! The provider's models: their paths, inputs, prices and rate limits.
//!
//! Facts of November 2026, from the providers' own pages; where those are silent the comment says so.

use std::time::Duration;

use serde_json::{Map, Value};

use super::settings::ModelLimits;

/// How a model is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Asynchronous, with `function` and `base_image_url`: wanx2.1-imageedit.
    Functions,
    /// Asynchronous at the same path, with `images`: wan2.5-i2i-preview.
    Images,
    /// One message of pictures and a text, answered at once; the wan models also asynchronously at a path of their own.
    Messages,
    /// A multipart form, answered at once: OpenAI.
    Form,
}

/// A model.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Its id.
    pub name: &'static str,
    /// How it is called.
    pub style: Style,
    /// In hundredths of a yuan for each picture made. Zero for OpenAI's, which are billed by tokens.
    pub price_fen: u64,
    /// Gone since October 2026, until [`super::StandIn::revive`].
    pub retired: bool,
    /// Most pictures a request may ask for.
    pub most: u64,
    /// Characters of the prompt that are used; the rest is dropped silently (OpenAI refuses instead).
    pub prompt_limit: usize,
    /// Submits in a span of time, if documented.
    submits: Option<(usize, Duration)>,
    running: Option<usize>,
}

impl Model {
    /// What the account-wide limits of this model are documented to be.
    #[must_use]
    pub fn limits(&self) -> ModelLimits {
        ModelLimits { submits: self.submits, running: self.running }
    }

    /// Whether it also has the asynchronous messages path.
    pub(super) fn has_messages_tasks(&self) -> bool {
        self.style == Style::Messages && self.name.starts_with("wan")
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

const fn model(name: &'static str, style: Style, price_fen: u64) -> Model {
    let (most, prompt_limit, submits, running) = match style {
        Style::Functions => (4, 800, Some((2, SECOND)), Some(2)),
        Style::Images => (4, 2000, Some((5, SECOND)), Some(5)),
        // No concurrency limit where the call is synchronous.
        Style::Messages => (6, 800, Some((2, SECOND)), None),
        Style::Form => (10, 32_000, None, None),
    };
    Model { name, style, price_fen, retired: false, most, prompt_limit, submits, running }
}

const fn wan(name: &'static str, price_fen: u64, prompt_limit: usize) -> Model {
    Model {
        prompt_limit,
        most: 4,
        submits: Some((5, SECOND)),
        running: Some(5),
        ..model(name, Style::Messages, price_fen)
    }
}

const fn two_a_minute(model: Model) -> Model {
    Model { submits: Some((2, MINUTE)), ..model }
}

const fn retired(model: Model) -> Model {
    Model { retired: true, ..model }
}

/// Every model that the stand-in knows.
pub static MODELS: [Model; 14] = [
    model("wanx2.1-imageedit", Style::Functions, 14),
    model("wan2.5-i2i-preview", Style::Images, 20),
    model("qwen-image-2.0", Style::Messages, 20),
    two_a_minute(model("qwen-image-2.0-pro", Style::Messages, 50)),
    wan("wan2.6-image", 20, 2000),
    wan("wan2.7-image", 20, 5000),
    wan("wan2.7-image-pro", 50, 5000),
    retired(Model { most: 1, ..model("qwen-image-edit", Style::Messages, 30) }),
    retired(model("qwen-image-edit-plus", Style::Messages, 20)),
    retired(two_a_minute(model("qwen-image-edit-max", Style::Messages, 50))),
    model("gpt-image-1.5", Style::Form, 0),
    model("gpt-image-1-mini", Style::Form, 0),
    Model { prompt_limit: 1000, ..model("dall-e-2", Style::Form, 0) },
    retired(model("gpt-image-1", Style::Form, 0)),
];

/// The model of this name, retired or not.
#[must_use]
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// The ten functions of wanx2.1-imageedit.
pub const FUNCTIONS: [&str; 10] = [
    "stylization_all",
    "stylization_local",
    "description_edit",
    "description_edit_with_mask",
    "remove_watermark",
    "expand",
    "super_resolution",
    "colorization",
    "doodle",
    "control_cartoon_feature",
];

/// What values a parameter takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Whole(i64, i64),
    Number(f64, f64),
    Flag,
    /// Any text; cut after so many characters.
    Text(usize),
    /// `W*H`, both sides within.
    Sides(u32, u32),
    /// `W*H`, the area within.
    Area(u32, u32),
}

/// A parameter that changes the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// Given or not, the same edit.
    default: Option<&'static str>,
}

const fn param(name: &'static str, takes: Takes, default: Option<&'static str>) -> Param {
    Param { name, takes, default }
}

const SEED: Param = param("seed", Takes::Whole(0, 2_147_483_647), None);
const WATERMARK: Param = param("watermark", Takes::Flag, Some("false"));
const NEGATIVE: Param = param("negative_prompt", Takes::Text(500), None);
const EXTEND: Param = param("prompt_extend", Takes::Flag, Some("true"));
const STRENGTH: [Param; 3] = [SEED, WATERMARK, param("strength", Takes::Number(0.0, 1.0), Some("0.5"))];
const fn side(name: &'static str) -> Param {
    param(name, Takes::Number(1.0, 2.0), Some("1.0"))
}
const EXPAND: [Param; 6] =
    [SEED, WATERMARK, side("top_scale"), side("bottom_scale"), side("left_scale"), side("right_scale")];
const UPSCALE: [Param; 3] = [SEED, WATERMARK, param("upscale_factor", Takes::Whole(1, 4), Some("1"))];
const DOODLE: [Param; 3] = [SEED, WATERMARK, param("is_sketch", Takes::Flag, Some("false"))];
const IMAGES: [Param; 5] =
    [SEED, WATERMARK, NEGATIVE, EXTEND, param("size", Takes::Area(768 * 768, 1280 * 1280), None)];
const MESSAGES: [Param; 5] =
    [SEED, WATERMARK, NEGATIVE, EXTEND, param("size", Takes::Sides(512, 2048), None)];
const FORM: [Param; 6] = [
    param("size", Takes::Text(16), Some(r#""auto""#)),
    param("quality", Takes::Text(16), Some(r#""auto""#)),
    param("background", Takes::Text(16), Some(r#""auto""#)),
    param("input_fidelity", Takes::Text(16), Some(r#""low""#)),
    param("output_format", Takes::Text(16), Some(r#""png""#)),
    param("output_compression", Takes::Whole(0, 100), Some("100")),
];

/// The parameters that a function of a model knows, apart from `n`; any other is ignored.
pub(super) fn params(model: &Model, function: &str) -> &'static [Param] {
    match model.style {
        Style::Functions => match function {
            "stylization_all" | "description_edit" => &STRENGTH,
            "expand" => &EXPAND,
            "super_resolution" => &UPSCALE,
            "doodle" => &DOODLE,
            _ => &STRENGTH[..2],
        },
        Style::Images => &IMAGES,
        Style::Messages => &MESSAGES,
        Style::Form => &FORM,
    }
}

impl Param {
    /// Why a value is invalid, if it is.
    pub(super) fn refuses(&self, value: &Value) -> Option<String> {
        let name = self.name;
        let fits = match self.takes {
            Takes::Whole(least, most) => value.as_i64().is_some_and(|it| (least..=most).contains(&it)),
            Takes::Number(least, most) => value.as_f64().is_some_and(|it| (least..=most).contains(&it)),
            Takes::Flag => value.is_boolean(),
            Takes::Text(_) => value.is_string(),
            Takes::Sides(least, most) => {
                size(value).is_some_and(|(w, h)| [w, h].iter().all(|side| (least..=most).contains(side)))
            }
            Takes::Area(least, most) => size(value).is_some_and(|(w, h)| (least..=most).contains(&(w * h))),
        };
        (!fits).then(|| format!("{name} is not as documented: {:?} expected, got {value}", self.takes))
    }

    /// The value as the model takes it; `None` when it says no more than the default.
    fn seen(&self, value: &Value) -> Option<Value> {
        let value = match (self.takes, value) {
            (Takes::Text(limit), Value::String(text)) => Value::from(cut(text, limit)),
            (Takes::Number(..), number) => number.as_f64().map_or(Value::Null, Value::from),
            (_, other) => other.clone(),
        };
        let default = self.default.map(|text| serde_json::from_str::<Value>(text).unwrap());
        (default.as_ref() != Some(&value) && !value.is_null()).then_some(value)
    }
}

/// Of parameters, those that the model knows and that say more than their defaults.
pub(super) fn seen_params(model: &Model, function: &str, given: &Map<String, Value>) -> Map<String, Value> {
    let known = params(model, function).iter();
    known.filter_map(|param| Some((param.name.to_owned(), param.seen(given.get(param.name)?)?))).collect()
}

/// The first `limit` characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

fn size(value: &Value) -> Option<(u32, u32)> {
    let (width, height) = value.as_str()?.split_once('*')?;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=10_000).contains(side));
    Some((side(width)?, side(height)?))
}

//! An edit as the provider sees it, and its picture: deterministic, and marked with the edit.

use image::{DynamicImage, GenericImage, GenericImageView, Rgba};
use retouch_shared::key::Digest32;
use retouch_worker::media::{Format, MediaError, Pixels, inspect};
use serde_json::{Map, Value, json};

use super::models;

/// Names a picture together with an edit: the same for two requests that cost twice what they should.
pub type Identity = Digest32;

/// How many pixels, from the first on, tell which edit a picture was made by.
const STAMP: u32 = 32;

/// An edit that is asked of a model. It may be given as a client has it: what the provider drops is dropped here too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    model: String,
    function: String,
    prompt: String,
    params: Map<String, Value>,
    mask: Option<Digest32>,
    more_images: Vec<Digest32>,
}

impl Asked {
    /// Which model is asked.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// An edit by this model, with nothing said yet.
    #[must_use]
    pub fn new(model: &str) -> Self {
        let (function, prompt, params) = Default::default();
        Self { model: model.to_owned(), function, prompt, params, mask: None, more_images: vec![] }
    }

    /// With a function, where the model has several.
    #[must_use]
    pub fn function(mut self, function: &str) -> Self {
        function.clone_into(&mut self.function);
        self
    }

    /// With a prompt.
    #[must_use]
    pub fn prompt(mut self, prompt: &str) -> Self {
        prompt.clone_into(&mut self.prompt);
        self
    }

    /// With a parameter; `n`, which makes no other picture, counts for nothing here.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_owned(), value.into());
        self
    }

    /// With all of these parameters.
    #[must_use]
    pub fn params(mut self, params: &Map<String, Value>) -> Self {
        self.params.extend(params.clone());
        self
    }

    /// With this mask.
    #[must_use]
    pub fn mask(mut self, mask: &[u8]) -> Self {
        self.mask = Some(Digest32::of(mask));
        self
    }

    /// With another picture after the first.
    #[must_use]
    pub fn and_image(mut self, image: &[u8]) -> Self {
        self.more_images.push(Digest32::of(image));
        self
    }

    /// The name of this edit of this picture.
    #[must_use]
    pub fn identity(&self, input: &[u8]) -> Identity {
        Digest32::of(format!("{} {}", Digest32::of(input), self.canonical()).as_bytes())
    }

    /// As the provider sees it: the prompt cut, unknown parameters and defaults gone, keys sorted.
    fn canonical(&self) -> String {
        let Self { model, function, prompt, params, mask, more_images } = self;
        let (prompt, params) = match models::find(model) {
            Some(known) => {
                (models::cut(prompt, known.prompt_limit), models::seen_params(known, function, params))
            }
            None => (prompt.as_str(), params.clone()),
        };
        json!([model, function, prompt, params, mask, more_images]).to_string()
    }

    /// A parameter that is text.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// The format that the model answers in; only OpenAI's can be asked for another than PNG.
    fn format(&self) -> Format {
        let form = models::find(&self.model).is_some_and(|model| model.style == models::Style::Form);
        match self.get("output_format") {
            Some("jpeg") if form => Format::Jpeg,
            Some("webp") if form => Format::WebP,
            _ => Format::Png,
        }
    }
}

/// The picture that the provider makes of `input`: its negative, upright, of the same size whatever was asked; the first
/// 32 pixels are greys taken from a digest of the edit. Panics for what is no picture.
#[must_use]
pub fn expected(input: &[u8], asked: &Asked) -> Vec<u8> {
    expected_nth(input, asked, 0)
}

/// As [`expected`], of several pictures that one request asked for, counting from 0.
#[must_use]
pub fn expected_nth(input: &[u8], asked: &Asked, nth: usize) -> Vec<u8> {
    render(input, asked, nth).expect("a picture")
}

pub(super) fn render(input: &[u8], asked: &Asked, nth: usize) -> Result<Vec<u8>, MediaError> {
    let Pixels { image, profile, density } = Pixels::decode(input, &inspect(input)?)?;
    // Eight bits: a stamp in greys of a palette or of 16 bits would not survive every comparison.
    let mut image = match image.color().has_alpha() {
        true => DynamicImage::from(image.into_rgba8()),
        false => DynamicImage::from(image.into_rgb8()),
    };
    image.invert();
    let stamp = Digest32::of(format!("{nth} {}", asked.canonical()).as_bytes());
    let width = image.width();
    for (at, grey) in (0..STAMP).zip(stamp.as_bytes()) {
        let (x, y) = (at % width, at / width);
        if image.in_bounds(x, y) {
            image.put_pixel(x, y, Rgba([*grey, *grey, *grey, u8::MAX]));
        }
    }
    Pixels { image, profile, density }.encode(asked.format()).map(|(bytes, _)| bytes)
}

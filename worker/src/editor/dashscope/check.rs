//! Refuses, before anything is paid, requests that the provider refuses or silently mishandles.
//!
//! Each refusal names the field, the limit, the value and the fix. Undocumented limits are left to the
//! provider, whose own refusal costs nothing.

use retouch_shared::task::Params;

use super::functions::{COMMON, FUNCTIONS, Function, PROMPT_EXTEND, Param, function};
use super::inputs::{Input, data_uri_len, raw_bytes_within};
use super::models::{Style, prompt_limit};
use super::wire::{FUNCTION, NEGATIVE_PROMPT};
use crate::editor::{EditError, EditSpec, Measure, check_mask_size};
use crate::media::Format;

/// The largest picture with any [`Input`].
const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The provider's own number: "Exceeded limit on max bytes per data-uri item : 10485760".
const MAX_DATA_URI: usize = 10_485_760;
const MAX_NEGATIVE_PROMPT: usize = 500;
/// For `i2i`: pixels of the result, from 768 by 768 to 1280 by 1280.
const RESULT_PIXELS: [u64; 2] = [768 * 768, 1280 * 1280];
/// For `i2i`: the longer side of the result over the shorter.
const MAX_RATIO: u64 = 4;

/// Checks a whole edit; returns its function, if its style has functions.
pub(super) fn check(
    style: Style,
    input: Input,
    spec: &EditSpec,
    image: Measure,
) -> Result<Option<&'static Function>, EditError> {
    let function = match style {
        Style::ImageEdit => Some(function_of(spec)?),
        Style::I2i | Style::Messages | Style::MessagesAsync => None,
    };
    prompt(style, function, spec)?;
    parameters(style, function, &spec.params)?;
    picture("image", style, input, image)?;
    mask(style, function, input, spec.mask, image)?;
    Ok(function)
}

fn invalid_params(message: String) -> EditError {
    EditError::rejected("invalid_params", message)
}

/// `params.function`, or the edit type of the same name.
fn function_of(spec: &EditSpec) -> Result<&'static Function, EditError> {
    let known = || FUNCTIONS.iter().map(|function| function.name).collect::<Vec<_>>().join(", ");
    match spec.params.get(FUNCTION) {
        Some(name) => name.as_str().and_then(function).ok_or_else(|| {
            invalid_params(format!("params.function: {} has {}, not {name}", spec.model, known()))
        }),
        None => function(&spec.edit_type).ok_or_else(|| {
            let EditSpec { model, edit_type, .. } = spec;
            invalid_params(format!(
                "params.function is missing: {model} must be told what to do, and {edit_type:?} is none of {}; set params = {{ function = \"description_edit\" }} or another in [routes.{edit_type}]",
                known()
            ))
        }),
    }
}

fn prompt(style: Style, function: Option<&Function>, spec: &EditSpec) -> Result<(), EditError> {
    let needed = function.is_none_or(|function| function.needs_prompt);
    if needed && spec.prompt.is_empty() {
        let what = function.map_or(spec.model.as_str(), |function| function.name);
        return Err(EditError::rejected(
            "invalid_prompt",
            format!("prompt is empty: {what} does what it says; give one"),
        ));
    }
    let (most, has) = (prompt_limit(style, &spec.model), spec.prompt.chars().count());
    if has <= most {
        return Ok(());
    }
    Err(EditError::rejected(
        "invalid_prompt",
        format!(
            "prompt has {has} characters; {} takes {most} and would silently ignore the rest; shorten it",
            spec.model
        ),
    ))
}

fn parameters(style: Style, function: Option<&Function>, params: &Params) -> Result<(), EditError> {
    let own = function.map_or([].as_slice(), |function| function.params);
    for param in own.iter().chain(COMMON) {
        in_range(params, param)?;
    }
    if params.get("n").is_some_and(|n| n.as_f64() != Some(1.0)) {
        return Err(invalid_params(format!(
            "params.n: must be 1, not {}: an edit has one picture, and each further one would be paid and thrown away; for another take, give the task a variant",
            params.as_object()["n"]
        )));
    }
    match style {
        Style::ImageEdit => Ok(()),
        Style::I2i => {
            in_range(params, &PROMPT_EXTEND)?;
            negative_prompt(params)?;
            size(params, false)?.map_or(Ok(()), result_size)
        }
        Style::Messages | Style::MessagesAsync => {
            in_range(params, &PROMPT_EXTEND)?;
            negative_prompt(params)?;
            size(params, true).map(drop)
        }
    }
}

fn in_range(params: &Params, param: &Param) -> Result<(), EditError> {
    match params.get(param.name) {
        Some(value) if param.range.read(value).is_none() => {
            Err(invalid_params(format!("params.{}: must be {}, not {value}", param.name, param.range)))
        }
        Some(_) | None => Ok(()),
    }
}

fn negative_prompt(params: &Params) -> Result<(), EditError> {
    let Some(value) = params.get(NEGATIVE_PROMPT) else { return Ok(()) };
    let Some(text) = value.as_str() else {
        return Err(invalid_params(format!("params.negative_prompt: must be a text, not {value}")));
    };
    let has = text.chars().count();
    if has <= MAX_NEGATIVE_PROMPT {
        return Ok(());
    }
    Err(invalid_params(format!(
        "params.negative_prompt has {has} characters; the limit is {MAX_NEGATIVE_PROMPT}; shorten it"
    )))
}

/// `W*H`; or `2K` and its like, which the newer models have.
fn size(params: &Params, by_name: bool) -> Result<Option<(u32, u32)>, EditError> {
    let Some(value) = params.get("size") else { return Ok(None) };
    let side = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|side| digits && *side > 0)
    };
    let text = value.as_str().unwrap_or_default();
    if let Some((width, height)) = text.split_once('*')
        && let (Some(width), Some(height)) = (side(width), side(height))
    {
        return Ok(Some((width, height)));
    }
    if by_name && text.strip_suffix('K').and_then(side).is_some() {
        return Ok(None);
    }
    Err(invalid_params(format!("params.size: must be \"WIDTH*HEIGHT\" such as \"1024*1536\", not {value}")))
}

fn result_size((width, height): (u32, u32)) -> Result<(), EditError> {
    let [least, most] = RESULT_PIXELS;
    let pixels = u64::from(width) * u64::from(height);
    if !(least..=most).contains(&pixels) {
        return Err(invalid_params(format!(
            "params.size: {width}*{height} is {pixels} pixels; it must be from {least} (768*768) to {most} (1280*1280)"
        )));
    }
    if u64::from(width.max(height)) > MAX_RATIO * u64::from(width.min(height)) {
        return Err(invalid_params(format!(
            "params.size: {width}*{height} is too narrow; one side may be at most {MAX_RATIO} times the other"
        )));
    }
    Ok(())
}

/// `field` is `image` or `mask`; both have the same limits.
fn picture(field: &str, style: Style, input: Input, picture: Measure) -> Result<(), EditError> {
    let refused = |message: String| Err(EditError::rejected(code(field), message));
    let Measure { media, bytes } = picture;
    if style == Style::ImageEdit && media.format == Format::Gif {
        return refused(format!(
            "{field}: is a GIF, which this model does not take (an animation has no one picture to edit); send a PNG, JPEG, BMP, TIFF or WebP"
        ));
    }
    let sides = match style {
        Style::ImageEdit => Some((512, 4096)),
        Style::I2i => Some((384, 5000)),
        // 384 to 3072 is only recommended.
        Style::Messages | Style::MessagesAsync => None,
    };
    if let Some((least, most)) = sides {
        let within = |side: u32| (least..=most).contains(&side);
        if !within(media.width) || !within(media.height) {
            return refused(format!(
                "{field}: has {} by {} pixels; each side must have {least} to {most}; resize it first",
                media.width, media.height
            ));
        }
    }
    if bytes > MAX_BYTES {
        return refused(format!(
            "{field}: has {bytes} bytes; the provider takes {MAX_BYTES}; send a smaller file"
        ));
    }
    match input {
        Input::Data => data_uri(field, picture),
        Input::Url | Input::Oss => Ok(()),
    }
}

fn data_uri(field: &str, picture: Measure) -> Result<(), EditError> {
    let content_type = picture.media.format.content_type();
    if data_uri_len(content_type, picture.bytes) <= MAX_DATA_URI {
        return Ok(());
    }
    let most = raw_bytes_within(content_type, MAX_DATA_URI);
    Err(EditError::rejected(
        code(field),
        format!(
            "{field}: has {} bytes; as a data URI, which the provider limits to {MAX_DATA_URI} bytes, a file may have {most}; send a smaller file, or set input = \"oss\" or \"url\" in [editors.dashscope]",
            picture.bytes
        ),
    ))
}

fn code(field: &str) -> &'static str {
    if field == "mask" { "invalid_mask" } else { "invalid_image" }
}

fn mask(
    style: Style,
    function: Option<&Function>,
    input: Input,
    mask: Option<Measure>,
    image: Measure,
) -> Result<(), EditError> {
    let takes = function.is_some_and(|function| function.needs_mask);
    match mask {
        None if takes => Err(EditError::rejected(
            "invalid_mask",
            "mask is missing: description_edit_with_mask edits where it is white; give one, or use description_edit",
        )),
        None => Ok(()),
        Some(_) if !takes => {
            let what = function.map_or_else(|| style.to_string(), |function| function.name.to_owned());
            Err(EditError::rejected(
                "mask_not_supported",
                format!("mask: {what} takes none; leave it out, or use description_edit_with_mask"),
            ))
        }
        Some(mask) => {
            picture("mask", style, input, mask)?;
            check_mask_size(mask.media, image.media)
        }
    }
}

#[cfg(test)]
mod tests;

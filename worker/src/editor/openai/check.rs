//! Refuses, before anything is paid, requests that the provider refuses; makes the form fields of the others.
//!
//! Invariant: a check passes exactly if the fields can be sent, since both are the same function. Values that
//! a provider may accept (another size, a new parameter) are passed on.

use serde_json::Value;

use crate::editor::{EditError, EditSpec, Measure, check_mask_size};
use crate::media::Format;

/// A picture or a mask must have fewer: "less than 50MB", in the smaller reading.
pub(super) const MAX_FILE_BYTES: usize = 50_000_000;
const MAX_PROMPT_CHARS: usize = 32_000;
const MAX_PROMPT_CHARS_DALL_E_2: usize = 1_000;
/// Beyond any provider's names; a form field's name is copied into a header.
const MAX_NAME_CHARS: usize = 64;

/// Documented values of the known parameters.
const KNOWN: [(&str, Kind); 9] = [
    ("background", Kind::Text),
    ("input_fidelity", Kind::Text),
    ("n", Kind::One),
    ("output_compression", Kind::Integer { min: 0, max: 100 }),
    // Another format would be paid for and could not be read.
    ("output_format", Kind::Choice(&["png", "jpeg", "webp"])),
    ("quality", Kind::Text),
    ("response_format", Kind::Choice(&["b64_json", "url"])),
    ("size", Kind::Text),
    ("user", Kind::Text),
];

/// Parameters that would repeat or contradict the task's fields.
const ELSEWHERE: [(&str, &str); 7] = [
    ("image", "the picture is one of the task's `images`"),
    ("images", "the pictures are the task's `images`"),
    ("mask", "it is the task's `mask`"),
    ("model", "it is the task's `model`"),
    ("prompt", "it is the task's `prompt`"),
    ("partial_images", "the answer is taken whole"),
    ("stream", "the answer is taken whole"),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Integer { min: i64, max: i64 },
    Choice(&'static [&'static str]),
    One,
}

/// The form's fields, files excluded, in a fixed order; or the refusal.
pub(super) fn fields(spec: &EditSpec, image: Measure) -> Result<Vec<(String, String)>, EditError> {
    let EditSpec {
        edit_type: _, // our name for the edit; the prompt says it to the provider
        prompt,
        model,
        params,
        mask,
    } = spec;
    check_image(image)?;
    if let Some(mask) = mask {
        check_mask(*mask, image)?;
    }
    check_prompt(prompt, model)?;
    let mut fields = vec![field("model", model), field("prompt", prompt), field("n", "1")];
    for (name, value) in params.iter() {
        let value = param(name, value)?;
        // Already set above, to its only valid value.
        if name != "n" {
            fields.push(field(name, value));
        }
    }
    Ok(fields)
}

fn field(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

fn check_image(image: Measure) -> Result<(), EditError> {
    match image.media.format {
        Format::Png | Format::WebP | Format::Jpeg => {}
        other @ (Format::Gif | Format::Bmp | Format::Tiff) => {
            return Err(EditError::rejected(
                "unsupported_format",
                format!("the provider takes PNG, WebP and JPEG, not {other}; convert the picture"),
            ));
        }
    }
    if image.bytes >= MAX_FILE_BYTES {
        return Err(EditError::rejected(
            "too_large",
            format!("the picture has {} bytes; the provider takes less than {MAX_FILE_BYTES}", image.bytes),
        ));
    }
    Ok(())
}

fn check_mask(mask: Measure, image: Measure) -> Result<(), EditError> {
    if mask.media.format != Format::Png {
        return Err(invalid_mask(format!(
            "the mask must be a PNG, not {}: other formats blur the edge between white and black",
            mask.media.format
        )));
    }
    if mask.bytes >= MAX_FILE_BYTES {
        return Err(invalid_mask(format!(
            "the mask has {} bytes; the provider takes less than {MAX_FILE_BYTES}",
            mask.bytes
        )));
    }
    check_mask_size(mask.media, image.media)
}

fn check_prompt(prompt: &str, model: &str) -> Result<(), EditError> {
    let invalid = |message: String| Err(EditError::rejected("invalid_prompt", message));
    if prompt.is_empty() {
        return invalid("prompt: the provider needs one; say what to change in the picture".to_owned());
    }
    // Gateways prefix the model with the provider's name.
    let dall_e_2 = model == "dall-e-2" || model.ends_with("/dall-e-2");
    let most = if dall_e_2 { MAX_PROMPT_CHARS_DALL_E_2 } else { MAX_PROMPT_CHARS };
    let chars = prompt.chars().count();
    if chars > most {
        return invalid(format!(
            "prompt: has {chars} characters; {model} takes at most {most}: make it shorter"
        ));
    }
    Ok(())
}

/// The text for the form.
fn param(name: &str, value: &Value) -> Result<String, EditError> {
    if let Some((_, why)) = ELSEWHERE.into_iter().find(|(reserved, _)| *reserved == name) {
        return Err(invalid(name, &format!("cannot be given as a parameter: {why}; leave it out")));
    }
    if let Some((_, kind)) = KNOWN.into_iter().find(|(known, _)| *known == name) {
        return kind.text(value).map_err(|must_be| invalid(name, &format!("must be {must_be}, not {value}")));
    }
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.bytes().all(usable) {
        let clipped: String = name.chars().take(MAX_NAME_CHARS).collect();
        let must = format!("a name must be 1 to {MAX_NAME_CHARS} of A-Z a-z 0-9 _ - .");
        return Err(invalid(&clipped, &format!("cannot be a form field; {must}")));
    }
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err(invalid(name, "cannot be null; leave it out for the provider's default")),
        Value::Array(_) | Value::Object(_) => {
            Err(invalid(name, "must be a text, a number, true or false: a form field holds nothing else"))
        }
    }
}

impl Kind {
    /// The value as text, or what it must be.
    fn text(self, value: &Value) -> Result<String, String> {
        match self {
            Self::Text => value.as_str().map(str::to_owned).ok_or_else(|| "a text".to_owned()),
            Self::Choice(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(word.to_owned()),
                Some(_) | None => Err(format!("one of {}", words.join(", "))),
            },
            Self::Integer { min, max } => match whole(value) {
                Some(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                Some(_) | None => Err(format!("a whole number from {min} to {max}")),
            },
            Self::One => match whole(value) {
                Some(1) => Ok("1".to_owned()),
                Some(_) | None => {
                    Err("1, since one picture is kept of an edit (ask for another take with `variant`)"
                        .to_owned())
                }
            },
        }
    }
}

/// Producers in languages with one number type write `3.0` for `3`.
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it not every whole number has an f64
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
    })
}

fn invalid(name: &str, message: &str) -> EditError {
    EditError::rejected("invalid_params", format!("params.{name}: {message}"))
}

pub(super) fn invalid_mask(message: impl Into<String>) -> EditError {
    EditError::rejected("invalid_mask", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::media::Media;

    fn measure(format: Format, width: u32, height: u32, bytes: usize) -> Measure {
        Measure { media: Media { format, width, height, on_its_side: false }, bytes }
    }

    fn spec(params: &Value) -> EditSpec {
        EditSpec {
            edit_type: "touch_up".to_owned(),
            prompt: "a red hat".to_owned(),
            model: "gpt-image-1.5".to_owned(),
            params: params.to_string().parse().unwrap(),
            mask: None,
        }
    }

    fn refusal(spec: &EditSpec, image: Measure) -> String {
        let refused = fields(spec, image).unwrap_err();
        assert!(matches!(refused, EditError::Rejected { .. }), "{refused:?}");
        refused.to_string()
    }

    const PNG: Format = Format::Png;

    #[test]
    fn a_picture_is_accepted_just_below_the_limit_in_three_formats() {
        let spec = spec(&json!({}));
        for format in Format::ALL {
            let taken = fields(&spec, measure(format, 10, 10, MAX_FILE_BYTES - 1)).is_ok();
            assert_eq!(taken, matches!(format, Format::Png | Format::WebP | Format::Jpeg), "{format}");
        }
        assert!(refusal(&spec, measure(Format::Gif, 10, 10, 1)).starts_with("unsupported_format: "));
        assert!(refusal(&spec, measure(PNG, 10, 10, MAX_FILE_BYTES)).starts_with("too_large: "));
    }

    #[test]
    fn a_mask_is_a_png_of_the_pictures_size_below_the_limit() {
        let image = measure(Format::Jpeg, 30, 20, 1);
        let with = |mask| EditSpec { mask: Some(mask), ..spec(&json!({})) };
        assert!(fields(&with(measure(PNG, 30, 20, MAX_FILE_BYTES - 1)), image).is_ok());
        for (mask, why) in [
            (measure(PNG, 30, 20, MAX_FILE_BYTES), "50000000"),
            (measure(PNG, 20, 30, 1), "20 by 30"),
            (measure(PNG, 31, 20, 1), "31 by 20"),
            (measure(Format::WebP, 30, 20, 1), "must be a PNG, not WebP"),
        ] {
            let refused = refusal(&with(mask), image);
            assert!(refused.starts_with("invalid_mask: ") && refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_prompt_is_needed_and_counted_in_characters() {
        let image = measure(PNG, 10, 10, 1);
        let with = |model: &str, chars| EditSpec {
            prompt: "é".repeat(chars),
            model: model.to_owned(),
            ..spec(&json!({}))
        };
        for (model, most) in [("gpt-image-1.5", 32_000), ("dall-e-2", 1_000), ("openai/dall-e-2", 1_000)] {
            assert!(fields(&with(model, most), image).is_ok(), "{model}");
            for chars in [0, most + 1] {
                let refused = refusal(&with(model, chars), image);
                assert!(refused.starts_with("invalid_prompt: "), "{refused}");
            }
        }
    }

    #[test]
    fn parameters_become_form_fields_and_n_is_always_one() {
        let params = json!({
            "size": "1536x1024", "quality": "high", "background": "transparent", "input_fidelity": "high",
            "output_format": "jpeg", "output_compression": 80.0, "response_format": "url", "user": "42", "n": 1,
            "moderation": "low", "seed": 7, "strength": 0.5, "hd": true,
        });
        let fields = fields(&spec(&params), measure(PNG, 10, 10, 1)).unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(fields[..3], ["model=gpt-image-1.5", "prompt=a red hat", "n=1"]);
        assert_eq!(
            fields[3..].join(" "),
            "background=transparent hd=true input_fidelity=high moderation=low output_compression=80 \
             output_format=jpeg quality=high response_format=url seed=7 size=1536x1024 strength=0.5 user=42"
        );
    }

    #[test]
    fn a_parameter_at_its_limit_passes_and_one_beyond_is_named() {
        let image = measure(PNG, 10, 10, 1);
        for value in [0, 100] {
            assert!(fields(&spec(&json!({ "output_compression": value })), image).is_ok());
        }
        let long = "x".repeat(MAX_NAME_CHARS);
        assert!(fields(&spec(&json!({ long.clone(): 1 })), image).is_ok());
        for (params, name) in [
            (json!({ "output_compression": 101 }), "output_compression"),
            (json!({ "output_compression": -1 }), "output_compression"),
            (json!({ "output_compression": 0.5 }), "output_compression"),
            (json!({ "output_compression": "80" }), "output_compression"),
            (json!({ "size": 1024 }), "size"),
            (json!({ "quality": null }), "quality"),
            (json!({ "background": true }), "background"),
            (json!({ "input_fidelity": 1 }), "input_fidelity"),
            (json!({ "output_format": "gif" }), "output_format"),
            (json!({ "response_format": "bytes" }), "response_format"),
            (json!({ "user": 42 }), "user"),
            (json!({ "n": 2 }), "n"),
            (json!({ "n": 0 }), "n"),
            (json!({ "n": "1" }), "n"),
            (json!({ "style": null }), "style"),
            (json!({ "extra": {} }), "extra"),
            (json!({ "extra": [] }), "extra"),
            (json!({ "image[]": "x" }), "image[]"),
            (json!({ "a\r\nb": "x" }), "a\r\nb"),
            (json!({ "": "x" }), ""),
            (json!({ (long + "x"): 1 }), "x"),
        ] {
            let refused = refusal(&spec(&params), image);
            assert!(refused.starts_with(&format!("invalid_params: params.{name}")), "{params}: {refused}");
        }
    }

    #[test]
    fn fields_of_the_task_are_refused_as_parameters() {
        for name in ["model", "prompt", "image", "images", "mask", "stream", "partial_images"] {
            let refused = refusal(&spec(&json!({ name: "x" })), measure(PNG, 10, 10, 1));
            assert!(
                refused.starts_with(&format!("invalid_params: params.{name}: cannot be given")),
                "{refused}"
            );
        }
    }
}

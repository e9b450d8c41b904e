//! The built-in models and the API styles.
//!
//! Models come and go (the first edit models of the Qwen family were retired in October 2026), so a model's
//! id is configuration; only the few wire formats are fixed.

use std::fmt;
use std::str::FromStr;

use crate::editor::KnownModel;

/// The API style of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `image2image/image-synthesis` with a `function` and one picture; accepted, then polled.
    ImageEdit,
    /// The same path with a list of pictures; accepted, then polled.
    I2i,
    /// `multimodal-generation/generation` with one message; answered within the call.
    Messages,
    /// `image-generation/generation` with one message; accepted, then polled.
    MessagesAsync,
}

/// Not the name of a style.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("style must be one of image-edit, i2i, messages and messages-async, not {0:?}")]
pub struct UnknownStyle(String);

impl Style {
    /// Every style.
    pub const ALL: [Self; 4] = [Self::ImageEdit, Self::I2i, Self::Messages, Self::MessagesAsync];

    /// Its name in a configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ImageEdit => "image-edit",
            Self::I2i => "i2i",
            Self::Messages => "messages",
            Self::MessagesAsync => "messages-async",
        }
    }

    /// The path under the base URL.
    pub(super) const fn path(self) -> [&'static str; 4] {
        match self {
            Self::ImageEdit | Self::I2i => ["services", "aigc", "image2image", "image-synthesis"],
            Self::Messages => ["services", "aigc", "multimodal-generation", "generation"],
            Self::MessagesAsync => ["services", "aigc", "image-generation", "generation"],
        }
    }

    /// Whether it is accepted and polled. The provider answers 403 if the header for it is unexpected or
    /// missing, so this is not a preference.
    pub(crate) const fn is_async(self) -> bool {
        match self {
            Self::ImageEdit | Self::I2i | Self::MessagesAsync => true,
            Self::Messages => false,
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Style {
    type Err = UnknownStyle;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|style| style.word() == word);
        found.ok_or_else(|| UnknownStyle(word.to_owned()))
    }
}

/// Longest prompt in characters. The provider silently truncates a longer one, and the result would not match
/// the edit key.
pub(super) fn prompt_limit(style: Style, model: &str) -> usize {
    match style {
        Style::ImageEdit => 800,
        Style::I2i => 2000,
        Style::Messages | Style::MessagesAsync if model.starts_with("wan2.6") => 2000,
        Style::Messages | Style::MessagesAsync if model.starts_with("wan2.7") => 5000,
        // The smallest limit of the family, for future models too.
        Style::Messages | Style::MessagesAsync => 800,
    }
}

/// Prices and limits of the Beijing region in November 2026, per successful picture and per account.
const KNOWN: [KnownModel; 7] = [
    yuan("wanx2.1-imageedit", Style::ImageEdit, "0.14", 120, Some(2)),
    yuan("wan2.5-i2i-preview", Style::I2i, "0.20", 300, Some(5)),
    yuan("qwen-image-2.0", Style::Messages, "0.20", 120, None),
    yuan("qwen-image-2.0-pro", Style::Messages, "0.50", 2, None),
    // These models can also answer within the call, which takes over a minute: a connection lost in that time
    // would leave a paid picture without an id.
    yuan("wan2.6-image", Style::MessagesAsync, "0.20", 300, Some(5)),
    yuan("wan2.7-image", Style::MessagesAsync, "0.20", 300, Some(5)),
    yuan("wan2.7-image-pro", Style::MessagesAsync, "0.50", 300, Some(5)),
];

const fn yuan(
    id: &'static str,
    style: Style,
    price: &'static str,
    a_minute: u32,
    max_in_flight: Option<u32>,
) -> KnownModel {
    let submits_per_minute = Some(a_minute);
    KnownModel { id, style: style.word(), price, currency: "CNY", submits_per_minute, max_in_flight }
}

/// The built-in models.
pub fn known_models() -> &'static [KnownModel] {
    &KNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_styles_are_parsed() {
        for style in Style::ALL {
            assert_eq!(style.to_string().parse(), Ok(style));
        }
        for word in ["", "Messages", "image_edit", "sync"] {
            let refused = word.parse::<Style>().unwrap_err().to_string();
            assert!(refused.contains("image-edit") && refused.contains(&format!("{word:?}")), "{refused}");
        }
    }

    #[test]
    fn every_known_model_has_a_style_and_a_price() {
        for known in known_models() {
            known.style.parse::<Style>().unwrap();
            assert!(retouch_shared::event::micros(known.price).unwrap() > 0, "{}", known.id);
        }
        let wanx = known_models()[0];
        assert_eq!((wanx.price, wanx.submits_per_minute, wanx.max_in_flight), ("0.14", Some(120), Some(2)));
    }

    #[test]
    fn an_unknown_model_has_the_smallest_prompt_limit() {
        for (style, model, most) in [
            (Style::ImageEdit, "wanx2.1-imageedit", 800),
            (Style::I2i, "wan2.5-i2i-preview", 2000),
            (Style::Messages, "qwen-image-2.0-pro", 800),
            (Style::Messages, "wan2.6-image", 2000),
            (Style::MessagesAsync, "wan2.7-image-pro", 5000),
            (Style::Messages, "something-4.0", 800),
        ] {
            assert_eq!(prompt_limit(style, model), most, "{model}");
        }
    }
}

//! The ten functions of `wanx2.1-imageedit` and their parameters: one description serves the check and the
//! listing.

use std::fmt;

use serde_json::Value;

/// Valid values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// A number within bounds, both included.
    Number {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// A whole number within bounds, both included.
    Whole {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    /// Its name in `params`.
    pub name: &'static str,
    /// Valid values.
    pub range: Range,
    /// The provider's default.
    pub default: &'static str,
    /// One line.
    pub about: &'static str,
}

/// One function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Function {
    /// The provider's name, also our edit type.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Whether it requires a prompt.
    pub needs_prompt: bool,
    /// Whether it needs a mask; the others take none.
    pub needs_mask: bool,
    /// Its own parameters; [`COMMON`] are those of all.
    pub params: &'static [Param],
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

impl Range {
    /// The value in the provider's form, if it is in range: `3.0` for a whole number becomes `3`.
    pub(super) fn read(self, value: &Value) -> Option<Value> {
        match self {
            Self::Number { min, max } => {
                value.as_f64().filter(|number| (min..=max).contains(number)).map(|_| value.clone())
            }
            Self::Whole { min, max } => {
                whole(value).filter(|number| (min..=max).contains(number)).map(Value::from)
            }
            Self::Flag => value.as_bool().map(Value::from),
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

const fn param(name: &'static str, range: Range, default: &'static str, about: &'static str) -> Param {
    Param { name, range, default, about }
}

const fn scale(name: &'static str, about: &'static str) -> Param {
    param(name, Range::Number { min: 1.0, max: 2.0 }, "1.0", about)
}

const SEED: Param = param(
    "seed",
    Range::Whole { min: 0, max: 2_147_483_647 },
    "random",
    "the same one makes results more alike, not identical",
);
const WATERMARK: Param =
    param("watermark", Range::Flag, "false", "a mark \"AI生成\" at the bottom right of the result");
const STRENGTH: Param = param(
    "strength",
    Range::Number { min: 0.0, max: 1.0 },
    "0.5",
    "how far the result may depart from the picture",
);

/// Parameters of every function and of every other model.
pub const COMMON: &[Param] = &[SEED, WATERMARK];

/// The known additional parameters of other models; unknown ones are passed on.
pub(super) const PROMPT_EXTEND: Param =
    param("prompt_extend", Range::Flag, "true", "the provider may write the prompt anew");

/// The ten functions.
pub const FUNCTIONS: &[Function] = &[
    needs_prompt("stylization_all", "The whole picture in another style", &[STRENGTH]),
    needs_prompt("stylization_local", "A part of it in another style", &[]),
    needs_prompt("description_edit", "What the prompt says, without a mask", &[STRENGTH]),
    Function {
        name: "description_edit_with_mask",
        about: "What the prompt says, where the mask is white; with an empty prompt, something small there vanishes",
        needs_prompt: false,
        needs_mask: true,
        params: &[],
    },
    by_itself("remove_watermark", "Chinese and English text taken away", &[]),
    by_itself(
        "expand",
        "More of the scene around it",
        &[
            scale("top_scale", "how much higher, upwards"),
            scale("bottom_scale", "how much higher, downwards"),
            scale("left_scale", "how much wider, to the left"),
            scale("right_scale", "how much wider, to the right"),
        ],
    ),
    by_itself(
        "super_resolution",
        "Larger and sharper",
        &[param("upscale_factor", Range::Whole { min: 1, max: 4 }, "1", "how many times as large")],
    ),
    by_itself("colorization", "Colours for black and white", &[]),
    needs_prompt(
        "doodle",
        "A picture from line art",
        &[param("is_sketch", Range::Flag, "false", "whether it is line art already")],
    ),
    needs_prompt("control_cartoon_feature", "A new scene with a cartoon character of the picture", &[]),
];

const fn needs_prompt(name: &'static str, about: &'static str, params: &'static [Param]) -> Function {
    Function { name, about, needs_prompt: true, needs_mask: false, params }
}

const fn by_itself(name: &'static str, about: &'static str, params: &'static [Param]) -> Function {
    Function { name, about, needs_prompt: false, needs_mask: false, params }
}

/// The function of this name.
pub(super) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

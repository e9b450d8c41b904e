//! The parameters of a local edit: one description serves the check, the defaults and the listing.
//!
//! [`read`] checks the given parameters against their descriptions and fills in the defaults, so that the
//! typed structs of the operations do not repeat a range.

use std::fmt;

use retouch_shared::task::Params;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::editor::EditError;

/// One parameter of an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    /// Its name in `params`.
    pub name: &'static str,
    /// Valid values.
    pub kind: Kind,
    /// Meaning of its absence.
    pub absent: Absent,
    /// One line.
    pub description: &'static str,
}

/// Valid values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A number within bounds, both included.
    Number {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// A whole number within bounds, both included.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A colour as `#rrggbb` or `#rrggbbaa`.
    Colour,
    /// `true` or `false`.
    Flag,
}

/// Meaning of an absent parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Absent {
    /// The edit is refused.
    Refused,
    /// An effect that no single value expresses; in words.
    Means(&'static str),
    /// This number.
    Number(f64),
    /// This whole number.
    Integer(i64),
    /// This word or colour.
    Text(&'static str),
    /// This flag.
    Flag(bool),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "{min} to {max}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Colour => f.write_str("#rrggbb or #rrggbbaa"),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("required"),
            Self::Means(words) => f.write_str(words),
            Self::Number(number) => write!(f, "{number}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

impl fmt::Display for Param {
    /// E.g. `sigma: 0.1 to 100 (default 3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, absent, .. } = self;
        match absent {
            Absent::Refused => write!(f, "{name}: {kind} (required)"),
            _ => write!(f, "{name}: {kind} (default {absent})"),
        }
    }
}

/// Constructors for the table of operations.
impl Param {
    pub(super) const fn number(
        name: &'static str,
        min: f64,
        max: f64,
        default: f64,
        description: &'static str,
    ) -> Self {
        let (kind, absent) = (Kind::Number { min, max }, Absent::Number(default));
        Self::new(name, kind, absent, description)
    }

    pub(super) const fn integer(
        name: &'static str,
        min: i64,
        max: i64,
        default: i64,
        description: &'static str,
    ) -> Self {
        let (kind, absent) = (Kind::Integer { min, max }, Absent::Integer(default));
        Self::new(name, kind, absent, description)
    }

    /// The length of a side, in pixels.
    pub(super) const fn side(name: &'static str, absent: Absent, description: &'static str) -> Self {
        let (min, max) = (1, 65_535);
        Self::new(name, Kind::Integer { min, max }, absent, description)
    }

    pub(super) const fn choice(
        name: &'static str,
        words: &'static [&'static str],
        default: &'static str,
        description: &'static str,
    ) -> Self {
        Self::new(name, Kind::Choice(words), Absent::Text(default), description)
    }

    pub(super) const fn colour(name: &'static str, default: &'static str, description: &'static str) -> Self {
        Self::new(name, Kind::Colour, Absent::Text(default), description)
    }

    pub(super) const fn flag(name: &'static str, default: bool, description: &'static str) -> Self {
        Self::new(name, Kind::Flag, Absent::Flag(default), description)
    }

    const fn new(name: &'static str, kind: Kind, absent: Absent, description: &'static str) -> Self {
        Self { name, kind, absent, description }
    }
}

impl Param {
    /// The value in the operation's form: `3.0` for a whole number becomes `3`.
    fn check(&self, value: &Value) -> Result<Value, EditError> {
        let refused = || {
            let (name, kind) = (self.name, self.kind);
            let one_of = matches!(kind, Kind::Choice(_));
            let must_be = if one_of { "must be one of" } else { "must be" };
            invalid(format!("params.{name}: {must_be} {kind}, not {value}"))
        };
        let checked = match self.kind {
            Kind::Number { min, max } => {
                value.as_f64().filter(|number| (min..=max).contains(number)).map(|_| value.clone())
            }
            Kind::Integer { min, max } => {
                whole(value).filter(|number| (min..=max).contains(number)).map(Value::from)
            }
            Kind::Choice(words) => value.as_str().filter(|word| words.contains(word)).map(Value::from),
            Kind::Colour => value.as_str().filter(|text| Colour::parse(text).is_some()).map(Value::from),
            Kind::Flag => value.as_bool().map(Value::from),
        };
        checked.ok_or_else(refused)
    }

    fn default_value(&self) -> Option<Value> {
        match self.absent {
            Absent::Refused | Absent::Means(_) => None,
            Absent::Number(number) => Some(Value::from(number)),
            Absent::Integer(number) => Some(Value::from(number)),
            Absent::Text(text) => Some(Value::from(text)),
            Absent::Flag(flag) => Some(Value::from(flag)),
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

/// Parameters that passed the check, defaults filled in.
#[derive(Debug, Clone)]
pub(super) struct Args(Value);

impl Args {
    /// As the operation's own struct. Fails only if that struct and the description disagree, which a test
    /// over all operations rules out.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, EditError> {
        T::deserialize(&self.0).map_err(|error| invalid(format!("params: {error}")))
    }
}

/// Checks parameters against their descriptions and fills in the defaults.
pub(super) fn read(known: &'static [Param], given: &Params) -> Result<Args, EditError> {
    if let Some((unknown, _)) =
        given.iter().find(|(name, _)| known.iter().all(|param| param.name != name.as_str()))
    {
        let names: Vec<_> = known.iter().map(|param| param.name).collect();
        let names = match names.as_slice() {
            [] => "this edit type takes none".to_owned(),
            names => format!("known are {}", names.join(", ")),
        };
        return Err(invalid(format!("params.{unknown}: is not known; {names}")));
    }
    let mut args = Map::new();
    for param in known {
        let value = match given.get(param.name) {
            Some(value) => Some(param.check(value)?),
            None if param.absent == Absent::Refused => {
                let (name, kind) = (param.name, param.kind);
                return Err(invalid(format!("params.{name}: is required, {kind}")));
            }
            None => param.default_value(),
        };
        if let Some(value) = value {
            args.insert(param.name.to_owned(), value);
        }
    }
    Ok(Args(Value::Object(args)))
}

/// The refusal of a parameter; the message names it.
pub(super) fn invalid(message: impl Into<String>) -> EditError {
    EditError::rejected("invalid_params", message)
}

/// Red, green, blue, alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Colour(pub(super) [u8; 4]);

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        let mut bytes = [0, 0, 0, 0xff];
        let wanted = match digits.len() {
            6 => 3,
            8 => 4,
            _ => return None,
        };
        hex::decode_to_slice(digits, bytes.get_mut(..wanted)?).ok()?;
        Some(Self(bytes))
    }
}

impl TryFrom<String> for Colour {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a colour"))
    }
}

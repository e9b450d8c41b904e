//! Models: the models of each editor, their prices and lanes. Built-in ones, and those that `[models."ID"]`
//! in `retouch.toml` adds or changes.
//!
//! Invariant: every model of a paid editor has a price, because a missing one would falsify budgets and
//! savings; and two models never share a lane because of similar ids.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use retouch_shared::event::micros;
use retouch_shared::key::Digest32;
use serde::{Deserialize, Serialize};

use crate::editor::dashscope::{self, Style};
use crate::editor::{KnownModel, local, openai};
use crate::store::Money;

/// The currency of free models.
pub const NO_CURRENCY: &str = "CNY";
/// A lane's name is part of a queue's name.
const MAX_LANE: usize = 64;
/// The limit of the contract.
const MAX_MODEL_CHARS: usize = 128;

/// A provider kind before any settings.
#[derive(Debug)]
pub struct EditorKind {
    /// The word in the edit key.
    pub name: &'static str,
    /// The environment variable that enables it (its key, for a paid one); `None` if it always exists.
    pub needs: Option<&'static str>,
    /// Whether its edits cost money.
    pub paid: bool,
    /// Default currency of its models.
    currency: &'static str,
    /// API styles of its models; the only one is the default.
    styles: &'static [&'static str],
    /// Its built-in models.
    known: fn() -> &'static [KnownModel],
}

impl PartialEq for EditorKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for EditorKind {}

impl EditorKind {
    /// The lane shared by all its models, if they share one.
    fn lane(&self) -> Option<&'static str> {
        (!self.paid).then_some(self.name)
    }

    /// Whether it accepts any model id: only the test double does.
    pub(crate) fn takes_any_model(&self) -> bool {
        self.name == "double"
    }
}

const LOCAL: KnownModel = free(local::MODEL, "0");
#[cfg(feature = "double")]
const DOUBLE: KnownModel = free("double-1", "0.14"); // a price, so that what is paid and saved can be counted

const fn free(id: &'static str, price: &'static str) -> KnownModel {
    let style = "local";
    KnownModel { id, style, price, currency: NO_CURRENCY, submits_per_minute: None, max_in_flight: None }
}

const DASHSCOPE_STYLES: [&str; Style::ALL.len()] = {
    let mut words = [""; Style::ALL.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = Style::ALL[at].word();
        at += 1;
    }
    words
};

/// Every provider kind of this program, with or without a key here.
pub const EDITORS: &[EditorKind] = &[
    EditorKind {
        name: dashscope::KIND,
        needs: Some("DASHSCOPE_API_KEY"),
        paid: true,
        currency: "CNY",
        styles: &DASHSCOPE_STYLES,
        known: dashscope::known_models,
    },
    EditorKind {
        name: "local",
        needs: None,
        paid: false,
        currency: NO_CURRENCY,
        styles: &["local"],
        known: || &[LOCAL],
    },
    EditorKind {
        name: openai::KIND,
        needs: Some("OPENAI_API_KEY"),
        paid: true,
        currency: "USD",
        styles: &["edits"],
        known: openai::known_models,
    },
    #[cfg(feature = "double")]
    EditorKind {
        name: "double",
        needs: Some("RETOUCH_DOUBLE"),
        paid: false,
        currency: NO_CURRENCY,
        styles: &["local"],
        known: || &[DOUBLE],
    },
];

/// The kind of this name.
pub fn editor_kind(name: &str) -> Option<&'static EditorKind> {
    EDITORS.iter().find(|kind| kind.name == name)
}

/// As [`editor_kind`], with an error that names `place`.
pub(crate) fn known_editor(place: &str, name: &str) -> Result<&'static EditorKind> {
    let known: Vec<_> = EDITORS.iter().map(|kind| kind.name).collect();
    editor_kind(name)
        .with_context(|| format!("{place}: there is no editor {name:?}; there are {}", known.join(", ")))
}

/// Origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// This program.
    #[serde(rename = "built-in")]
    BuiltIn,
    /// Derived from another value.
    #[serde(rename = "derived")]
    Derived,
    /// `[models."ID"]` in `retouch.toml`.
    #[serde(rename = "retouch.toml [models]")]
    Models,
    /// `[routes.EDIT_TYPE]` in `retouch.toml`.
    #[serde(rename = "retouch.toml [routes]")]
    Routes,
    /// `[lanes.NAME]` in `retouch.toml`.
    #[serde(rename = "retouch.toml [lanes]")]
    Lanes,
    /// `[editors.NAME]` in `retouch.toml`.
    #[serde(rename = "retouch.toml [editors]")]
    Editors,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// `[models."ID"]` in `retouch.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOverride {
    /// The provider kind; may be left out of a built-in model.
    pub editor: Option<String>,
    /// The API style; may be left out of a built-in model.
    pub style: Option<String>,
    /// Per picture, a decimal number as text, e.g. `"0.14"`.
    pub price: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// The queue of its edits.
    pub lane: Option<String>,
}

/// One model of one editor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The provider kind.
    pub editor: &'static EditorKind,
    /// The provider's id.
    pub id: String,
    /// The editor's word for the API style.
    pub style: String,
    /// Per picture.
    pub price: Money,
    /// The queue of its edits.
    pub lane: String,
    /// Submits a minute that its account allows, if known.
    pub submits_per_minute: Option<u32>,
    /// Calls in flight that its account allows, if known.
    pub max_in_flight: Option<u32>,
    /// Origin of its price.
    pub price_from: Origin,
    /// Origin of its lane.
    pub lane_from: Origin,
}

/// The catalogue: every model by editor and id, with or without a key here.
#[derive(Debug, Clone, Default)]
pub struct Models(BTreeMap<(&'static str, String), Model>);

impl Models {
    /// The built-in models, with the file's changes and additions.
    ///
    /// # Errors
    /// One sentence that names the model and the fix.
    pub fn decide(given: &BTreeMap<String, ModelOverride>) -> Result<Self> {
        let mut models = Self::default();
        for editor in EDITORS {
            for known in (editor.known)() {
                models.add(built_in(editor, known)?);
            }
        }
        for (id, given) in given {
            let place = format!("[models.{id:?}]");
            let model = models.overridden(&place, id, given)?;
            models.add(model);
        }
        Ok(models)
    }

    fn add(&mut self, model: Model) {
        self.0.insert((model.editor.name, model.id.clone()), model);
    }

    /// One model of an editor.
    pub fn get(&self, editor: &str, id: &str) -> Option<&Model> {
        self.of(editor).find(|model| model.id == id)
    }

    /// The models of an editor, by id.
    pub fn of(&self, editor: &str) -> impl Iterator<Item = &Model> {
        self.0.values().filter(move |model| model.editor.name == editor)
    }

    /// The models of this id; several editors may have one.
    pub fn named(&self, id: &str) -> Vec<&Model> {
        self.iter().filter(|model| model.id == id).collect()
    }

    /// All of them, by editor and id.
    pub fn iter(&self) -> impl Iterator<Item = &Model> {
        self.0.values()
    }

    fn overridden(&self, place: &str, id: &str, given: &ModelOverride) -> Result<Model> {
        ensure!(
            (1..=MAX_MODEL_CHARS).contains(&id.chars().count()) && !id.contains('\0'),
            "{place}: a model's id is 1 to {MAX_MODEL_CHARS} characters"
        );
        let known = match &given.editor {
            Some(name) => self.get(known_editor(place, name)?.name, id),
            None => self.named(id).into_iter().next(),
        };
        match known {
            Some(known) => changed(place, known.clone(), given),
            None => new(place, id, given),
        }
    }
}

fn built_in(editor: &'static EditorKind, known: &KnownModel) -> Result<Model> {
    let KnownModel { id, style, price, currency, submits_per_minute, max_in_flight } = *known;
    Ok(Model {
        editor,
        id: id.to_owned(),
        style: style.to_owned(),
        price: money(id, "price", price, currency)?,
        lane: lane_of(editor, id),
        submits_per_minute,
        max_in_flight,
        price_from: Origin::BuiltIn,
        lane_from: Origin::Derived,
    })
}

/// A built-in model with the file's changes.
fn changed(place: &str, mut model: Model, given: &ModelOverride) -> Result<Model> {
    let ModelOverride { editor: _, style, price, currency, lane } = given;
    if let Some(style) = style {
        model.style = known_style(place, model.editor, style)?;
    }
    // A currency changes the meaning of the number: the built-in price is in its own currency.
    ensure!(
        currency.is_none() || price.is_some(),
        "{place}: price must stand beside currency: the built-in price is in {}",
        model.price.currency
    );
    if let Some(price) = price {
        let currency = currency.as_deref().unwrap_or(&model.price.currency);
        model.price = money(place, "price", price, currency)?;
        model.price_from = Origin::Models;
    }
    with_lane(place, model, lane.as_deref())
}

fn new(place: &str, id: &str, given: &ModelOverride) -> Result<Model> {
    let ModelOverride { editor, style, price, currency, lane } = given;
    let Some(editor) = editor else {
        let paid: Vec<_> = EDITORS.iter().filter(|kind| kind.paid).map(|kind| kind.name).collect();
        bail!("{place}: editor is missing: this model is not built in; give one of {}", paid.join(", "));
    };
    let editor = known_editor(place, editor)?;
    let not_local = editor.name != "local";
    ensure!(not_local, "{place}: the local editor has only the model {}; give another editor", local::MODEL);
    let style = match (style, editor.styles) {
        (Some(style), _) => known_style(place, editor, style)?,
        (None, [only]) => (*only).to_owned(),
        (None, styles) => bail!("{place}: style is missing; give one of {}", styles.join(", ")),
    };
    let Some(price) = price else {
        bail!(
            "{place}: price is missing; give what a picture costs, e.g. \"0.14\" (\"0\" if nothing), for budgets and savings are counted with it"
        );
    };
    let model = Model {
        editor,
        id: id.to_owned(),
        style,
        price: money(place, "price", price, currency.as_deref().unwrap_or(editor.currency))?,
        lane: lane_of(editor, id),
        submits_per_minute: None,
        max_in_flight: None,
        price_from: Origin::Models,
        lane_from: Origin::Derived,
    };
    with_lane(place, model, lane.as_deref())
}

fn with_lane(place: &str, mut model: Model, lane: Option<&str>) -> Result<Model> {
    let Some(lane) = lane else { return Ok(model) };
    let is_local = model.editor.name == "local";
    ensure!(!is_local, "{place}: lane cannot be set: the local editor's lane is always local");
    check_lane(&format!("{place}: lane"), lane)?;
    lane.clone_into(&mut model.lane);
    model.lane_from = Origin::Models;
    Ok(model)
}

fn known_style(place: &str, editor: &EditorKind, style: &str) -> Result<String> {
    ensure!(
        editor.styles.contains(&style),
        "{place}: style must be one of {} with the editor {}, not {style:?}",
        editor.styles.join(", "),
        editor.name
    );
    Ok(style.to_owned())
}

/// Parses a decimal amount. Never a floating-point number.
///
/// # Errors
/// One sentence that names the field and the fix.
pub(crate) fn money(place: &str, field: &str, amount: &str, currency: &str) -> Result<Money> {
    let micros = micros(amount).filter(|micros| (0..1_000_000_000_000_000).contains(micros));
    let wrong = || format!("{place}: {field} must be a decimal number such as \"0.14\", not {amount:?}");
    let micros = micros.with_context(wrong)?;
    let fits = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    ensure!(fits, "{place}: currency must be three capital letters such as CNY, not {currency:?}");
    Ok(Money { micros, currency: currency.to_owned() })
}

/// # Errors
/// One sentence.
pub(crate) fn check_lane(place: &str, name: &str) -> Result<()> {
    let fits = (1..=MAX_LANE).contains(&name.len()) && name.bytes().all(is_plain);
    ensure!(fits, "{place}: a lane's name is 1-{MAX_LANE} of [A-Za-z0-9._-]");
    Ok(())
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The lane of a model without a lane setting.
fn lane_of(editor: &EditorKind, id: &str) -> String {
    if let Some(lane) = editor.lane() {
        return lane.to_owned();
    }
    let full = format!("{}.{id}", editor.name);
    let plain: String =
        full.chars().map(|c| if u8::try_from(c).is_ok_and(is_plain) { c } else { '-' }).collect();
    if plain == full && full.len() <= MAX_LANE {
        return full;
    }
    // Ids that differ only in replaced characters must not share a lane's limits.
    let digest = &Digest32::of(full.as_bytes()).to_hex()[..8];
    let room = MAX_LANE - 1 - digest.len();
    format!("{}-{digest}", &plain[..plain.len().min(room)])
}

#[cfg(test)]
mod tests;

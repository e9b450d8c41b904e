//! Routes: which editor, model, lane, price, prompt and parameters an edit type has.
//!
//! Invariant: the route is decided before the edit key is computed, and the prompt in the key is the one that
//! goes to the provider.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use retouch_shared::event::ImageError;
use retouch_shared::key::normalise_prompt;
use retouch_shared::task::{MAX_PROMPT_CHARS, Params};
use serde::Deserialize;

use crate::models::{EditorKind, Model, Models, Origin};
use crate::store::Money;

pub mod built_in;
mod overrides;

/// Replaced by the task's prompt in a route's prompt.
const PLACE: &str = "{prompt}";

/// `[routes.EDIT_TYPE]` in `retouch.toml`. Missing fields come from the built-in route of that name, if it
/// has the same editor, and otherwise from the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOverride {
    /// The provider kind, e.g. `local`; may be left out if the model determines it.
    pub editor: Option<String>,
    /// The provider's model id.
    pub model: Option<String>,
    /// Per picture, a decimal number as text, e.g. `"0.14"`.
    pub price: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// A template if it contains `{prompt}`; otherwise the default for tasks without a prompt.
    pub prompt: Option<String>,
    /// Defaults for the task's parameters.
    pub params: Params,
}

/// The route of one edit type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name that producers use.
    pub edit_type: String,
    /// In a few words; empty for a route of the file alone.
    pub description: &'static str,
    /// The provider kind.
    pub editor: &'static EditorKind,
    /// The provider's model id.
    pub model: String,
    /// The editor's word for the API style of that model.
    pub style: String,
    /// The queue of its edits.
    pub lane: String,
    /// Per picture.
    pub price: Money,
    /// See [`RouteOverride::prompt`]; normalised, empty if only the task's prompt counts.
    pub prompt: String,
    /// Defaults for the task's parameters.
    pub params: Params,
    /// Origins of these values.
    pub from: RouteOrigins,
}

/// Origin of each value of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOrigins {
    /// Of the editor.
    pub editor: Origin,
    /// Of the model.
    pub model: Origin,
    /// Of the lane.
    pub lane: Origin,
    /// Of the price and its currency.
    pub price: Origin,
    /// Of the prompt.
    pub prompt: Origin,
    /// Of the parameters.
    pub params: Origin,
}

impl Route {
    /// A route with the model's values alone.
    fn of_model(edit_type: &str, model: &Model) -> Self {
        Self {
            edit_type: edit_type.to_owned(),
            description: "",
            editor: model.editor,
            model: model.id.clone(),
            style: model.style.clone(),
            lane: model.lane.clone(),
            price: model.price.clone(),
            prompt: String::new(),
            params: Params::default(),
            from: RouteOrigins {
                editor: Origin::BuiltIn,
                model: Origin::BuiltIn,
                lane: model.lane_from,
                price: model.price_from,
                prompt: Origin::BuiltIn,
                params: Origin::BuiltIn,
            },
        }
    }

    /// The prompt for the provider and the edit key, normalised, from a task's normalised one.
    ///
    /// # Errors
    /// `invalid_prompt`: it is missing, or the whole is too long.
    pub fn effective_prompt(&self, given: &str) -> Result<String, ImageError> {
        let refused = |message| ImageError { code: "invalid_prompt".to_owned(), message };
        if !self.prompt.contains(PLACE) {
            return Ok(if given.is_empty() { self.prompt.clone() } else { given.to_owned() });
        }
        if given.is_empty() {
            let message = format!("prompt: {} needs one: say in words what is wanted", self.edit_type);
            return Err(refused(message));
        }
        let prompt = normalise_prompt(&self.prompt.replace(PLACE, given));
        let chars = prompt.chars().count();
        if chars > MAX_PROMPT_CHARS {
            let message =
                format!("prompt: has {chars} characters with the route's own; at most {MAX_PROMPT_CHARS}");
            return Err(refused(message));
        }
        Ok(prompt)
    }

    /// This route with another model of its editor. Parameters are specific to a model's style: a model of
    /// another style starts without defaults.
    fn with_model(mut self, model: &Model) -> Self {
        if model.style != self.style {
            self.params = Params::default();
        }
        model.id.clone_into(&mut self.model);
        model.style.clone_into(&mut self.style);
        model.lane.clone_into(&mut self.lane);
        self.price = model.price.clone();
        (self.from.lane, self.from.price) = (model.lane_from, model.price_from);
        self
    }
}

/// All routes by edit type, with or without a key for their editors here.
#[derive(Debug, Clone, Default)]
pub struct Routes(BTreeMap<String, Route>);

impl Routes {
    /// The built-in routes, with the file's changes and additions.
    ///
    /// # Errors
    /// One sentence that names the route and the fix.
    pub fn decide(given: &BTreeMap<String, RouteOverride>, models: &Models) -> Result<Self> {
        let mut routes = Self::default();
        for route in built_in::routes(models)? {
            routes.0.insert(route.edit_type.clone(), route);
        }
        for (edit_type, given) in given {
            let place = format!("[routes.{edit_type}]");
            check_edit_type(&place, edit_type)?;
            let route = overrides::apply(&place, edit_type, given, routes.0.get(edit_type), models)?;
            routes.0.insert(edit_type.clone(), route);
        }
        Ok(routes)
    }

    /// The route of an edit type, with the task's choice of model.
    ///
    /// # Errors
    /// `unknown_model` with the list of the editor's models; `None` if there is no such edit type.
    pub fn find(
        &self,
        models: &Models,
        edit_type: &str,
        model: Option<&str>,
    ) -> Option<Result<Route, ImageError>> {
        let route = self.0.get(edit_type)?.clone();
        let Some(chosen) = model.filter(|model| *model != route.model) else { return Some(Ok(route)) };
        if let Some(model) = models.get(route.editor.name, chosen) {
            return Some(Ok(route.with_model(model)));
        }
        if route.editor.takes_any_model() {
            return Some(Ok(Route { model: chosen.to_owned(), ..route }));
        }
        let known: Vec<_> = models.of(route.editor.name).map(|model| model.id.as_str()).collect();
        let message = format!("model: {edit_type} knows only {}, not {chosen:?}", known.join(", "));
        Some(Err(ImageError { code: "unknown_model".to_owned(), message }))
    }

    /// All of them, by edit type.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.values()
    }
}

/// The contract's limits for an edit type.
fn check_edit_type(place: &str, edit_type: &str) -> Result<()> {
    let fits = (1..=32).contains(&edit_type.len())
        && edit_type.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    ensure!(fits, "{place}: an edit type is 1-32 of [A-Za-z0-9._-]");
    Ok(())
}

/// # Errors
/// One sentence.
fn template(place: &str, text: &str) -> Result<String> {
    let prompt = normalise_prompt(text);
    let fits = prompt.chars().count() <= MAX_PROMPT_CHARS && !prompt.contains('\0');
    ensure!(fits, "{place}: prompt must be at most {MAX_PROMPT_CHARS} characters, without NUL");
    Ok(prompt)
}

/// The model of this id, or an error that says where models are defined.
fn known_model<'a>(place: &str, models: &'a Models, editor: &EditorKind, id: &str) -> Result<&'a Model> {
    let known: Vec<_> = models.of(editor.name).map(|model| model.id.as_str()).collect();
    models.get(editor.name, id).with_context(|| {
        format!(
            "{place}: model {id:?} is not known to the editor {}; give one of {}, or tell about it under [models.{id:?}]",
            editor.name,
            known.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;

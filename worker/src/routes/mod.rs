//! Routes: which editor, model, lane, price, prompt and parameters an edit type has.
//!
//! What must stay true: what a route says is decided before the edit key is computed, and the prompt that enters the key is
//! the one that goes to the provider.

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

/// Where a route's prompt has the task's.
const PLACE: &str = "{prompt}";

/// `[routes.EDIT_TYPE]` in `retouch.toml`. What it does not say is the built-in route's of that name, if that has the same
/// editor, and otherwise the model's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOverride {
    /// The provider kind, e.g. `local`; may be left out where the model tells it.
    pub editor: Option<String>,
    /// The provider's model id.
    pub model: Option<String>,
    /// Per picture, a decimal number as text, e.g. `"0.14"`.
    pub price: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// A text with `{prompt}` in it is the task's prompt put there; one without is used where the task has none.
    pub prompt: Option<String>,
    /// Used where the task says nothing.
    pub params: Params,
}

/// Where one edit type goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name that producers use.
    pub edit_type: String,
    /// In a few words; empty where the file alone has it.
    pub description: &'static str,
    /// The provider kind.
    pub editor: &'static EditorKind,
    /// The provider's model id.
    pub model: String,
    /// The editor's word for how that model is spoken to.
    pub style: String,
    /// Where its edits queue.
    pub lane: String,
    /// Per picture.
    pub price: Money,
    /// See [`RouteOverride::prompt`]; normalised, empty where the task's prompt is all there is.
    pub prompt: String,
    /// Used where the task says nothing.
    pub params: Params,
    /// Where all this comes from.
    pub from: RouteOrigins,
}

/// Where each value of a route comes from.
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
    /// What its model alone says.
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

    /// The prompt that goes to the provider and into the edit key, normalised, for a task's normalised one.
    ///
    /// # Errors
    /// `invalid_prompt`: it needs one, or the whole is too long.
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

    /// This route with another model of its editor. A route's parameters are in the words of its model: another style of
    /// model starts with none.
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

/// All routes by edit type, whether their editors have a key here or not.
#[derive(Debug, Clone, Default)]
pub struct Routes(BTreeMap<String, Route>);

impl Routes {
    /// The built-in routes, with what the file says of them and its own.
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
    /// `unknown_model` with the list of the editor's models; `None` where there is no such edit type.
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

/// What the contract lets a task ask for.
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

/// The model of this id, or a sentence about where models are said.
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

//! Routes: which editor, model, lane and price an edit type has.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use retouch_shared::event::{ImageError, micros};
use retouch_shared::task::Params;
use serde::Deserialize;

use crate::editor::local;
use crate::store::Money;

/// `[routes.EDIT_TYPE]` in `retouch.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteOverride {
    /// The provider kind, e.g. `local`.
    pub editor: String,
    /// The provider's model id.
    #[serde(default)]
    pub model: Option<String>,
    /// Per picture, a decimal number as text, e.g. `"0.14"`.
    #[serde(default)]
    pub price: Option<String>,
    /// ISO 4217.
    #[serde(default)]
    pub currency: Option<String>,
    /// Used where the task says nothing.
    #[serde(default)]
    pub params: Params,
}

/// Where one edit type goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name that producers use.
    pub edit_type: String,
    /// The provider kind.
    pub editor: String,
    /// The provider's model id.
    pub model: String,
    /// Whether a task may choose another model.
    pub any_model: bool,
    /// Where its edits queue.
    pub lane: String,
    /// Per picture.
    pub price: Money,
    /// Used where the task says nothing.
    pub params: Params,
}

/// All routes by edit type.
#[derive(Debug, Clone)]
pub struct Routes(BTreeMap<String, Route>);

/// The currency of what has no price.
pub const NO_CURRENCY: &str = "CNY";

impl Routes {
    /// The built-in routes, with those of the file in front. `editors` are the kinds that exist.
    ///
    /// # Errors
    /// One sentence that names the route and the fix.
    pub fn new(overrides: &BTreeMap<String, RouteOverride>, editors: &[&'static str]) -> Result<Self> {
        let mut routes = BTreeMap::new();
        for operation in local::operations() {
            routes
                .insert(operation.name.to_owned(), built_in(operation.name, "local", local::MODEL, 0, false));
        }
        #[cfg(feature = "double")]
        if editors.contains(&"double") {
            for name in ["double", "double_async"] {
                // A price, so that what is paid and saved can be counted.
                routes.insert(name.to_owned(), built_in(name, "double", "double-1", 140_000, true));
            }
        }
        for (edit_type, given) in overrides {
            routes.insert(edit_type.clone(), overridden(edit_type, given, editors)?);
        }
        Ok(Self(routes))
    }

    /// The route of an edit type, with the task's choice of model.
    ///
    /// # Errors
    /// `unknown_edit_type` with the list, or `unknown_model`.
    pub fn resolve(&self, edit_type: &str, model: Option<&str>) -> Result<Route, ImageError> {
        let Some(route) = self.0.get(edit_type) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let message = format!("edit_type: {edit_type:?} is not known; known are {}", known.join(", "));
            return Err(ImageError { code: "unknown_edit_type".to_owned(), message });
        };
        let mut route = route.clone();
        if let Some(model) = model.filter(|model| *model != route.model) {
            if !route.any_model {
                let message = format!("model: {edit_type} knows only {}, not {model:?}", route.model);
                return Err(ImageError { code: "unknown_model".to_owned(), message });
            }
            model.clone_into(&mut route.model);
        }
        Ok(route)
    }

    /// All of them, by edit type.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.values()
    }
}

fn built_in(name: &str, editor: &str, model: &str, micros: i64, any_model: bool) -> Route {
    Route {
        edit_type: name.to_owned(),
        editor: editor.to_owned(),
        model: model.to_owned(),
        any_model,
        lane: editor.to_owned(),
        price: Money { micros, currency: NO_CURRENCY.to_owned() },
        params: Params::default(),
    }
}

fn overridden(edit_type: &str, given: &RouteOverride, editors: &[&'static str]) -> Result<Route> {
    ensure!(
        editors.contains(&given.editor.as_str()),
        "[routes.{edit_type}]: there is no editor {:?}; there are {}",
        given.editor,
        editors.join(", ")
    );
    let is_local = given.editor == "local";
    let model = match &given.model {
        Some(model) => model.clone(),
        None if is_local => local::MODEL.to_owned(),
        None => anyhow::bail!("[routes.{edit_type}]: model is missing"),
    };
    let micros = given.price.as_deref().map_or(Ok(0), |price| price_micros(edit_type, price))?;
    let currency = given.currency.clone().unwrap_or_else(|| NO_CURRENCY.to_owned());
    let fits = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    ensure!(fits, "[routes.{edit_type}]: currency must be three capital letters, not {currency:?}");
    if is_local {
        let known = local::operations().any(|known| known.name == edit_type);
        ensure!(known, "[routes.{edit_type}]: the local editor has no such operation");
    }
    Ok(Route {
        edit_type: edit_type.to_owned(),
        editor: given.editor.clone(),
        model,
        any_model: !is_local,
        lane: given.editor.clone(),
        price: Money { micros, currency },
        params: given.params.clone(),
    })
}

/// Prices are never floating-point numbers.
fn price_micros(edit_type: &str, price: &str) -> Result<i64> {
    let micros = micros(price).filter(|micros| (0..1_000_000_000_000_000).contains(micros));
    micros.with_context(|| {
        format!("[routes.{edit_type}]: price must be a decimal number such as \"0.14\", not {price:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_read_without_rounding() {
        for (text, micros) in [("0.14", 140_000), ("1", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000)] {
            assert_eq!(price_micros("x", text).unwrap(), micros, "{text}");
        }
        for text in ["", ".5", "-1", "1e3", "0.1234567", "1,5", "٣"] {
            assert!(price_micros("x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_edit_type_is_answered_with_the_list() {
        let routes = Routes::new(&BTreeMap::new(), &["local"]).unwrap();
        let error = routes.resolve("greyscale", None).unwrap_err();
        assert_eq!(error.code, "unknown_edit_type");
        assert!(error.message.contains("grayscale"), "{}", error.message);
    }

    #[test]
    fn a_route_to_an_editor_that_does_not_exist_is_refused_by_name() {
        let given = RouteOverride {
            editor: "dashcope".to_owned(),
            model: Some("x".to_owned()),
            price: None,
            currency: None,
            params: Params::default(),
        };
        let error = Routes::new(&[("a".to_owned(), given)].into(), &["local"]).unwrap_err().to_string();
        assert!(error.contains("[routes.a]") && error.contains("dashcope"), "{error}");
    }
}

//! `[routes.EDIT_TYPE]` over the built-in route of that name, and over its model.

use anyhow::{Result, bail, ensure};

use super::{Route, RouteOverride, known_model, template};
use crate::editor::local;
use crate::models::{EditorKind, Model, Models, Origin, known_editor, money};

/// # Errors
/// One sentence that names the field and the fix.
pub(super) fn apply(
    place: &str,
    edit_type: &str,
    given: &RouteOverride,
    built_in: Option<&Route>,
    models: &Models,
) -> Result<Route> {
    let (editor, editor_from) = editor(place, given, built_in, models)?;
    if editor.name == "local" {
        let known = local::operation(edit_type).is_some();
        ensure!(known, "{place}: the local editor has no such operation; give another editor");
    }
    // A built-in route of another editor does not apply.
    let base = built_in.filter(|built_in| built_in.editor == editor);
    let (model, model_from) = model(place, given, editor, base, models)?;
    let mut route = over(edit_type, &model, base);
    route.from.editor = editor_from;
    route.from.model = model_from;
    price(place, given, &mut route)?;
    if let Some(prompt) = &given.prompt {
        route.prompt = template(place, prompt)?;
        route.from.prompt = Origin::Routes;
    }
    if !given.params.is_empty() {
        route.params = given.params.clone().with_defaults(&route.params);
        route.from.params = Origin::Routes;
    }
    Ok(route)
}

fn editor(
    place: &str,
    given: &RouteOverride,
    built_in: Option<&Route>,
    models: &Models,
) -> Result<(&'static EditorKind, Origin)> {
    if let Some(name) = &given.editor {
        return Ok((known_editor(place, name)?, Origin::Routes));
    }
    let Some(id) = &given.model else {
        return match built_in {
            Some(built_in) => Ok((built_in.editor, built_in.from.editor)),
            None => bail!("{place}: model is missing; give the model that does this edit type"),
        };
    };
    match models.named(id).as_slice() {
        [model] => Ok((model.editor, Origin::Derived)),
        [] => {
            let ids: Vec<_> = models.iter().map(|model| model.id.as_str()).collect();
            bail!(
                "{place}: model {id:?} is not known; give one of {}, or tell about it under [models.{id:?}]",
                ids.join(", ")
            )
        }
        several => {
            let editors: Vec<_> = several.iter().map(|model| model.editor.name).collect();
            bail!("{place}: editor is missing: {} have a model {id:?}", editors.join(" and "))
        }
    }
}

fn model(
    place: &str,
    given: &RouteOverride,
    editor: &'static EditorKind,
    base: Option<&Route>,
    models: &Models,
) -> Result<(Model, Origin)> {
    let (id, from) = match (&given.model, base) {
        (Some(id), _) => (id.as_str(), Origin::Routes),
        (None, Some(base)) => (base.model.as_str(), base.from.model),
        (None, None) => match models.of(editor.name).collect::<Vec<_>>().as_slice() {
            [only] => (only.id.as_str(), Origin::Derived),
            several => {
                let ids: Vec<_> = several.iter().map(|model| model.id.as_str()).collect();
                bail!("{place}: model is missing; give one of {}", ids.join(", "))
            }
        },
    };
    match models.of(editor.name).next() {
        Some(any) if editor.takes_any_model() && models.get(editor.name, id).is_none() => {
            Ok((Model { id: id.to_owned(), ..any.clone() }, from))
        }
        _ => Ok((known_model(place, models, editor, id)?.clone(), from)),
    }
}

/// The model's route, merged with a built-in route of the same editor. Parameters are specific to a model's
/// style: a model of another style starts without defaults.
fn over(edit_type: &str, model: &Model, base: Option<&Route>) -> Route {
    let mut route = Route::of_model(edit_type, model);
    if let Some(base) = base {
        route.description = base.description;
        base.prompt.clone_into(&mut route.prompt);
        if base.style == model.style {
            route.params = base.params.clone();
        }
    }
    route
}

fn price(place: &str, given: &RouteOverride, route: &mut Route) -> Result<()> {
    let RouteOverride { price, currency, .. } = given;
    let currency = currency.as_deref();
    let Some(price) = price else {
        if let Some(currency) = currency {
            money(place, "price", "0", currency)?;
            bail!("{place}: price must stand beside currency: the model's is in {}", route.price.currency);
        }
        return Ok(());
    };
    route.price = money(place, "price", price, currency.unwrap_or(&route.price.currency))?;
    route.from.price = Origin::Routes;
    Ok(())
}

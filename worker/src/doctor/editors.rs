//! Checks the providers: their keys, and a free request if a provider has one.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::{Check, no_answer, within};
use crate::app::{Editors, open_editors};
use crate::config::{Offer, Parts};
use crate::editor::EditError;
use crate::models::{EDITORS, EditorKind, Origin};

const NAME: &str = "editors";

pub(super) async fn check(parts: &Parts) -> Vec<Check> {
    let Ok(offer) = &parts.offer else { return vec![Check::skipped(NAME, "skipped: it needs the settings")] };
    let public_url = parts.public_url.as_ref().ok().filter(|(_, given)| *given).map(|(url, _)| url);
    // The settings check reports editors that cannot be opened.
    let Ok(editors) = open_editors(offer, public_url) else {
        return vec![Check::skipped(NAME, "skipped: it needs the settings")];
    };
    let paid = EDITORS.iter().filter(|editor| editor.paid);
    join_all(paid.map(|editor| one(editor, offer, &editors))).await
}

async fn one(kind: &EditorKind, offer: &Offer, editors: &Editors) -> Check {
    let name = format!("editor {}", kind.name);
    let needs = kind.needs.unwrap_or_default();
    let Some(editor) = editors.get(kind.name) else { return without_key(name, needs, kind, offer) };
    match within(editor.ask()).await {
        None => Check::failed(name, no_answer(), "look at the way to the provider: DNS, firewall, base URL"),
        Some(Ok(true)) => Check::good(name, "the provider answers and takes the key"),
        Some(Ok(false)) => {
            Check::good(name, "there is a key; this provider has no question that costs nothing")
        }
        Some(Err(error)) => refused(name, needs, &error),
    }
}

fn refused(name: String, needs: &str, error: &EditError) -> Check {
    let told = error.to_string();
    match error {
        EditError::Blocked { .. } => Check::failed(
            name,
            told,
            format!("correct {needs}, the account or the base URL (keys belong to one region)"),
        ),
        EditError::NotSent(_) | EditError::Unavailable(_) => {
            Check::failed(name, told, "correct the base URL, or open the way to it: DNS, firewall, proxy")
        }
        EditError::RateLimited { .. } => Check::warning(name, told, "wait a minute, and ask again"),
        EditError::Unbilled { .. }
        | EditError::Ambiguous(_)
        | EditError::Unreadable(_)
        | EditError::Rejected { .. } => {
            Check::warning(name, told, "ask again; if it stays, look at the base URL")
        }
    }
}

/// Not a fault: a provider is optional. A warning if the file configures it.
fn without_key(name: String, needs: &str, kind: &EditorKind, offer: &Offer) -> Check {
    let spoken_of = spoken_of(kind, offer);
    if spoken_of.is_empty() {
        return Check::skipped(name, format!("no key ({needs}): its edit types are not offered here"));
    }
    let places: Vec<_> = spoken_of.into_iter().collect();
    let detail = format!("there is no key, and {} of the settings needs it", places.join(", "));
    Check::failed(name, detail, format!("set {needs} (or {needs}_FILE), or take that out of the file"))
}

fn spoken_of(kind: &EditorKind, offer: &Offer) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for route in offer.routes.iter().filter(|route| route.editor == kind) {
        let from =
            [route.from.editor, route.from.model, route.from.price, route.from.prompt, route.from.params];
        if from.contains(&Origin::Routes) {
            places.insert(format!("[routes.{}]", route.edit_type));
        }
    }
    for model in offer.models.iter().filter(|model| model.editor == kind) {
        if [model.price_from, model.lane_from].contains(&Origin::Models) {
            places.insert(format!("[models.{:?}]", model.id));
        }
    }
    places
}

//! The catalogue: the edit types, their models, the models' lanes, and the editors that exist here.

use anyhow::Result;
use retouch_shared::event::ImageError;

use super::editors::{EditorSettings, Keys};
use super::lanes::Lanes;
use super::parts::result_max;
use super::read::Raw;
use crate::models::{EDITORS, EditorKind, Models};
use crate::routes::{Route, Routes};

/// Editors with their models, routes, prices and lanes.
#[derive(Debug, Clone)]
pub struct Offer {
    /// `[editors.NAME]` in `retouch.toml`, and the keys.
    pub editors: EditorSettings,
    /// The built-in models and `[models."ID"]` in `retouch.toml`.
    pub models: Models,
    /// The built-in routes and `[routes.EDIT_TYPE]` in `retouch.toml`.
    pub routes: Routes,
    /// The models' lanes and `[lanes.NAME]` in `retouch.toml`.
    pub lanes: Lanes,
}

impl Offer {
    /// # Errors
    /// One sentence that names the setting and the fix; never a secret.
    pub(super) fn decide(raw: &mut Raw, keys: Keys) -> Result<Self> {
        let mut editors = EditorSettings::decide(
            std::mem::take(&mut raw.editors),
            keys,
            #[cfg(feature = "double")]
            raw.double.take(),
        )?;
        editors.dashscope.result_max = Some(result_max(raw));
        let models = Models::decide(&raw.models)?;
        let routes = Routes::decide(&raw.routes, &models)?;
        let lanes = Lanes::decide(&raw.lanes, &models, &routes, |model| editors.can_list(model))?;
        Ok(Self { editors, models, routes, lanes })
    }

    /// The route of an edit type, with the task's choice of model.
    ///
    /// # Errors
    /// `unknown_edit_type` and `unknown_model` with the list, `no_editor` with the key to set.
    pub fn resolve(&self, edit_type: &str, model: Option<&str>) -> Result<Route, ImageError> {
        let Some(route) = self.routes.find(&self.models, edit_type, model) else {
            let message = format!("edit_type: {edit_type:?} is not known; known are {}", self.known());
            return Err(ImageError { code: "unknown_edit_type".to_owned(), message });
        };
        let route = route?;
        match self.missing(route.editor) {
            None => Ok(route),
            Some(needs) => {
                let message = format!("edit_type: {edit_type} needs {needs}, which is not set here");
                Err(ImageError { code: "no_editor".to_owned(), message })
            }
        }
    }

    /// The missing variable of an editor; `None` if the editor exists.
    pub fn missing(&self, editor: &EditorKind) -> Option<&'static str> {
        editor.needs.filter(|_| !self.editors.exists(editor))
    }

    /// The lanes that this worker can serve, by name: those of every model that a task may choose.
    pub fn served_lanes(&self) -> Vec<String> {
        let served = self.lanes.iter().filter(|lane| self.missing(lane.editor).is_none());
        served.map(|lane| lane.name.clone()).collect()
    }

    /// The edit types, available ones first.
    fn known(&self) -> String {
        let of = |editor: &EditorKind| -> Vec<&str> {
            let routes = self.routes.iter().filter(|route| route.editor == editor);
            routes.map(|route| route.edit_type.as_str()).collect()
        };
        let (mut here, mut elsewhere) = (Vec::new(), String::new());
        for editor in EDITORS {
            match self.missing(editor) {
                None => here.extend(of(editor)),
                // For the tests of this program.
                Some("RETOUCH_DOUBLE") => {}
                Some(needs) => {
                    let types = of(editor);
                    if !types.is_empty() {
                        elsewhere += &format!("; with {needs} also {}", types.join(", "));
                    }
                }
            }
        }
        here.sort_unstable();
        here.join(", ") + &elsewhere
    }
}

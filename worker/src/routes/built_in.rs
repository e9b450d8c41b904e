//! The built-in routes: the local operations, the functions of the image-edit model, and common edits in
//! plain language.
//!
//! A changed prompt or parameter here makes another edit of every picture: cached results of the old one
//! never hit again, and the edits are paid once more.

use anyhow::{Context, Result};

use super::{PLACE, Route, known_model, template};
use crate::editor::local;
use crate::models::{Models, known_editor};

struct BuiltIn {
    edit_type: &'static str,
    description: &'static str,
    editor: &'static str,
    model: &'static str,
    /// Empty, a default, or a template with `{prompt}` in it: then a task must have a prompt.
    prompt: &'static str,
    /// JSON.
    params: &'static str,
}

/// Edits by providers.
const PROVIDERS: &[BuiltIn] = &[
    // The ten functions by their own names.
    function("stylization_all", "Redraw the whole picture in the style that the prompt names", PLACE),
    function("stylization_local", "Give a part of the picture the style that the prompt names", PLACE),
    function("description_edit", "Change what the prompt says", PLACE),
    // Without a prompt, the masked part vanishes.
    function("description_edit_with_mask", "Change what the prompt says where the mask is white", ""),
    function(
        "remove_watermark",
        "Remove watermarks and overlaid text",
        "Remove the watermark from the picture.",
    ),
    BuiltIn {
        // 1.0 on a side leaves it as it is.
        params: r#"{"bottom_scale":1.5,"left_scale":1.5,"right_scale":1.5,"top_scale":1.5}"#,
        ..function(
            "expand",
            "Paint beyond the edges; each side by its scale, 1.0 to keep it",
            "Continue the picture naturally beyond its edges.",
        )
    },
    function(
        "super_resolution",
        "Sharpen, or enlarge by upscale_factor",
        "Raise the resolution of the picture.",
    ),
    function("colorization", "Give a black and white picture colours", "Color the picture naturally."),
    function("doodle", "Turn a sketch into the picture that the prompt describes", PLACE),
    function("control_cartoon_feature", "Draw the cartoon figure of the picture as the prompt says", PLACE),
    // Functions of the same model under common names.
    BuiltIn {
        params: r#"{"function":"super_resolution","upscale_factor":2}"#,
        ..function(
            "enhance",
            "Twice the size, and sharper",
            "Raise the resolution and sharpen the details of the picture.",
        )
    },
    BuiltIn {
        params: r#"{"function":"description_edit"}"#,
        ..function(
            "remove",
            "Remove what the prompt names",
            "Remove {prompt} from the picture and fill the place naturally with the background.",
        )
    },
    // Plain language.
    in_words("edit", "Change what the prompt says, in plain language", PLACE),
    in_words(
        "replace_background",
        "Put the subject before what the prompt describes",
        "Replace the background with {prompt}. Keep the subject exactly as it is.",
    ),
    in_words(
        "restyle",
        "Redraw the picture in the style that the prompt names",
        "Redraw the picture in this style: {prompt}. Keep its content.",
    ),
];

const fn function(edit_type: &'static str, description: &'static str, prompt: &'static str) -> BuiltIn {
    let (editor, model) = ("dashscope", "wanx2.1-imageedit");
    BuiltIn { edit_type, description, editor, model, prompt, params: "{}" }
}

const fn in_words(edit_type: &'static str, description: &'static str, prompt: &'static str) -> BuiltIn {
    BuiltIn { model: "qwen-image-2.0", ..function(edit_type, description, prompt) }
}

const fn local_operation(operation: &'static local::Operation) -> BuiltIn {
    BuiltIn { editor: "local", model: local::MODEL, ..function(operation.name, operation.description, "") }
}

#[cfg(feature = "double")]
const DOUBLES: &[BuiltIn] = &[double("double"), double("double_async")];

#[cfg(feature = "double")]
const fn double(edit_type: &'static str) -> BuiltIn {
    BuiltIn { editor: "double", model: "double-1", ..function(edit_type, "For the tests", "") }
}

/// All routes. A local operation's name always belongs to the local editor.
pub(super) fn routes(models: &Models) -> Result<Vec<Route>> {
    let providers = PROVIDERS.iter().map(|built_in| route(built_in, models));
    let local = local::operations().map(|operation| route(&local_operation(operation), models));
    #[cfg(feature = "double")]
    let local = local.chain(DOUBLES.iter().map(|built_in| route(built_in, models)));
    providers.chain(local).collect()
}

fn route(built_in: &BuiltIn, models: &Models) -> Result<Route> {
    let BuiltIn { edit_type, description, editor, model, prompt, params } = *built_in;
    let editor = known_editor(edit_type, editor)?;
    let model = known_model(edit_type, models, editor, model)?;
    Ok(Route {
        description,
        prompt: template(edit_type, prompt)?,
        params: params.parse().context(edit_type)?,
        ..Route::of_model(edit_type, model)
    })
}

/// Edit types by providers, with their descriptions, for people.
pub fn provider_edit_types() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROVIDERS.iter().map(|built_in| (built_in.edit_type, built_in.description))
}

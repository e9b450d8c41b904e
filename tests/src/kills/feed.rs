//! The tasks of a run: one to three pictures each, most edits requested by several tasks, some styles in
//! turn. Task number `n` is the same in every run.

use std::time::Duration;

use serde_json::Value;

use crate::paid::{asked, picture, task};
use crate::stand_in::Asked;

/// How the provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The result comes with the answer: qwen-image-2.0, and OpenAI's model.
    Sync,
    /// An id comes with the answer, and is polled: two functions of wanx2.1-imageedit.
    Async,
    /// As `Async`, and the provider's list of tasks is asked about lost answers.
    AsyncList,
}

impl Mode {
    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::AsyncList => "async+list",
        }
    }

    /// How long a worker may live.
    #[must_use]
    pub const fn patience(self) -> Duration {
        match self {
            Self::Sync | Self::Async => Duration::from_secs(3),
            // Its lanes wait while a submit is looked up, so its calls take longer to come by.
            Self::AsyncList => Duration::from_secs(8),
        }
    }

    /// The settings of its workers.
    #[must_use]
    pub fn toml(self) -> String {
        let lanes = "[lanes.\"dashscope.wanx2.1-imageedit\"]\nconcurrency = 8\nmax_in_flight = 32\nper_second = 1000\n\
                     [lanes.\"dashscope.qwen-image-2.0\"]\nconcurrency = 8\nmax_in_flight = 32\nper_second = 1000\n";
        let paint = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n[routes.paint]\nmodel = \"gpt-image-1.5\"\n";
        let (list, lanes) = match self {
            // The list identifies a task only within the lane's own limits. The stand-in lists a task at
            // once, but on a busy machine a create may reach it late.
            Self::AsyncList => ("ask_list = true\nlist_settles_seconds = 3\n", ""),
            Self::Sync | Self::Async => ("", lanes),
        };
        format!("[editors.dashscope]\npoll_seconds = 0.1\n{list}{lanes}{paint}")
    }

    fn styles(self) -> &'static [Style] {
        const EDIT: &str = "edit";
        const ASYNC: Style = ("remove_watermark", "the text", None);
        match self {
            Self::Sync => &[(EDIT, "winter", None), ("paint", "as a watercolour", None)],
            Self::Async => &[ASYNC, ("description_edit", "at night", None)],
            // A lane sends nothing while its last submit is unresolved, so there are several lanes.
            Self::AsyncList => &[
                ASYNC,
                (EDIT, "winter", Some("wan2.5-i2i-preview")),
                (EDIT, "winter", Some("wan2.6-image")),
                (EDIT, "winter", Some("wan2.7-image")),
                (EDIT, "winter", Some("wan2.7-image-pro")),
            ],
        }
    }
}

/// Edit type, prompt, and the model where it is not the edit type's own.
type Style = (&'static str, &'static str, Option<&'static str>);

/// One edit of one picture.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The seed of the picture.
    pub picture: u64,
    /// The edit type of the task.
    pub edit_type: &'static str,
    /// What the provider is asked.
    pub asked: Asked,
}

/// Task `n`: its id, its edits by position, and the message.
#[must_use]
pub fn nth(mode: Mode, n: u64) -> (String, Vec<Edit>, Value) {
    let styles = mode.styles();
    let (edit_type, said, model) = styles[usize::try_from(n / 2).unwrap_or(0) % styles.len()];
    let asked = match (edit_type, model) {
        (_, Some(model)) => Asked::new(model).prompt(said),
        ("edit", None) => Asked::new("qwen-image-2.0").prompt(said),
        ("paint", None) => Asked::new("gpt-image-1.5").prompt(said),
        (function, None) => asked(function, said),
    };
    // Its own picture, and some that tasks before and after it want too.
    let others = [n / 2 + 1, n.saturating_sub(n % 5)];
    let pictures = std::iter::once(n).chain(others.into_iter().take(usize::try_from(n % 3).unwrap_or(0)));
    let edits: Vec<Edit> =
        pictures.map(|picture| Edit { picture, edit_type, asked: asked.clone() }).collect();
    let bytes: Vec<_> = edits.iter().map(|edit| picture(edit.picture)).collect();
    let id = format!("{}-{n}", mode.name().replace('+', "-"));
    let mut message = task(&id, edit_type, said, &bytes);
    if let Some(model) = model {
        message["model"] = model.into();
    }
    (id, edits, message)
}

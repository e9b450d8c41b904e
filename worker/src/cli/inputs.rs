//! What people say about an edit, and where its pictures are: shared by `edit` and `submit`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use clap::Args;
use retouch_shared::key::Digest32;
use retouch_shared::task::{MAX_IMAGES, Params, Task};
use retouch_shared::wire::{ImageRef, TaskMessage, VERSION};
use serde_json::{Map, Value};

use super::folders::{Folders, LeftOut, metadata_of, no_file};
use super::output;
use super::say::complain;
use crate::editor::local::{self, Operation};
use crate::routes::built_in::provider_edit_types;
use crate::sources::fetch::MOST_BYTES;

/// The edit.
#[derive(Debug, Clone, Args)]
pub(super) struct EditArgs {
    /// Picture files, folders (the pictures in them, told by their content), or http(s) URLs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Read the folders below a folder too; `edit` writes their results into folders of the same names
    #[arg(long, short = 'r')]
    recursive: bool,
    /// What to do, e.g. grayscale, sketch, remove_watermark; `retouch routes` has them all
    #[arg(long = "type", short = 't', value_name = "EDIT_TYPE")]
    pub(super) edit_type: String,
    /// What to do, in words
    #[arg(long, short = 'p', default_value = "", hide_default_value = true)]
    prompt: String,
    /// A parameter, e.g. sigma=3 (the value is JSON, or else text); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Parameters as a task has them, e.g. '{"sigma": 3}'
    #[arg(long = "params", value_name = "JSON")]
    all_params: Option<String>,
    /// The model, where the edit type leaves a choice
    #[arg(long)]
    model: Option<String>,
    /// A mask, as a file or URL: white where to edit, black where to keep
    #[arg(long, value_name = "IMAGE")]
    mask: Option<String>,
    /// Ask for another take on the same edit
    #[arg(long)]
    variant: Option<String>,
}

/// The edit types, a line each, for the end of a command's `-h`.
pub(super) fn edit_types() -> String {
    let line = |operation: &Operation| format!("\n  {:<13} {}", operation.name, operation.description);
    let local = listed(line);
    format!("Edit types that need no provider (--help has their parameters):{local}\n\n{}", of_providers())
}

/// As [`edit_types`], with the parameters of the local ones, for `--help`.
pub(super) fn edit_types_and_params() -> String {
    let lines = |operation: &Operation| {
        let params: String = operation.params.iter().map(|param| format!("\n{:18}{param}", "")).collect();
        format!("\n  {:<13} {}{params}", operation.name, operation.description)
    };
    let local = listed(lines);
    format!("Edit types that need no provider, with their parameters:{local}\n\n{}", of_providers())
}

/// Those that a provider does and that are built in.
fn of_providers() -> String {
    let line = |(name, description)| format!("\n  {name:<26} {description}");
    let lines: String = provider_edit_types().map(line).collect();
    format!("With DASHSCOPE_API_KEY (`retouch routes` has models, prices and what retouch.toml adds):{lines}")
}

fn listed(line: impl Fn(&Operation) -> String) -> String {
    local::operations().map(line).collect()
}

/// One picture as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(String),
    /// A file or folder that cannot be read: it fails alone.
    Unreadable {
        /// As it was found.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
}

impl Input {
    /// As people named it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) | Self::Unreadable { path, .. } => path.display().to_string(),
            Self::Url(url) => url.clone(),
        }
    }

    /// What its result is called after.
    pub(super) fn stem(&self) -> String {
        match self {
            Self::File(path) | Self::Unreadable { path, .. } => output::stem(path),
            Self::Url(url) => output::stem(Path::new(url.split(['?', '#']).next().unwrap_or_default())),
        }
    }
}

/// A picture and where its result belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) input: Input,
    /// The folder below the one that was named, and below that of the results.
    pub(super) under: PathBuf,
}

/// All that was named, its folders read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// In order; those of a folder by name.
    pub(super) pictures: Vec<Picture>,
    /// The folders that were named.
    pub(super) folders: Vec<PathBuf>,
    pub(super) left_out: LeftOut,
}

impl EditArgs {
    /// The pictures in order; folders stand for the pictures in them, by name, without those in `out`.
    ///
    /// # Errors
    /// Nothing that was named can be edited. What can be is edited, and the rest of it fails alone.
    pub(super) fn gather(&self, out: Option<&Path>) -> Result<Gathered> {
        let mut folders = Folders::new(self.recursive, out);
        let mut named = Vec::new();
        for image in &self.images {
            if let Some(url) = url(image) {
                let input = Input::Url(url);
                folders.pictures.push(Picture { input, under: PathBuf::new() });
                continue;
            }
            let path = PathBuf::from(image);
            match metadata_of(image) {
                Err(why) => folders.failed(&path, why),
                Ok(found) if found.is_dir() => {
                    folders.read(&path);
                    named.push(path);
                }
                Ok(found) if found.is_file() => {
                    folders.pictures.push(Picture { input: Input::File(path), under: PathBuf::new() });
                }
                Ok(found) => folders.failed(&path, no_file(&found)),
            }
        }
        let Folders { pictures, left_out, .. } = folders;
        refuse_nothing(&pictures)?;
        Ok(Gathered { pictures, folders: named, left_out })
    }

    /// As [`Self::gather`], for commands that write no files; what was left out is said on standard error.
    ///
    /// # Errors
    /// See [`Self::gather`].
    pub(super) fn inputs(&self) -> Result<Vec<Input>> {
        let Gathered { pictures, left_out, .. } = self.gather(None)?;
        if !left_out.is_empty() {
            complain(format!("left out: {}", left_out.in_words()));
        }
        Ok(pictures.into_iter().map(|picture| picture.input).collect())
    }

    /// The mask, if any.
    ///
    /// # Errors
    /// The file is not there.
    pub(super) fn mask(&self) -> Result<Option<Input>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        if let Some(url) = url(mask) {
            return Ok(Some(Input::Url(url)));
        }
        let found = metadata_of(mask).map_err(|why| anyhow!("--mask {mask}: {why}"))?;
        ensure!(!found.is_dir(), "--mask {mask}: is not a file but a folder");
        ensure!(found.is_file(), "--mask {mask}: {}", no_file(&found));
        Ok(Some(Input::File(PathBuf::from(mask))))
    }

    /// The edit as a task would have it, before anything was read or stored.
    ///
    /// # Errors
    /// Names the argument that the contract refuses.
    pub(super) fn checked(&self) -> Result<Task> {
        let nothing = [ImageRef::blob(&Digest32::of(b"").to_hex())];
        let message = self.tasks(&nothing, None)?.pop().context("no task")?;
        Ok(Task::from_message(message)?)
    }

    /// Tasks of at most [`MAX_IMAGES`] images, valid by the contract.
    ///
    /// # Errors
    /// Names the argument that the contract refuses.
    pub(super) fn tasks(&self, images: &[ImageRef], mask: Option<&ImageRef>) -> Result<Vec<TaskMessage>> {
        let params = self.params()?;
        let task = |images: &[ImageRef]| {
            let message = TaskMessage {
                v: VERSION,
                task_id: uuid::Uuid::now_v7().to_string(),
                edit_type: self.edit_type.clone(),
                prompt: self.prompt.clone(),
                model: self.model.clone(),
                params: params.clone(),
                mask: mask.cloned(),
                images: images.to_vec(),
                variant: self.variant.clone(),
                metadata: None,
            };
            Task::from_message(message.clone())?;
            Ok(message)
        };
        images.chunks(MAX_IMAGES).map(task).collect()
    }

    fn params(&self) -> Result<Params> {
        let mut params = match &self.all_params {
            Some(given) => {
                let given: Params = given.parse().with_context(|| format!("--params {given}"))?;
                given.as_object().clone()
            }
            None => Map::new(),
        };
        for param in &self.params {
            let (name, value) =
                param.split_once('=').with_context(|| format!("--param {param}: must be NAME=VALUE"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            let first = params.insert(name.to_owned(), value).is_none();
            ensure!(first, "--param {name}: given twice; give it once");
        }
        Ok(Params::from(params))
    }
}

/// Sentences of a refusal; the others are counted.
const SENTENCES: usize = 3;

/// Where nothing can be begun, each name with its reason.
fn refuse_nothing(pictures: &[Picture]) -> Result<()> {
    let mut why = Vec::new();
    for Picture { input, .. } in pictures {
        let Input::Unreadable { path, why: reason } = input else { return Ok(()) };
        why.push(format!("{}: {reason}", path.display()));
    }
    let more = why.len().saturating_sub(SENTENCES);
    why.truncate(SENTENCES);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    bail!("{}{more}", why.join("; "))
}

/// What may be a picture, as far as one byte more than a picture may have: enough for whoever checks it to refuse it, however much
/// lies there.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_at_most(path: &Path) -> Result<Bytes> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes.into())
    };
    read().with_context(|| path.display().to_string())
}

/// A picture's file.
///
/// # Errors
/// It cannot be read, or is larger than a picture may be.
pub(super) fn read_picture(path: &Path) -> Result<Bytes> {
    let bytes = read_at_most(path)?;
    ensure!(
        bytes.len() <= MOST_BYTES,
        "{}: has more than {MOST_BYTES} bytes, the limit for a picture",
        path.display()
    );
    Ok(bytes)
}

/// As the contract has it: the scheme in lower case.
fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    ["http", "https"].contains(&scheme.as_str()).then(|| format!("{scheme}://{rest}"))
}

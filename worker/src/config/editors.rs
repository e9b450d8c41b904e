//! Providers: their keys, from the environment only, and `[editors.NAME]`, which a shared file may hold
//! whether a machine has the key or not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use figment::value::{Dict, Value};
use serde::Deserialize;
use url::Url;

use crate::editor::dashscope::{self, Input, Style};
use crate::editor::http::ApiKey;
use crate::models::{EDITORS, EditorKind, Model};
use crate::sources::guard::AllowHosts;

/// The name of keys, which must not stand in a file.
const KEY_NAME: &str = "api_key";
/// Upper limit of each duration.
const MOST_SECONDS: f64 = 3600.0;

/// The key of each editor that has one, by provider kind.
pub(super) type Keys = BTreeMap<&'static str, ApiKey>;

/// `[editors]` in `retouch.toml`, with `DASHSCOPE_BASE_URL` and its like over it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEditors {
    dashscope: RawDashscope,
    openai: RawOpenai,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDashscope {
    base_url: Option<String>,
    workspace: Option<String>,
    input: Option<String>,
    poll_seconds: Option<f64>,
    polls_per_second: Option<f64>,
    timeout_seconds: Option<f64>,
    result_hosts: Vec<String>,
    ask_list: bool,
    list_settles_seconds: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawOpenai {
    base_url: Option<String>,
    timeout_seconds: Option<f64>,
    result_hosts: Vec<String>,
}

/// `[editors.dashscope]`; the adapter chooses what is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashscopeSettings {
    /// `None`: no key here, so the editor does not exist.
    pub key: Option<ApiKey>,
    /// Another region, a workspace host.
    pub base_url: Option<Url>,
    /// A header of each request.
    pub workspace: Option<String>,
    /// How pictures reach the provider.
    pub input: Input,
    /// Between two polls of one task.
    pub poll: Option<Duration>,
    /// Between two polls of any tasks.
    pub poll_spacing: Option<Duration>,
    /// For one exchange.
    pub timeout: Option<Duration>,
    /// Additional hosts of results.
    pub result_hosts: Vec<String>,
    /// Whether the provider's list of tasks is searched for a submit without an answer.
    pub ask_list: bool,
    /// How long an accepted task may be missing from the list.
    pub list_settles: Option<Duration>,
    /// Bytes of the largest result that is kept, [`Rhythm::result_max`](super::Rhythm).
    pub result_max: Option<u64>,
}

/// `[editors.openai]`; the adapter chooses what is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenaiSettings {
    /// `None`: no key here, so the editor does not exist.
    pub key: Option<ApiKey>,
    /// A compatible gateway.
    pub base_url: Option<Url>,
    /// For one exchange.
    pub timeout: Option<Duration>,
    /// Additional hosts of results, for a gateway that answers with URLs.
    pub result_hosts: Vec<String>,
}

/// Settings of the providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditorSettings {
    /// Of `dashscope`.
    pub dashscope: DashscopeSettings,
    /// Of `openai`.
    pub openai: OpenaiSettings,
    /// The folder of the test double, if it is switched on.
    #[cfg(feature = "double")]
    pub double: Option<PathBuf>,
}

impl EditorSettings {
    /// # Errors
    /// One sentence that names the setting and the fix; never a secret.
    pub(super) fn decide(
        raw: RawEditors,
        mut keys: Keys,
        #[cfg(feature = "double")] double: Option<PathBuf>,
    ) -> Result<Self> {
        let RawDashscope {
            base_url,
            workspace,
            input,
            poll_seconds,
            polls_per_second,
            timeout_seconds,
            result_hosts,
            ask_list,
            list_settles_seconds,
        } = raw.dashscope;
        if let Some(workspace) = &workspace {
            let fits = !workspace.is_empty() && workspace.bytes().all(|b| b.is_ascii_graphic());
            ensure!(fits, "DASHSCOPE_WORKSPACE must be the id of a workspace, without spaces");
        }
        let place = "[editors.dashscope]";
        let dashscope = DashscopeSettings {
            key: keys.remove("dashscope"),
            base_url: base_url.map(|url| self::base_url("DASHSCOPE_BASE_URL", &url)).transpose()?,
            workspace,
            input: input.map_or(Ok(Input::default()), |word| word.parse()).with_context(|| place)?,
            poll: seconds(place, "poll_seconds", poll_seconds)?,
            poll_spacing: spacing(place, polls_per_second)?,
            timeout: seconds(place, "timeout_seconds", timeout_seconds)?,
            result_hosts: hosts(place, result_hosts)?,
            ask_list,
            list_settles: seconds(place, "list_settles_seconds", list_settles_seconds)?,
            result_max: None,
        };
        let RawOpenai { base_url, timeout_seconds, result_hosts } = raw.openai;
        let place = "[editors.openai]";
        let openai = OpenaiSettings {
            key: keys.remove("openai"),
            base_url: base_url.map(|url| self::base_url("OPENAI_BASE_URL", &url)).transpose()?,
            timeout: seconds(place, "timeout_seconds", timeout_seconds)?,
            result_hosts: hosts(place, result_hosts)?,
        };
        Ok(Self {
            dashscope,
            openai,
            #[cfg(feature = "double")]
            double,
        })
    }

    /// Whether the provider's list can tell the fate of a submit of this model.
    pub(super) fn can_list(&self, model: &Model) -> bool {
        let is_async = || model.style.parse::<Style>().is_ok_and(Style::is_async);
        self.dashscope.ask_list && model.editor.name == dashscope::KIND && is_async()
    }

    /// Whether an editor of this kind exists here.
    pub fn exists(&self, editor: &EditorKind) -> bool {
        match editor.name {
            "local" => true,
            "dashscope" => self.dashscope.key.is_some(),
            "openai" => self.openai.key.is_some(),
            #[cfg(feature = "double")]
            "double" => self.double.is_some(),
            _ => false,
        }
    }
}

/// Reads the keys through `variable`, which returns a variable's text, or `None` for an empty one.
///
/// # Errors
/// One sentence that names the variable and the fix; never a key.
pub(super) fn keys(variable: impl Fn(&str) -> Result<Option<String>>) -> Result<Keys> {
    let mut keys = Keys::new();
    for (editor, name) in paid() {
        let file = in_file(name);
        let (place, key) = match (variable(name)?, variable(&file)?) {
            (None, None) => continue,
            (Some(_), Some(_)) => bail!("{name} and {file} are both set; set one of them"),
            (Some(key), None) => (name, ApiKey::Text(key)),
            (None, Some(path)) => (file.as_str(), ApiKey::File(PathBuf::from(path))),
        };
        key.read().map_err(|error| anyhow::anyhow!("{place}: {error}"))?;
        keys.insert(editor.name, key);
    }
    Ok(keys)
}

/// Files of settings are copied, committed and shown; a key must not be in one.
///
/// # Errors
/// The place of the key, and what to set instead.
pub(super) fn refuse_keys(path: &str, file: &Dict) -> Result<()> {
    for (name, value) in file {
        let is_key = name.to_ascii_lowercase().contains(KEY_NAME);
        ensure!(
            !is_key,
            "{path}{name}: a key must not stand in this file; set {} in the environment",
            key_variables()
        );
        if let Value::Dict(_, inner) = value {
            refuse_keys(&format!("{path}{name}."), inner)?;
        }
    }
    Ok(())
}

fn key_variables() -> String {
    paid().map(|(_, name)| format!("{name} or {}", in_file(name))).collect::<Vec<_>>().join(", ")
}

/// The variables of the providers' keys, and those that name a file instead.
pub(super) fn key_names() -> impl Iterator<Item = String> {
    paid().flat_map(|(_, name)| [name.to_owned(), in_file(name)])
}

/// Each paid editor, with the variable of its key.
fn paid() -> impl Iterator<Item = (&'static EditorKind, &'static str)> {
    EDITORS.iter().filter(|editor| editor.paid).filter_map(|editor| Some((editor, editor.needs?)))
}

fn in_file(name: &str) -> String {
    format!("{name}_FILE")
}

/// The text is never quoted: it may hold a password.
fn base_url(name: &str, text: &str) -> Result<Url> {
    let wrong = || format!("{name} must be a URL such as https://provider.example/api/v1");
    let url = Url::parse(text).ok().with_context(wrong)?;
    ensure!(matches!(url.scheme(), "http" | "https"), "{name} must start with https:// or http://");
    let has_user = !url.username().is_empty() || url.password().is_some();
    ensure!(!has_user, "{name} must not hold a user or a password; the key is a setting of its own");
    let ends = url.query().is_none() && url.fragment().is_none();
    ensure!(ends, "{name} must end with its path, without ? and #");
    let base = url.as_str().trim_end_matches('/');
    Url::parse(base).ok().with_context(wrong)
}

fn seconds(place: &str, field: &str, given: Option<f64>) -> Result<Option<Duration>> {
    let Some(seconds) = given else { return Ok(None) };
    let fits = seconds > 0.0 && seconds <= MOST_SECONDS;
    ensure!(fits, "{place}: {field} must be more than 0 and at most {MOST_SECONDS}, not {seconds}");
    Ok(Some(Duration::from_secs_f64(seconds)))
}

fn spacing(place: &str, per_second: Option<f64>) -> Result<Option<Duration>> {
    const MOST: f64 = 10_000.0;
    let Some(per_second) = per_second else { return Ok(None) };
    let fits = (0.01..=MOST).contains(&per_second);
    ensure!(fits, "{place}: polls_per_second must be at least 0.01 and at most {MOST}, not {per_second}");
    Ok(Some(Duration::from_secs_f64(1.0 / per_second)))
}

/// Additional hosts; the adapter knows the provider's own.
fn hosts(place: &str, given: Vec<String>) -> Result<Vec<String>> {
    given.join(",").parse::<AllowHosts>().with_context(|| format!("{place}: result_hosts"))?;
    Ok(given)
}

#[cfg(test)]
mod tests;

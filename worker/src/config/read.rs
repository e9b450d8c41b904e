//! Reads settings: the environment over the file, before validation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use figment::providers::{Format, Toml};
use figment::{Figment, Provider};
use serde::Deserialize;

use super::OnAmbiguous;
use super::editors::{self, RawEditors};
use super::lanes::RawLane;
use crate::models::ModelOverride;
use crate::routes::RouteOverride;

/// Unvalidated settings from the environment and the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) database_url: Option<String>,
    pub(super) amqp_url: Option<String>,
    pub(super) blobs: Option<String>,
    pub(super) public_url: Option<String>,
    pub(super) http: Option<String>,
    pub(super) allow_hosts: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) intake_concurrency: Option<u16>,
    pub(super) intake_memory_mib: Option<u32>,
    pub(super) decode_memory_mib: Option<u32>,
    pub(super) result_max_mib: Option<u32>,
    pub(super) lease_seconds: Option<u64>,
    pub(super) sweep_seconds: Option<u64>,
    pub(super) patience_seconds: Option<u64>,
    pub(super) grace_seconds: Option<u64>,
    pub(super) probe_seconds: Option<u64>,
    pub(super) poison_kills: Option<u32>,
    pub(super) dead_retention_days: Option<u32>,
    pub(super) cache_max_bytes: Option<u64>,
    pub(super) cache_max_age_days: Option<u32>,
    pub(super) cache_max_idle_days: Option<u32>,
    pub(super) cache_keep_hours: Option<u32>,
    pub(super) blobs_sweep_days: Option<u32>,
    #[cfg(feature = "double")]
    pub(super) double: Option<PathBuf>,
    #[serde(default)]
    pub(super) editors: RawEditors,
    #[serde(default)]
    pub(super) models: BTreeMap<String, ModelOverride>,
    #[serde(default)]
    pub(super) lanes: BTreeMap<String, RawLane>,
    #[serde(default)]
    pub(super) routes: BTreeMap<String, RouteOverride>,
}

/// The type of a variable's text. It is never guessed: the namespace `7` is a text.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
}

/// The environment variables that are settings, with the name of each in the file.
const VARIABLES: &[(&str, &str, Kind)] = &[
    ("DATABASE_URL", "database_url", Kind::Text),
    ("AMQP_URL", "amqp_url", Kind::Text),
    ("RETOUCH_BLOBS", "blobs", Kind::Text),
    ("RETOUCH_PUBLIC_URL", "public_url", Kind::Text),
    ("RETOUCH_HTTP", "http", Kind::Text),
    ("RETOUCH_ALLOW_HOSTS", "allow_hosts", Kind::Text),
    ("RETOUCH_NAMESPACE", "namespace", Kind::Text),
    ("RETOUCH_NAME", "name", Kind::Text),
    ("RETOUCH_ON_AMBIGUOUS", "on_ambiguous", Kind::Text),
    ("RETOUCH_INTAKE_CONCURRENCY", "intake_concurrency", Kind::Number),
    ("RETOUCH_INTAKE_MEMORY_MIB", "intake_memory_mib", Kind::Number),
    ("RETOUCH_DECODE_MEMORY_MIB", "decode_memory_mib", Kind::Number),
    ("RETOUCH_RESULT_MAX_MIB", "result_max_mib", Kind::Number),
    ("RETOUCH_LEASE_SECONDS", "lease_seconds", Kind::Number),
    ("RETOUCH_SWEEP_SECONDS", "sweep_seconds", Kind::Number),
    ("RETOUCH_PATIENCE_SECONDS", "patience_seconds", Kind::Number),
    ("RETOUCH_GRACE_SECONDS", "grace_seconds", Kind::Number),
    ("RETOUCH_PROBE_SECONDS", "probe_seconds", Kind::Number),
    ("RETOUCH_POISON_KILLS", "poison_kills", Kind::Number),
    ("RETOUCH_DEAD_RETENTION_DAYS", "dead_retention_days", Kind::Number),
    ("RETOUCH_CACHE_MAX_BYTES", "cache_max_bytes", Kind::Number),
    ("RETOUCH_CACHE_MAX_AGE_DAYS", "cache_max_age_days", Kind::Number),
    ("RETOUCH_CACHE_MAX_IDLE_DAYS", "cache_max_idle_days", Kind::Number),
    ("RETOUCH_CACHE_KEEP_HOURS", "cache_keep_hours", Kind::Number),
    ("RETOUCH_BLOBS_SWEEP_DAYS", "blobs_sweep_days", Kind::Number),
    ("DASHSCOPE_BASE_URL", "editors.dashscope.base_url", Kind::Text),
    ("DASHSCOPE_WORKSPACE", "editors.dashscope.workspace", Kind::Text),
    ("OPENAI_BASE_URL", "editors.openai.base_url", Kind::Text),
    #[cfg(feature = "double")]
    ("RETOUCH_DOUBLE", "double", Kind::Text),
];
/// Read elsewhere: the file's path.
const ELSEWHERE: &[&str] = &["RETOUCH_CONFIG"];

/// Every variable that is a setting of this build, except keys.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|&(name, ..)| name).chain(ELSEWHERE.iter().copied())
}

impl Raw {
    /// Reads the file, if there is one, and the environment over it.
    ///
    /// # Errors
    /// One sentence that names the setting and the fix; never a secret.
    pub(super) fn read() -> Result<Self> {
        refuse_unknown_variables()?;
        let mut settings = Figment::new();
        if let Some(file) = config_file()? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            settings = settings.merge(Toml::string(&text));
            refuse_keys(&settings).with_context(|| file.display().to_string())?;
            // Validated alone first, so that a mistake in the file is reported as such.
            Self::of(&settings).with_context(|| file.display().to_string())?;
        }
        for &(name, setting, kind) in VARIABLES {
            let Some(text) = variable(name)? else { continue };
            settings = match kind {
                Kind::Text => {
                    let settings = settings.merge((setting, &text));
                    Self::of(&settings).with_context(|| name)?;
                    settings
                }
                Kind::Number => {
                    let number: Option<u64> = text.parse().ok();
                    let wrong = || format!("{name} must be a whole number, not {text:?}");
                    settings.merge((setting, number.with_context(wrong)?))
                }
            };
        }
        Self::of(&settings)
    }

    fn of(figment: &Figment) -> Result<Self> {
        figment.extract().map_err(|error| {
            // A parse error quotes the line, which may hold a password: only its first line (the place) and
            // last line (the fault) are kept.
            let text = error.kind.to_string();
            let mut lines = text.lines();
            let what = match (lines.next(), lines.next_back()) {
                (Some(place), Some(reason)) => format!("{place}: {reason}"),
                (place, _) => place.unwrap_or_default().to_owned(),
            };
            match error.path.join(".") {
                path if path.is_empty() => anyhow::anyhow!(what),
                path => anyhow::anyhow!("{path}: {what}"),
            }
        })
    }
}

/// A variable's text. An empty variable is an unset one, as compose files and shells leave them.
pub(super) fn variable(name: &str) -> Result<Option<String>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))?;
    let text = value.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A file that is not TOML is refused elsewhere.
fn refuse_keys(file: &Figment) -> Result<()> {
    let Ok(profiles) = file.data() else { return Ok(()) };
    profiles.values().try_for_each(|file| editors::refuse_keys("", file))
}

/// A misspelt setting would be ignored silently.
fn refuse_unknown_variables() -> Result<()> {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("RETOUCH_")) else { continue };
        let known = variables().any(|variable| variable == name);
        let of_tests = name.starts_with("RETOUCH_TEST_");
        ensure!(known || of_tests, "{name} is not a setting of retouch: see `retouch --help` for the list");
    }
    Ok(())
}

fn config_file() -> Result<Option<PathBuf>> {
    if let Some(file) = std::env::var_os("RETOUCH_CONFIG").filter(|file| !file.is_empty()) {
        let file = PathBuf::from(file);
        ensure!(file.is_file(), "RETOUCH_CONFIG: there is no file {}", file.display());
        return Ok(Some(file));
    }
    let file = Path::new("retouch.toml");
    Ok(file.is_file().then(|| file.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_toml(text: &str) -> Result<Raw> {
        Raw::of(&Figment::from(Toml::string(text)))
    }

    #[test]
    fn a_file_sets_variables_lanes_and_routes() {
        let raw = of_toml(
            "http = 'off'\nlease_seconds = 7\non_ambiguous = 'hold'\n[lanes.local]\nconcurrency = 2\n\
             [routes.blur]\neditor = 'local'\nprice = '0.14'\nparams = { sigma = 2.5 }\n",
        );
        let raw = raw.unwrap();
        assert_eq!((raw.http.as_deref(), raw.lease_seconds), (Some("off"), Some(7)));
        assert_eq!(raw.on_ambiguous, OnAmbiguous::Hold);
        assert_eq!(raw.lanes["local"].concurrency, Some(2));
        assert_eq!(raw.routes["blur"].params.canonical(), r#"{"sigma":2.5}"#);
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_without_quoting_it() {
        let error = of_toml("database_url = \"mysql://u:hunter2@h").map(drop).unwrap_err().to_string();
        assert!(error.starts_with("TOML parse error at line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn bad_entries_of_a_file_are_refused_by_their_place() {
        for (toml, says) in [
            ("foo = 1", "foo: unknown field: found `foo`, expected `one of `database_url`"),
            ("[lanes.local]\nspeed = 1", "lanes.local.speed: unknown field: found `speed`"),
            (
                "[lanes.local]\nconcurrency = 'two'",
                "lanes.local.concurrency: invalid type: found string \"two\"",
            ),
            ("[routes.blur]\neditor = 'local'\nprice = 0.14", "routes.blur.price: invalid type: found float"),
            ("on_ambiguous = 'what'", "on_ambiguous: unknown variant: found `what`"),
            ("lease_seconds = -1", "lease_seconds: invalid value"),
            ("http = 'off'\na = [", "TOML parse error at line 2"),
            ("http = 'off'\nhttp = 'on'", "TOML parse error at line 2"),
        ] {
            let error = of_toml(toml).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(says) && !error.contains('\n'), "{toml}: {error}");
        }
    }
}

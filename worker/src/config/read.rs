//! Reading settings: what stands in the environment, over what stands in the file, before anything is decided.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{LaneLimits, OnAmbiguous};
use crate::routes::RouteOverride;

/// As it stands in the environment and the file.
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
    #[serde(default)]
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) intake_concurrency: Option<u16>,
    pub(super) lease_seconds: Option<u64>,
    pub(super) sweep_seconds: Option<u64>,
    pub(super) grace_seconds: Option<u64>,
    #[cfg(feature = "double")]
    pub(super) double: Option<PathBuf>,
    #[serde(default)]
    pub(super) lanes: BTreeMap<String, LaneLimits>,
    #[serde(default)]
    pub(super) routes: BTreeMap<String, RouteOverride>,
}

/// Puts a variable's text into its place.
type Set = fn(&mut Raw, String) -> Result<()>;

/// The environment variables that are settings. Each is also a key of the file, in lower case without `RETOUCH_`.
const VARIABLES: &[(&str, Set)] = &[
    ("DATABASE_URL", |raw, text| put(&mut raw.database_url, text)),
    ("AMQP_URL", |raw, text| put(&mut raw.amqp_url, text)),
    ("RETOUCH_BLOBS", |raw, text| put(&mut raw.blobs, text)),
    ("RETOUCH_PUBLIC_URL", |raw, text| put(&mut raw.public_url, text)),
    ("RETOUCH_HTTP", |raw, text| put(&mut raw.http, text)),
    ("RETOUCH_ALLOW_HOSTS", |raw, text| put(&mut raw.allow_hosts, text)),
    ("RETOUCH_NAMESPACE", |raw, text| put(&mut raw.namespace, text)),
    ("RETOUCH_ON_AMBIGUOUS", |raw, text| {
        raw.on_ambiguous = match text.as_str() {
            "retry" => OnAmbiguous::Retry,
            "hold" => OnAmbiguous::Hold,
            _ => bail!("must be retry or hold, not {text:?}"),
        };
        Ok(())
    }),
    ("RETOUCH_INTAKE_CONCURRENCY", |raw, text| put_number(&mut raw.intake_concurrency, &text)),
    ("RETOUCH_LEASE_SECONDS", |raw, text| put_number(&mut raw.lease_seconds, &text)),
    ("RETOUCH_SWEEP_SECONDS", |raw, text| put_number(&mut raw.sweep_seconds, &text)),
    ("RETOUCH_GRACE_SECONDS", |raw, text| put_number(&mut raw.grace_seconds, &text)),
    #[cfg(feature = "double")]
    ("RETOUCH_DOUBLE", |raw, text| put(&mut raw.double, text)),
];
/// Read by other parts: the file's place.
const ELSEWHERE: &[&str] = &["RETOUCH_CONFIG"];

fn put<T: From<String>>(place: &mut Option<T>, text: String) -> Result<()> {
    *place = Some(text.into());
    Ok(())
}

fn put_number<T: std::str::FromStr>(place: &mut Option<T>, text: &str) -> Result<()> {
    let number = text.parse().map_err(|_| anyhow::anyhow!("must be a whole number, not {text:?}"))?;
    *place = Some(number);
    Ok(())
}

impl Raw {
    /// Reads the file, if there is one, and the environment.
    ///
    /// # Errors
    /// One sentence that names the setting and the fix; never a secret.
    pub(super) fn read() -> Result<Self> {
        refuse_unknown_variables()?;
        let mut raw = match config_file()? {
            Some(file) => Self::of_file(&file)?,
            None => Self::default(),
        };
        for (name, set) in VARIABLES {
            let Some(value) = std::env::var_os(name) else { continue };
            let value = value.into_string().map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))?;
            // An empty variable is an unset one, as compose files and shells leave them.
            let value = value.trim();
            if !value.is_empty() {
                set(&mut raw, value.to_owned()).with_context(|| (*name).to_owned())?;
            }
        }
        Ok(raw)
    }

    fn of_file(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::of_toml(&text).with_context(|| file.display().to_string())
    }

    fn of_toml(text: &str) -> Result<Self> {
        let one_line = |error: &toml::de::Error| error.message().lines().collect::<Vec<_>>().join(", ");
        let toml = toml::Deserializer::parse(text).map_err(|error| {
            let line = 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count();
            anyhow::anyhow!("line {line} is not valid TOML: {}", one_line(&error))
        })?;
        serde_path_to_error::deserialize(toml)
            .map_err(|error| anyhow::anyhow!("{}: {}", error.path(), one_line(error.inner())))
    }
}

/// A misspelt setting would silently do nothing.
fn refuse_unknown_variables() -> Result<()> {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("RETOUCH_")) else { continue };
        let known = VARIABLES.iter().any(|(variable, _)| *variable == name) || ELSEWHERE.contains(&name);
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

    #[test]
    fn a_file_sets_what_the_variables_set_and_lanes_and_routes() {
        let raw = Raw::of_toml(
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
    fn what_a_file_may_not_hold_is_refused_in_one_line_that_names_its_place() {
        for (toml, says) in [
            ("foo = 1", "foo: unknown field `foo`, expected one of `database_url`"),
            ("[lanes.local]\nspeed = 1", "lanes.local.speed: unknown field `speed`"),
            ("[lanes.local]\nconcurrency = 'two'", "lanes.local.concurrency: invalid type: string \"two\""),
            ("[routes.blur]\nmodel = 'x'", "routes.blur: missing field `editor`"),
            (
                "[routes.blur]\neditor = 'local'\nprice = 0.14",
                "routes.blur.price: invalid type: floating point",
            ),
            ("on_ambiguous = 'what'", "on_ambiguous: unknown variant `what`"),
            ("lease_seconds = -1", "lease_seconds: invalid value: integer `-1`"),
            ("http = 'off'\na = [", "line 2 is not valid TOML: "),
            ("http = 'off'\nhttp = 'on'", "line 2 is not valid TOML: duplicate key"),
        ] {
            let error = Raw::of_toml(toml).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(says) && !error.contains('\n'), "{toml}: {error}");
        }
    }
}

//! The editors that exist here: the local one, and each one that has a key.

use std::sync::Arc;

use anyhow::{Context, Result};
use url::Url;

use super::Editors;
use crate::config::{EditorSettings, OpenaiSettings, Settings};
use crate::editor::local::LocalEditor;
use crate::editor::openai::{self, OpenAi};
use crate::editor::{Editor, http::ApiKey};
use crate::sources::guard::AllowHosts;

/// # Errors
/// One sentence that names the provider, and what of its settings cannot work.
pub(super) fn open(settings: &Settings) -> Result<Editors> {
    let offer = &settings.offer;
    // Destructured: a new provider does not compile until it is opened.
    let EditorSettings {
        dashscope: _,
        openai,
        #[cfg(feature = "double")]
        double,
    } = &offer.editors;
    let mut editors: Vec<Arc<dyn Editor>> = vec![Arc::new(LocalEditor)];
    if let Some(key) = &openai.key {
        editors.push(Arc::new(open_openai(key, openai).context("[editors.openai]")?));
    }
    #[cfg(feature = "double")]
    if let Some(folder) = double {
        editors.push(Arc::new(crate::editor::double::Double::new(folder.clone())));
    }
    Ok(editors.drain(..).map(|editor| (editor.kind(), editor)).collect())
}

fn open_openai(key: &ApiKey, settings: &OpenaiSettings) -> Result<OpenAi> {
    let OpenaiSettings { key: _, base_url, timeout, result_hosts } = settings;
    let base_url = base_or(base_url.as_ref(), openai::DEFAULT_BASE_URL)?;
    OpenAi::new(openai::Settings {
        key: key.clone(),
        result_hosts: hosts(result_hosts)?,
        base_url,
        timeout: timeout.unwrap_or(openai::DEFAULT_TIMEOUT),
    })
}

fn base_or(given: Option<&Url>, default: &str) -> Result<Url> {
    given.map_or_else(|| Ok(Url::parse(default)?), |given| Ok(given.clone()))
}

/// Those that the file adds to the adapter's own.
fn hosts(more: &[String]) -> Result<AllowHosts> {
    more.join(",").parse().context("result_hosts")
}

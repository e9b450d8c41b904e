//! The editors of this process: the local one, and each one that has a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use url::Url;

use super::Editors;
use crate::config::{DashscopeSettings, EditorSettings, Offer, OpenaiSettings, Settings};
use crate::editor::dashscope::{self, DashScope, Style};
use crate::editor::local::LocalEditor;
use crate::editor::openai::{self, OpenAi};
use crate::editor::{Editor, http::ApiKey};
use crate::sources::guard::AllowHosts;

/// Creates the editors, without network access.
///
/// # Errors
/// One sentence that names the provider and its faulty setting.
pub fn editors(settings: &Settings) -> Result<Editors> {
    // A derived public URL is an address on this machine, which no provider can reach.
    open_editors(&settings.offer, settings.public_url_given.then_some(&settings.public_url))
}

/// As [`editors`]; `public_url` is where a provider finds our blobs, if it can.
///
/// # Errors
/// As there.
pub(crate) fn open_editors(offer: &Offer, public_url: Option<&Url>) -> Result<Editors> {
    // Destructured: a new provider does not compile until it is opened.
    let EditorSettings {
        dashscope,
        openai,
        #[cfg(feature = "double")]
        double,
    } = &offer.editors;
    let mut editors: Vec<Arc<dyn Editor>> = vec![Arc::new(LocalEditor)];
    if let Some(key) = &dashscope.key {
        let opened = open_dashscope(key, dashscope, offer, public_url).context("[editors.dashscope]")?;
        editors.push(Arc::new(opened));
    }
    if let Some(key) = &openai.key {
        editors.push(Arc::new(open_openai(key, openai).context("[editors.openai]")?));
    }
    #[cfg(feature = "double")]
    if let Some(folder) = double {
        editors.push(Arc::new(crate::editor::double::Double::new(folder.clone())));
    }
    Ok(editors.drain(..).map(|editor| (editor.kind(), editor)).collect())
}

fn open_dashscope(
    key: &ApiKey,
    settings: &DashscopeSettings,
    offer: &Offer,
    public_url: Option<&Url>,
) -> Result<DashScope> {
    let DashscopeSettings {
        key: _,
        base_url,
        workspace,
        input,
        poll,
        poll_spacing,
        timeout,
        result_hosts,
        ask_list,
        list_settles,
        result_max,
    } = settings;
    let base_url = base_or(base_url.as_ref(), dashscope::DEFAULT_BASE_URL)?;
    let models = offer.models.of(dashscope::KIND);
    let styles: Result<BTreeMap<_, _>> =
        models.map(|model| Ok((model.id.clone(), model.style.parse::<Style>()?))).collect();
    let settings = dashscope::Settings {
        key: key.clone(),
        result_hosts: hosts(result_hosts)?,
        base_url,
        workspace: workspace.clone(),
        input: *input,
        poll: poll.unwrap_or(dashscope::DEFAULT_POLL),
        poll_spacing: poll_spacing.unwrap_or(dashscope::DEFAULT_POLL_SPACING),
        timeout: timeout.unwrap_or(dashscope::DEFAULT_TIMEOUT),
        public_url: public_url.cloned(),
        result_max: *result_max,
        ask_list: ask_list.then(|| list_settles.unwrap_or(dashscope::DEFAULT_LIST_SETTLES)),
    };
    DashScope::new(settings, styles?)
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

/// The hosts that the file adds to the adapter's own.
fn hosts(more: &[String]) -> Result<AllowHosts> {
    more.join(",").parse().context("result_hosts")
}

//! `retouch cache import`: an older system's results become entries of the cache.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use retouch_shared::task::Params;
use url::Url;

use super::super::say::say;
use super::super::{Ending, Failure};
use crate::app::App;
use crate::config::{Settings, database_at};
use crate::import::{self, Links, Manner, Progress, Report, Rules};
use crate::models::money;
use crate::store::older::{Layout, Named, OlderError, OlderSystem, ROLES, Shape};

mod print;

/// Take in the results of an older system, while both run
///
/// Reads either a table image_edit_cache (image_hash, edit_type, prompt, result_url, hit_count), or image_edit_tasks with a JSON list
/// of results (hash and url of each image) or with columns for each image (image_1_hash, image_1_result_url). Reads only, in small
/// steps. Run it again at any time: it takes only what is new, adds the hits that the older system has counted since, and never replaces
/// an entry that was made here or whose picture was copied.
///
/// The older rows do not know the model: each is taken for what a task with its edit type and prompt would get today, so that such a
/// task hits; --model and --params say otherwise. What each older edit type is taken for is said before
/// anything is taken in, and asked for: a wrong guess would answer with another operation's pictures. Links
/// are taken on trust; with --fetch their pictures are copied.
///
/// Example: retouch cache import --from mysql://reader:secret@db/old --fetch --yes
#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// The older system's database: mysql://user:password@host/database or sqlite:///file; never written to
    #[arg(long, value_name = "URL")]
    from: String,
    /// The table, where it is neither image_edit_cache nor image_edit_tasks
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Its shape, where that is not recognised: cache, tasks-json, tasks-columns
    #[arg(long, value_name = "SHAPE")]
    shape: Option<Shape>,
    /// A column that is not recognised; repeatable. Roles: image_hash, edit_type, prompt, result_url, hit_count, results
    #[arg(long = "column", value_name = "ROLE=NAME")]
    columns: Vec<String>,
    /// The member of a JSON element that has the hash of the picture, e.g. source.sha256
    #[arg(long, value_name = "NAME")]
    hash_field: Option<String>,
    /// The member of a JSON element that has the URL of the result
    #[arg(long, value_name = "NAME")]
    url_field: Option<String>,
    /// What an older edit type is called now; repeatable
    #[arg(long = "edit-type-map", value_name = "OLD=NEW")]
    edit_types: Vec<String>,
    /// The model that the older results were made with (default: the route's)
    #[arg(long)]
    model: Option<String>,
    /// The parameters that they were made with, over the route's defaults
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    /// What each had cost, e.g. 0.14 or "0.02 USD": what a hit saves (default: the route's price; its currency too)
    #[arg(long, value_name = "AMOUNT")]
    price: Option<String>,
    /// What relative result URLs are relative to
    #[arg(long, value_name = "URL")]
    base_url: Option<Url>,
    /// Copy the pictures into our blobs; a link that is dead is not taken in
    #[arg(long, conflicts_with = "check")]
    fetch: bool,
    /// Only test the links; takes nothing in
    #[arg(long)]
    check: bool,
    /// Links that are followed at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Do it without asking; without it, what would be done is said first, and asked for on a terminal
    #[arg(long, conflicts_with_all = ["check", "dry_run"])]
    yes: bool,
    /// Only say what would be done, and do not ask; follows no link unless with --check
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        let (location, named) = self.source().map_err(Failure::Usage)?;
        if location == settings.database {
            let why =
                anyhow!("--from is DATABASE_URL: name the older system's database, which is another one");
            return Err(Failure::Usage(why));
        }
        let offer = settings.offer.clone();
        let links = self.rules(&offer).map_err(Failure::Usage)?.links;
        let older = OlderSystem::connect(&location).await.map_err(|error| failure(error, &location))?;
        let layout = older.layout(&named).await.map_err(|error| failure(error, &location))?;
        let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
        // Testing links takes nothing in.
        let only_says = !self.yes && links != Links::Check;
        let manner =
            Manner { links, concurrency: usize::from(self.concurrency), dry_run: self.dry_run || only_says };
        if !json {
            print::preview(&layout, &location, manner, self.price.as_deref());
        }
        let done = self.in_turn(&app, (&older, &layout), manner, json).await;
        older.close().await;
        app.store.close().await;
        done
    }

    /// Says what would be done and, where a person agrees, does it; with --yes at once.
    async fn in_turn(
        &self,
        app: &Arc<App>,
        older: (&OlderSystem, &Layout),
        mut manner: Manner,
        json: bool,
    ) -> Result<Ending, Failure> {
        loop {
            let began = Instant::now();
            let rules = self.rules(&app.settings.offer).map_err(Failure::Usage)?;
            let bar = bar();
            let import = import::Import::new(app, older, rules, manner);
            let report = import.run(|progress| show(&bar, progress)).await;
            bar.finish_and_clear();
            let report = report.map_err(Failure::Unreachable)?;
            self.print(&report, older.1, manner, began.elapsed(), json);
            let may_ask = manner.dry_run && !self.dry_run && !json && is_terminal();
            if !may_ask || !agreed().await? {
                return Ok(ending(&report, manner));
            }
            manner.dry_run = false;
        }
    }

    fn print(&self, report: &Report, layout: &Layout, manner: Manner, took: Duration, json: bool) {
        if json {
            print::as_json(report, layout, manner, took);
        } else {
            print::as_text(report, manner, took);
        }
    }

    fn source(&self) -> Result<(crate::store::DatabaseLocation, Named)> {
        let location = database_at("--from", &self.from)?;
        let columns = pairs("--column", &self.columns)?;
        for role in columns.keys() {
            ensure!(ROLES.contains(&role.as_str()), "--column {role}: a role is one of {}", ROLES.join(", "));
        }
        let named = Named {
            table: self.table.clone(),
            shape: self.shape,
            columns,
            hash_field: self.hash_field.clone(),
            url_field: self.url_field.clone(),
        };
        Ok((location, named))
    }

    fn rules<'a>(&self, offer: &'a crate::config::Offer) -> Result<Rules<'a>> {
        let links = match (self.check, self.fetch) {
            (true, _) => Links::Check,
            (false, true) => Links::Copy,
            (false, false) => Links::Trust,
        };
        let params: Params = self.params.parse().context("--params must be a JSON object")?;
        let price = match &self.price {
            None => None,
            Some(text) => {
                let (amount, currency) = match text.trim().split_once(' ') {
                    Some((amount, currency)) => (amount, Some(currency.trim())),
                    None => (text.trim(), None),
                };
                let checked = money("--price", "the amount", amount, currency.unwrap_or("CNY"))?;
                Some((checked.micros, currency.map(str::to_owned)))
            }
        };
        if let Some(base) = &self.base_url {
            ensure!(!base.cannot_be_a_base(), "--base-url must be a URL that paths can be added to");
        }
        let edit_types = pairs("--edit-type-map", &self.edit_types)?;
        let mut rules = Rules::new(offer, links);
        rules.edit_types = edit_types;
        rules.model.clone_from(&self.model);
        rules.params = params;
        rules.price = price;
        rules.base_url.clone_from(&self.base_url);
        Ok(rules)
    }
}

fn pairs(option: &str, given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for pair in given {
        let (left, right) = pair.split_once('=').with_context(|| format!("{option} {pair}: must be A=B"))?;
        ensure!(!left.is_empty() && !right.is_empty(), "{option} {pair}: must be A=B");
        let first = pairs.insert(left.to_owned(), right.to_owned()).is_none();
        ensure!(first, "{option} {left}: given twice; give it once");
    }
    Ok(pairs)
}

fn failure(error: OlderError, location: &crate::store::DatabaseLocation) -> Failure {
    let is_usage = matches!(error, OlderError::NotUnderstood(_));
    let error = anyhow::Error::from(error).context(format!("--from ({location})"));
    if is_usage { Failure::Usage(error) } else { Failure::Unreachable(error) }
}

/// Exit 1: something is for the next run, or a test has found what is dead.
fn ending(report: &Report, manner: Manner) -> Ending {
    let again = report.skipped_for(&["unreachable"]);
    let dead = report.skipped_for(&["dead_link", "private_address", "too_large"]);
    let failed = again > 0 || (manner.links == Links::Check && dead > 0);
    if failed { Ending::SomeFailed } else { Ending::Done }
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Whether the person at the terminal wants it. No answer is no.
async fn agreed() -> Result<bool, Failure> {
    say("take them in? [y/N]");
    let answered = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_bytes| answer)
    });
    let answer = answered.await.map_err(Failure::unreachable)?.map_err(Failure::unreachable)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// On a terminal only, on standard error.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Rows(rows) => {
            bar.set_message("reading rows");
            bar.set_length(rows);
        }
        Progress::Entries(entries) => {
            bar.reset();
            bar.set_message("entries");
            bar.set_length(entries);
        }
        Progress::Judged(more) | Progress::Done(more) => bar.inc(more),
    }
}

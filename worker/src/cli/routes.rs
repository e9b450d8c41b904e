//! `retouch routes`: what each edit type does, costs and waits for, and who said so.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, Width};
use retouch_shared::event::decimal;
use retouch_shared::task::Params;
use serde::Serialize;

use super::say::say;
use super::{Ending, Failure};
use crate::config::{Lane, Offer, Settings};
use crate::models::{EDITORS, EditorKind, Model, Origin};
use crate::routes::{Route, RouteOrigins};
use crate::store::Money;

/// Of a column, in characters: what is longer is wrapped.
const WIDEST: u16 = 40;

/// Show the edit types: their editor, model, price, lane, prompt and parameters, and where each of these comes from
///
/// Nothing is asked of any server. `retouch.toml` can change all of it, under [routes.EDIT_TYPE], [models."ID"],
/// [lanes.NAME] and [editors.NAME].
///
/// Example: retouch routes remove_watermark
#[derive(Debug, clap::Args)]
pub(super) struct ShowRoutes {
    /// Only this one
    #[arg(value_name = "EDIT_TYPE")]
    edit_type: Option<String>,
}

/// All that is shown, in the shape of `--json`.
#[derive(Debug, Serialize)]
struct Shown {
    routes: Vec<ShownRoute>,
    models: Vec<ShownModel>,
    lanes: Vec<ShownLane>,
    editors: Vec<ShownEditor>,
}

#[derive(Debug, Serialize)]
struct ShownRoute {
    edit_type: String,
    description: Option<&'static str>,
    /// Why a task that asks for it now would be refused.
    needs: Option<&'static str>,
    editor: &'static str,
    model: String,
    style: String,
    price: String,
    currency: String,
    lane: String,
    prompt: Option<String>,
    params: Params,
    from: ShownOrigins,
}

#[derive(Debug, Serialize)]
struct ShownOrigins {
    editor: Origin,
    model: Origin,
    price: Origin,
    lane: Origin,
    prompt: Origin,
    params: Origin,
}

#[derive(Debug, Serialize)]
struct ShownModel {
    model: String,
    editor: &'static str,
    style: String,
    price: String,
    currency: String,
    price_from: Origin,
    lane: String,
    lane_from: Origin,
}

#[derive(Debug, Serialize)]
struct ShownLane {
    lane: String,
    editor: &'static str,
    concurrency: Option<u16>,
    max_in_flight: Option<u32>,
    max_in_flight_from: Option<Origin>,
    submit_interval_seconds: Option<f64>,
    submit_interval_from: Option<Origin>,
    one_unresolved: bool,
    daily_budget: Option<String>,
    currency: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownEditor {
    editor: &'static str,
    /// What must be set; none where it exists.
    needs: Option<&'static str>,
}

impl ShowRoutes {
    pub(super) fn run(self, json: bool) -> Result<Ending, Failure> {
        let offer = Settings::load_offer().map_err(Failure::Usage)?;
        let shown = Shown::of(&offer, self.edit_type.as_deref())?;
        if json {
            say(serde_json::to_string_pretty(&shown).map_err(Failure::unreachable)?);
        } else {
            shown.print(self.edit_type.is_some());
        }
        Ok(Ending::Done)
    }
}

impl Shown {
    /// Everything, or what belongs to one edit type.
    fn of(offer: &Offer, edit_type: Option<&str>) -> Result<Self, Failure> {
        if let Some(edit_type) = edit_type
            && let Err(error) = offer.resolve(edit_type, None)
            // That its key is missing is shown.
            && error.code != "no_editor"
        {
            return Err(Failure::Usage(anyhow::anyhow!(error.message)));
        }
        let asked = |route: &&Route| edit_type.is_none_or(|edit_type| edit_type == route.edit_type);
        let routes: Vec<&Route> = offer.routes.iter().filter(asked).collect();
        let used =
            |editor: &EditorKind| edit_type.is_none() || routes.iter().any(|route| route.editor == editor);
        Ok(Self {
            models: offer.models.iter().filter(|model| used(model.editor)).map(shown_model).collect(),
            lanes: offer.lanes.iter().filter(|lane| used(lane.editor)).map(shown_lane).collect(),
            editors: EDITORS
                .iter()
                .filter(|editor| used(editor))
                .map(|editor| ShownEditor { editor: editor.name, needs: offer.missing(editor) })
                .collect(),
            routes: routes.into_iter().map(|route| shown_route(route, offer)).collect(),
        })
    }

    fn print(&self, one: bool) {
        match (&self.routes[..], one) {
            ([route], true) => say(route.alone()),
            (routes, _) => {
                let names =
                    ["edit type", "editor", "model", "price", "lane", "prompt", "params", "not built-in"];
                say(table(names, routes.iter().map(ShownRoute::row)));
            }
        }
        say(
            "A prompt with {prompt} in it needs the task's there; another is used where the task has none.\n",
        );
        let models = self.models.iter().map(|model| {
            let ShownModel { model, editor, style, price, currency, price_from, lane, lane_from } = model;
            let from = [("price", *price_from), ("lane", *lane_from)];
            [
                model.clone(),
                (*editor).to_owned(),
                style.clone(),
                amount(price, currency),
                lane.clone(),
                named(&from),
            ]
        });
        say(table(["model", "editor", "style", "price", "lane", "not built-in"], models));
        say("A task may choose any model of its edit type's editor.\n");
        say(table(
            ["lane", "in one process", "in flight", "submits", "unanswered", "a day", "not built-in"],
            self.lanes.iter().map(ShownLane::row),
        ));
        say("");
        let editors = self.editors.iter().map(|editor| {
            let missing = |needs| format!("no key: set {needs}");
            let state = editor.needs.map_or_else(|| "exists".to_owned(), missing);
            [editor.editor.to_owned(), state]
        });
        say(table(["editor", ""], editors));
    }
}

impl ShownRoute {
    fn row(&self) -> [String; 8] {
        let no_key = if self.needs.is_some() { " (no key)" } else { "" };
        [
            self.edit_type.clone(),
            format!("{}{no_key}", self.editor),
            self.model.clone(),
            amount(&self.price, &self.currency),
            self.lane.clone(),
            self.prompt.clone().unwrap_or_default(),
            self.params_text(),
            self.from.summary(),
        ]
    }

    /// One value a line, with where it comes from.
    fn alone(&self) -> Table {
        let from = &self.from;
        let row =
            |name: &str, value: &str, from: Origin| [name.to_owned(), value.to_owned(), from.to_string()];
        let price = amount(&self.price, &self.currency);
        let rows = [
            row("does", self.description.unwrap_or("–"), Origin::BuiltIn),
            row("editor", self.editor, from.editor),
            row("model", &self.model, from.model),
            row("price", &price, from.price),
            row("lane", &self.lane, from.lane),
            row("prompt", self.prompt.as_deref().unwrap_or("–"), from.prompt),
            row("params", &self.params_text(), from.params),
        ];
        table([&self.edit_type, "", "from"], rows.into_iter())
    }

    fn params_text(&self) -> String {
        if self.params.is_empty() { String::new() } else { self.params.canonical() }
    }
}

impl ShownOrigins {
    fn summary(&self) -> String {
        let Self { editor, model, price, lane, prompt, params } = *self;
        named(&[
            ("editor", editor),
            ("model", model),
            ("price", price),
            ("lane", lane),
            ("prompt", prompt),
            ("params", params),
        ])
    }
}

impl ShownLane {
    fn row(&self) -> [String; 7] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let budget = self.daily_budget.as_ref().zip(self.currency.as_ref());
        let from = [
            ("in flight", self.max_in_flight_from.unwrap_or(Origin::BuiltIn)),
            ("submits", self.submit_interval_from.unwrap_or(Origin::BuiltIn)),
            ("in one process", if self.concurrency.is_some() { Origin::Lanes } else { Origin::BuiltIn }),
            ("unanswered", if self.one_unresolved { Origin::Editors } else { Origin::BuiltIn }),
            ("a day", if budget.is_some() { Origin::Lanes } else { Origin::BuiltIn }),
        ];
        [
            self.lane.clone(),
            or_none(self.concurrency.map(|most| most.to_string())),
            or_none(self.max_in_flight.map(|most| most.to_string())),
            or_none(self.submit_interval_seconds.map(|seconds| format!("one in {seconds} s"))),
            or_none(self.one_unresolved.then(|| "one, looked up".to_owned())),
            or_none(budget.map(|(budget, currency)| amount(budget, currency))),
            named(&from),
        ]
    }
}

fn shown_route(route: &Route, offer: &Offer) -> ShownRoute {
    let Route { edit_type, description, editor, model, style, lane, price, prompt, params, from } = route;
    let RouteOrigins { editor: editor_from, model: model_from, lane: lane_from, price: price_from, .. } =
        *from;
    ShownRoute {
        edit_type: edit_type.clone(),
        description: (!description.is_empty()).then_some(*description),
        needs: offer.missing(editor),
        editor: editor.name,
        model: model.clone(),
        style: style.clone(),
        price: decimal(price.micros),
        currency: price.currency.clone(),
        lane: lane.clone(),
        prompt: (!prompt.is_empty()).then(|| prompt.clone()),
        params: params.clone(),
        from: ShownOrigins {
            editor: editor_from,
            model: model_from,
            price: price_from,
            lane: lane_from,
            prompt: from.prompt,
            params: from.params,
        },
    }
}

fn shown_model(model: &Model) -> ShownModel {
    ShownModel {
        model: model.id.clone(),
        editor: model.editor.name,
        style: model.style.clone(),
        price: decimal(model.price.micros),
        currency: model.price.currency.clone(),
        price_from: model.price_from,
        lane: model.lane.clone(),
        lane_from: model.lane_from,
    }
}

fn shown_lane(lane: &Lane) -> ShownLane {
    let limits = &lane.limits;
    let Money { micros, currency } = match &limits.daily_budget {
        Some(budget) => budget.clone(),
        None => Money { micros: 0, currency: String::new() },
    };
    let budget = (micros > 0).then(|| decimal(micros));
    ShownLane {
        lane: lane.name.clone(),
        editor: lane.editor.name,
        concurrency: limits.concurrency,
        max_in_flight: limits.max_in_flight,
        max_in_flight_from: limits.max_in_flight.map(|_| lane.max_in_flight_from),
        submit_interval_seconds: limits.submit_interval.map(|interval| interval.as_secs_f64()),
        submit_interval_from: limits.submit_interval.map(|_| lane.submit_interval_from),
        one_unresolved: limits.one_unresolved,
        currency: budget.is_some().then_some(currency),
        daily_budget: budget,
    }
}

fn amount(price: &str, currency: &str) -> String {
    if price == "0" { "–".to_owned() } else { format!("{price} {currency}") }
}

/// What the file says, e.g. `price [routes]`; the rest is built in, or follows from the rest.
fn named(values: &[(&str, Origin)]) -> String {
    let section = |origin| match origin {
        Origin::BuiltIn | Origin::Derived => None,
        Origin::Models => Some("[models]"),
        Origin::Routes => Some("[routes]"),
        Origin::Lanes => Some("[lanes]"),
        Origin::Editors => Some("[editors]"),
    };
    let said = values.iter().filter_map(|(name, origin)| Some(format!("{name} {}", section(*origin)?)));
    said.collect::<Vec<_>>().join(", ")
}

fn table<const N: usize>(names: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    // Sixty rows with a line after each would be read by nobody.
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // Piped, it is as wide as it has to be.
    if let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size() {
        table.set_width(width);
    }
    table.set_header(names).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(WIDEST)));
    }
    table
}

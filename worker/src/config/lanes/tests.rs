use figment::Figment;
use figment::providers::{Format, Toml};

use super::*;
use crate::models::ModelOverride;
use crate::routes::RouteOverride;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    models: BTreeMap<String, ModelOverride>,
    lanes: BTreeMap<String, RawLane>,
    routes: BTreeMap<String, RouteOverride>,
}

fn decided(toml: &str) -> Result<Lanes> {
    let file: File = Figment::from(Toml::string(toml)).extract().unwrap();
    let models = Models::decide(&file.models).unwrap();
    let routes = Routes::decide(&file.routes, &models).unwrap();
    Lanes::decide(&file.lanes, &models, &routes, |model| model.id == "wan2.7-image")
}

const WANX: &str = "dashscope.wanx2.1-imageedit";

#[test]
fn a_lane_has_the_limits_that_are_known_of_its_model() {
    let limits = decided("").unwrap().limits(WANX);
    assert_eq!((limits.max_in_flight, limits.submit_interval), (Some(2), Some(Duration::from_millis(500))));
    assert_eq!((limits.concurrency, limits.daily_budget), (None, None));
    assert_eq!(decided("").unwrap().limits("local"), LaneLimits::default());
    assert_eq!(decided("").unwrap().limits("another worker's"), LaneLimits::default());
}

#[test]
fn a_file_sets_a_lanes_limits() {
    let toml = "[lanes.'dashscope.wanx2.1-imageedit']\nconcurrency = 4\nmax_in_flight = 8\nper_minute = 2.5\n\
                daily_budget = '99.50'\n[lanes.local]\nper_second = 5";
    let lanes = decided(toml).unwrap();
    assert_eq!(
        lanes.limits(WANX),
        LaneLimits {
            one_unresolved: false,
            concurrency: Some(4),
            max_in_flight: Some(8),
            submit_interval: Some(Duration::from_secs(24)),
            daily_budget: Some(Money { micros: 99_500_000, currency: "CNY".to_owned() }),
        }
    );
    assert_eq!(lanes.limits("local").submit_interval, Some(Duration::from_millis(200)));
    let wanx = lanes.iter().find(|lane| lane.name == WANX).unwrap();
    assert_eq!((wanx.max_in_flight_from, wanx.submit_interval_from), (Origin::Lanes, Origin::Lanes));
}

#[test]
fn a_fractional_rate_is_never_exceeded() {
    for (rate, millis) in
        [("per_second = 60", 17), ("per_second = 3", 334), ("per_minute = 7", 8572), ("per_second = 8", 125)]
    {
        let limits = decided(&format!("[lanes.local]\n{rate}")).unwrap().limits("local");
        assert_eq!(limits.submit_interval, Some(Duration::from_millis(millis)), "{rate}");
    }
}

#[test]
fn models_that_share_a_lane_share_the_narrowest_of_their_limits() {
    let toml = "[models.'wanx2.1-imageedit']\nlane = 'all'\n[models.'qwen-image-2.0-pro']\nlane = 'all'";
    let limits = decided(toml).unwrap().limits("all");
    assert_eq!((limits.max_in_flight, limits.submit_interval), (Some(2), Some(Duration::from_secs(30))));
}

#[test]
fn bad_lane_settings_are_refused_with_field_and_fix() {
    let two = "[models.a]\neditor = 'openai'\nprice = '1'\nlane = 'x'\n[models.b]\neditor = 'openai'\nprice = '1'\nlane = 'x'\n";
    for (toml, says) in [
        ("[lanes.local]\nconcurrency = 0", "[lanes.local]: concurrency must be 1 or more"),
        ("[lanes.local]\nmax_in_flight = 0", "[lanes.local]: max_in_flight must be 1 or more"),
        ("[lanes.local]\nper_second = 0", "[lanes.local]: per_second must be more than 0"),
        ("[lanes.local]\nper_minute = -2.0", "[lanes.local]: per_minute must be more than 0"),
        ("[lanes.local]\nper_minute = nan", "[lanes.local]: per_minute must be more than 0"),
        (
            "[lanes.local]\nper_second = 1e9",
            "[lanes.local]: per_second must be between one submit a day and 1000 a second",
        ),
        (
            "[lanes.local]\nper_minute = 1e-30",
            "[lanes.local]: per_minute must be between one submit a day and 1000 a second",
        ),
        (
            "[lanes.local]\nper_second = 1\nper_minute = 60",
            "[lanes.local]: per_second and per_minute say the same thing; give one of them",
        ),
        ("[lanes.local]\ndaily_budget = '1'", "[lanes.local]: daily_budget needs a price to count"),
        (
            "[lanes.'dashscope.qwen-image-2.0']\ndaily_budget = '0'",
            "[lanes.dashscope.qwen-image-2.0]: daily_budget must be more than 0",
        ),
        (
            "[lanes.'dashscope.qwen-image-2.0']\ndaily_budget = '-5'",
            "[lanes.dashscope.qwen-image-2.0]: daily_budget must be a decimal number",
        ),
        (
            "[lanes.wanx]\nmax_in_flight = 1",
            "[lanes.wanx]: no model has this lane; there are dashscope.qwen-image-2.0, ",
        ),
        (
            &format!("{two}currency = 'EUR'"),
            "the lane x has prices in USD and in EUR, which cannot be added up",
        ),
        (
            "[routes.edit]\nprice = '1'\ncurrency = 'USD'",
            "the lane dashscope.qwen-image-2.0 has prices in CNY and in USD",
        ),
        (
            "[models.a]\neditor = 'openai'\nprice = '1'\nlane = 'dashscope.qwen-image-2.0'",
            "[models.\"a\"]: the lane dashscope.qwen-image-2.0 is one of dashscope; a lane is one provider's",
        ),
    ] {
        let error = decided(toml).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(says) && !error.contains('\n'), "{toml}: {error}");
    }
}

#[test]
fn free_models_have_no_currency_to_conflict() {
    let toml = "[routes.blur]\nprice = '1.5'\ncurrency = 'EUR'\n[lanes.local]\ndaily_budget = '3'";
    let budget = decided(toml).unwrap().limits("local").daily_budget;
    assert_eq!(budget, Some(Money { micros: 3_000_000, currency: "EUR".to_owned() }));
}

#[test]
fn a_lane_with_a_task_list_has_one_unresolved_submit() {
    let lanes = decided("").unwrap();
    assert!(lanes.limits("dashscope.wan2.7-image").one_unresolved && !lanes.limits(WANX).one_unresolved);
    let shared = "[models.'wan2.7-image']\nlane = 'all'\n[models.'qwen-image-2.0']\nlane = 'all'";
    assert!(decided(shared).unwrap().limits("all").one_unresolved);
}

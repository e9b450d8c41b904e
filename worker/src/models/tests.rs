use super::*;

fn decided(toml: &str) -> Result<Models> {
    use figment::providers::{Format, Toml};
    let given = figment::Figment::from(Toml::string(toml)).extract::<BTreeMap<String, ModelOverride>>();
    Models::decide(&given.unwrap())
}

#[test]
fn every_built_in_model_has_a_price_and_a_lane() {
    let models = decided("").unwrap();
    let wanx = models.get("dashscope", "wanx2.1-imageedit").unwrap();
    assert_eq!((wanx.price.micros, wanx.price.currency.as_str()), (140_000, "CNY"));
    assert_eq!((wanx.lane.as_str(), wanx.lane_from), ("dashscope.wanx2.1-imageedit", Origin::Derived));
    for model in models.iter() {
        assert!(model.editor.styles.contains(&model.style.as_str()), "{}", model.id);
        assert!(!model.editor.paid || model.price.micros > 0, "{}", model.id);
    }
    assert_eq!(models.get("local", local::MODEL).unwrap().lane, "local");
}

#[test]
fn a_built_in_model_is_changed_without_saying_its_style_again() {
    let models = decided("'qwen-image-2.0' = { price = '0.26', currency = 'USD', lane = 'q' }").unwrap();
    let model = models.get("dashscope", "qwen-image-2.0").unwrap();
    assert_eq!((model.price.micros, model.price.currency.as_str()), (260_000, "USD"));
    assert_eq!((model.style.as_str(), model.lane.as_str()), ("messages", "q"));
    assert_eq!((model.price_from, model.lane_from), (Origin::Models, Origin::Models));
    assert_eq!(model.submits_per_minute, Some(120), "what is not said stays");
}

#[test]
fn the_same_id_at_another_editor_is_another_model() {
    let models = decided("'qwen-image-2.0' = { editor = 'openai', price = '0.03' }").unwrap();
    let gateways = models.get("openai", "qwen-image-2.0").unwrap();
    assert_eq!((gateways.price.currency.as_str(), gateways.lane.as_str()), ("USD", "openai.qwen-image-2.0"));
    assert_eq!(models.named("qwen-image-2.0").len(), 2);
}

#[test]
fn bad_model_settings_are_refused_with_field_and_fix() {
    for (toml, says) in [
        (
            "x = {}",
            "[models.\"x\"]: editor is missing: this model is not built in; give one of dashscope, openai",
        ),
        (
            "x = { editor = 'dashcope' }",
            "[models.\"x\"]: there is no editor \"dashcope\"; there are dashscope, local, openai",
        ),
        ("x = { editor = 'local' }", "[models.\"x\"]: the local editor has only the model local-2"),
        (
            "x = { editor = 'dashscope', price = '1' }",
            "[models.\"x\"]: style is missing; give one of image-edit, i2i, messages",
        ),
        (
            "x = { editor = 'dashscope', style = 'chat', price = '1' }",
            "[models.\"x\"]: style must be one of image-edit, i2i, messages",
        ),
        (
            "x = { editor = 'dashscope', style = 'i2i' }",
            "[models.\"x\"]: price is missing; give what a picture costs, e.g. \"0.14\" (\"0\" if nothing)",
        ),
        ("x = { editor = 'openai' }", "[models.\"x\"]: price is missing"),
        (
            "x = { editor = 'openai', price = '-1' }",
            "[models.\"x\"]: price must be a decimal number such as \"0.14\", not \"-1\"",
        ),
        (
            "x = { editor = 'openai', price = '1', currency = 'yuan' }",
            "[models.\"x\"]: currency must be three capital letters",
        ),
        (
            "x = { editor = 'openai', price = '1', lane = 'a b' }",
            "[models.\"x\"]: lane: a lane's name is 1-64 of [A-Za-z0-9._-]",
        ),
        (
            "'qwen-image-2.0' = { currency = 'USD' }",
            "[models.\"qwen-image-2.0\"]: price must stand beside currency",
        ),
        (
            "'local-2' = { lane = 'slow' }",
            "[models.\"local-2\"]: lane cannot be set: the local editor's lane is always local",
        ),
        ("'' = { editor = 'openai', price = '1' }", "[models.\"\"]: a model's id is 1 to 128 characters"),
    ] {
        let error = decided(toml).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(says) && !error.contains('\n'), "{toml}: {error}");
    }
}

#[test]
fn a_model_that_costs_nothing_says_so() {
    let models = decided("x = { editor = 'openai', price = '0' }").unwrap();
    assert_eq!(models.get("openai", "x").unwrap().price.micros, 0);
}

#[test]
fn a_price_is_read_without_rounding() {
    for (text, micros) in [("0.14", 140_000), ("1", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000)] {
        assert_eq!(money("x", "price", text, "CNY").unwrap().micros, micros, "{text}");
    }
    for text in ["", ".5", "-1", "1e3", "0.1234567", "1,5", "٣"] {
        assert!(money("x", "price", text, "CNY").is_err(), "{text}");
    }
}

#[test]
fn a_lane_is_named_after_its_model_without_accidental_sharing() {
    let openai = editor_kind("openai").unwrap();
    assert_eq!(lane_of(openai, "gpt-image-1.5"), "openai.gpt-image-1.5");
    let long = "m".repeat(100);
    let lanes =
        ["a/b", "a b", "a-b", "a:b", "模型", "模", &long, &format!("{long}m")].map(|id| lane_of(openai, id));
    for lane in &lanes {
        check_lane("x", lane).unwrap();
    }
    let distinct: std::collections::BTreeSet<_> = lanes.iter().collect();
    assert_eq!(distinct.len(), lanes.len(), "{lanes:?}");
    assert!(lanes[0].starts_with("openai.a-b-") && lanes[0].len() == "openai.a-b-".len() + 8, "{}", lanes[0]);
    assert_eq!(lanes[2], "openai.a-b");
    assert_eq!(lanes[6].len(), 64);
}

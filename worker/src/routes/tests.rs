use figment::Figment;
use figment::providers::{Format, Toml};
use retouch_shared::key::{Digest32, EditIdentity, EditKey};

use super::*;
use crate::editor::local;
use crate::models::ModelOverride;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    models: BTreeMap<String, ModelOverride>,
    routes: BTreeMap<String, RouteOverride>,
}

fn decided(toml: &str) -> Result<(Models, Routes)> {
    let file: File = Figment::from(Toml::string(toml)).extract().unwrap();
    let models = Models::decide(&file.models)?;
    let routes = Routes::decide(&file.routes, &models)?;
    Ok((models, routes))
}

fn route(toml: &str, edit_type: &str) -> Route {
    let (models, routes) = decided(toml).unwrap();
    routes.find(&models, edit_type, None).unwrap().unwrap()
}

fn key(route: &Route, given: &str) -> EditKey {
    let prompt = route.effective_prompt(given).unwrap();
    EditIdentity {
        image_hash: Digest32::of(b"x"),
        edit_type: &route.edit_type,
        prompt: &prompt,
        provider: route.editor.name,
        model: &route.model,
        params: &route.params,
        mask_hash: None,
        variant: None,
    }
    .key()
}

#[test]
fn built_in_routes_exist_with_and_without_a_key() {
    let (_, routes) = decided("").unwrap();
    let names: Vec<_> = routes.iter().map(|route| route.edit_type.as_str()).collect();
    for name in [
        "remove_watermark",
        "doodle",
        "control_cartoon_feature",
        "enhance",
        "remove",
        "expand",
        "edit",
        "blur",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    for route in routes.iter() {
        check_edit_type("x", &route.edit_type).unwrap();
        assert!(!route.description.is_empty(), "{}", route.edit_type);
    }
}

#[test]
fn a_local_operation_keeps_its_name() {
    for operation in local::operations() {
        assert_eq!(route("", operation.name).editor.name, "local");
        let taken = built_in::provider_edit_types().any(|(name, _)| name == operation.name);
        assert!(!taken, "{} is also a provider's", operation.name);
    }
}

#[test]
fn an_edit_type_without_a_template_needs_no_prompt() {
    for name in ["remove_watermark", "super_resolution", "colorization", "expand", "enhance"] {
        assert!(!route("", name).effective_prompt("").unwrap().is_empty(), "{name}");
        assert_eq!(route("", name).effective_prompt("Mine").unwrap(), "Mine", "{name}");
    }
    assert_eq!(
        route("", "enhance").params.canonical(),
        r#"{"function":"super_resolution","upscale_factor":2}"#
    );
    assert_eq!(route("", "blur").effective_prompt("").unwrap(), "");
}

#[test]
fn a_template_takes_the_prompt_and_refuses_a_missing_one() {
    let remove = route("", "remove");
    assert!(remove.effective_prompt("the bin {prompt}").unwrap().starts_with("Remove the bin {prompt} from"));
    for name in ["remove", "edit", "restyle", "doodle"] {
        let error = route("", name).effective_prompt("").unwrap_err();
        assert_eq!(error.code, "invalid_prompt");
        assert_eq!(error.message, format!("prompt: {name} needs one: say in words what is wanted"));
    }
    let long = "x".repeat(MAX_PROMPT_CHARS);
    assert_eq!(route("", "edit").effective_prompt(&long).unwrap(), long);
    let error = remove.effective_prompt(&long).unwrap_err();
    assert!(error.message.contains("with the route's own; at most 32000"), "{}", error.message);
}

#[test]
fn two_templates_make_two_edits_of_the_same_prompt() {
    let one = route("", "remove");
    let other = route("[routes.remove]\nprompt = 'Take {prompt} away.'", "remove");
    assert_ne!(key(&one, "the bin"), key(&other, "the bin"));
    // Normalised like a task's own.
    let spelt = route("[routes.remove]\nprompt = \" Take {prompt}\\r away.\\n\"", "remove");
    assert_eq!(spelt.effective_prompt("it").unwrap(), "Take it\n away.");
}

#[test]
fn a_prompt_equal_to_the_routes_default_is_the_same_edit() {
    let edit = route("", "remove_watermark");
    assert_eq!(key(&edit, ""), key(&edit, "Remove the watermark from the picture."));
}

#[test]
fn a_task_may_choose_any_model_of_the_editor() {
    let (models, routes) = decided("[routes.edit]\nprice = '9'\nparams = { prompt_extend = false }").unwrap();
    let find = |edit_type, model| routes.find(&models, edit_type, Some(model)).unwrap();
    let own = find("edit", "qwen-image-2.0").unwrap();
    assert_eq!((own.price.micros, own.from.price), (9_000_000, Origin::Routes));
    let pro = find("edit", "qwen-image-2.0-pro").unwrap();
    assert_eq!((pro.price.micros, pro.lane.as_str()), (500_000, "dashscope.qwen-image-2.0-pro"));
    assert_eq!(pro.params.canonical(), r#"{"prompt_extend":false}"#);
    // Parameters are specific to the model.
    assert!(find("enhance", "qwen-image-2.0").unwrap().params.is_empty());
    let error = find("edit", "local-2").unwrap_err();
    assert_eq!(error.code, "unknown_model");
    assert!(
        error.message.starts_with("model: edit knows only qwen-image-2.0, qwen-image-2.0-pro, "),
        "{}",
        error.message
    );
    let error = find("blur", "wanx2.1-imageedit").unwrap_err();
    assert_eq!(error.message, "model: blur knows only local-2, not \"wanx2.1-imageedit\"");
}

#[test]
fn a_file_changes_only_the_named_fields_of_a_route() {
    let route = route("[routes.expand]\nprice = '0.10'\nparams = { top_scale = 1.0, seed = 7 }", "expand");
    assert_eq!((route.model.as_str(), route.price.micros), ("wanx2.1-imageedit", 100_000));
    assert_eq!(
        route.params.canonical(),
        r#"{"bottom_scale":1.5,"left_scale":1.5,"right_scale":1.5,"seed":7,"top_scale":1.0}"#
    );
    let RouteOrigins { editor, model, price, params, prompt, lane } = route.from;
    assert_eq!([editor, model, prompt], [Origin::BuiltIn; 3]);
    assert_eq!([price, params, lane], [Origin::Routes, Origin::Routes, Origin::Derived]);
}

#[test]
fn a_model_determines_the_editor_and_another_editor_starts_afresh() {
    let toml = "[models.gpt]\neditor = 'openai'\nprice = '0.04'\n[routes.remove_watermark]\nmodel = 'gpt'\n\
                [routes.portrait]\nmodel = 'gpt'\nprompt = ''";
    let moved = route(toml, "remove_watermark");
    assert_eq!((moved.editor.name, moved.lane.as_str(), moved.prompt.as_str()), ("openai", "openai.gpt", ""));
    assert_eq!((moved.price.currency.as_str(), moved.from.editor), ("USD", Origin::Derived));
    assert_eq!(route(toml, "portrait").model, "gpt");
    // Same editor, another style: the prompt still fits, the parameters do not.
    let worded = route("[routes.enhance]\nmodel = 'qwen-image-2.0'", "enhance");
    assert!(worded.params.is_empty() && worded.prompt.starts_with("Raise"), "{worded:?}");
}

#[test]
fn bad_routes_are_refused_with_field_and_fix() {
    let long = format!("[routes.edit]\nprompt = '{}'", "x".repeat(MAX_PROMPT_CHARS + 1));
    for (toml, says) in [
        (
            "[routes.a]\neditor = 'dashcope'",
            "[routes.a]: there is no editor \"dashcope\"; there are dashscope, local, openai",
        ),
        ("[routes.a]\nprice = '1'", "[routes.a]: model is missing; give the model that does this edit type"),
        ("[routes.a]\neditor = 'dashscope'", "[routes.a]: model is missing; give one of qwen-image-2.0, "),
        ("[routes.a]\nmodel = 'x'", "[routes.a]: model \"x\" is not known; give one of "),
        (
            "[routes.a]\neditor = 'openai'\nmodel = 'x'",
            "[routes.a]: model \"x\" is not known to the editor openai",
        ),
        ("[routes.a]\neditor = 'local'", "[routes.a]: the local editor has no such operation"),
        ("[routes.edit]\nprice = '1,5'", "[routes.edit]: price must be a decimal number such as \"0.14\""),
        (
            "[routes.edit]\ncurrency = 'USD'",
            "[routes.edit]: price must stand beside currency: the model's is in CNY",
        ),
        ("[routes.edit]\ncurrency = 'yuan'", "[routes.edit]: currency must be three capital letters"),
        ("[routes.'a b']\nmodel = 'qwen-image-2.0'", "[routes.a b]: an edit type is 1-32 of [A-Za-z0-9._-]"),
        (&long, "[routes.edit]: prompt must be at most 32000 characters"),
        (
            "[models.'qwen-image-2.0']\neditor = 'openai'\nprice = '1'\n[routes.a]\nmodel = 'qwen-image-2.0'",
            "[routes.a]: editor is missing: dashscope and openai have a model \"qwen-image-2.0\"",
        ),
    ] {
        let error = decided(toml).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(says) && !error.contains('\n'), "{toml}: {error}");
    }
}

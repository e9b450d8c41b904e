//! `retouch routes` shows the model, price and lane of each edit type without a server; and the shown routes
//! take effect.

use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::program::Finished;
use serde_json::{Value, json};

const KEY: (&str, &str) = ("DASHSCOPE_API_KEY", "sk-hunter2");

/// `retouch routes` with these settings, which must succeed, show no key, and leave nothing behind.
async fn routes(laptop: &Laptop, arguments: &[&str], settings: &[(&str, &str)]) -> Finished {
    let program = laptop.retouch(&[&["routes"], arguments].concat());
    let program = settings.iter().fold(program, |program, (name, value)| program.env(name, value));
    let done = program.run().await;
    assert_eq!((done.stderr.as_str(), done.status.code()), ("", Some(0)));
    assert!(!done.stdout.contains("hunter2"), "{}", done.stdout);
    assert_eq!(laptop.list(".local"), [] as [&str; 0], "nothing was made");
    done
}

async fn shown(laptop: &Laptop, arguments: &[&str], settings: &[(&str, &str)]) -> Value {
    let done = routes(laptop, &[arguments, &["--json"]].concat(), settings).await;
    serde_json::from_str(&done.stdout).unwrap()
}

fn named<'a>(shown: &'a Value, list: &str, field: &str, name: &str) -> &'a Value {
    let found = shown[list].as_array().unwrap().iter().find(|entry| entry[field] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}: {shown:#}"))
}

#[tokio::test]
async fn routes_are_listed_without_a_server_or_keys() {
    let laptop = Laptop::new();
    // These servers are never contacted.
    let nowhere = [("DATABASE_URL", "mysql://u:hunter2@127.0.0.1:1/retouch")];
    let without = shown(&laptop, &[], &nowhere).await;
    let route = named(&without, "routes", "edit_type", "remove_watermark");
    assert_eq!(route["needs"], "DASHSCOPE_API_KEY");
    assert_eq!(
        [&route["editor"], &route["model"], &route["price"], &route["currency"], &route["lane"]],
        ["dashscope", "wanx2.1-imageedit", "0.14", "CNY", "dashscope.wanx2.1-imageedit"]
    );
    assert_eq!(route["from"]["price"], "built-in");
    assert_eq!(route["from"]["lane"], "derived");
    assert_eq!(named(&without, "routes", "edit_type", "blur")["needs"], Value::Null);
    let lane = named(&without, "lanes", "lane", "dashscope.wanx2.1-imageedit");
    assert_eq!((&lane["max_in_flight"], &lane["submit_interval_seconds"]), (&json!(2), &json!(0.5)));
    assert_eq!(named(&without, "editors", "editor", "dashscope")["needs"], "DASHSCOPE_API_KEY");

    assert_eq!(lane["one_unresolved"], false);

    let with = shown(&laptop, &["remove_watermark"], &[KEY]).await;
    assert_eq!(with["routes"].as_array().unwrap().len(), 1);
    assert_eq!(with["routes"][0]["needs"], Value::Null);
    assert_eq!(with["editors"], json!([{ "editor": "dashscope", "needs": null }]));
}

#[tokio::test]
async fn a_file_changes_routes_and_is_named_as_the_source() {
    let laptop = Laptop::new();
    laptop.write(
        "retouch.toml",
        "[models.'wanx2.1-imageedit']\nprice = '0.11'\n\
         [models.gpt]\neditor = 'openai'\nprice = '0.05'\n\
         [routes.remove]\nprompt = 'Take away {prompt}'\n\
         [routes.touch_up]\nmodel = 'gpt'\nparams = { quality = 'medium' }\n\
         [lanes.'openai.gpt']\nmax_in_flight = 3\nper_minute = 30\ndaily_budget = '20'\n\
         [editors.openai]\ntimeout_seconds = 90.5\n[editors.dashscope]\nask_list = true\n",
    );
    let shown = shown(&laptop, &[], &[]).await;
    let remove = named(&shown, "routes", "edit_type", "remove");
    assert_eq!(
        (&remove["price"], &remove["from"]["price"]),
        (&json!("0.11"), &json!("retouch.toml [models]"))
    );
    assert_eq!(
        (&remove["prompt"], &remove["from"]["prompt"]),
        (&json!("Take away {prompt}"), &json!("retouch.toml [routes]"))
    );
    let touch_up = named(&shown, "routes", "edit_type", "touch_up");
    assert_eq!((&touch_up["editor"], &touch_up["from"]["editor"]), (&json!("openai"), &json!("derived")));
    assert_eq!(
        (&touch_up["params"], &touch_up["currency"]),
        (&json!({ "quality": "medium" }), &json!("USD"))
    );
    let lane = named(&shown, "lanes", "lane", "openai.gpt");
    assert_eq!((&lane["submit_interval_seconds"], &lane["daily_budget"]), (&json!(2.0), &json!("20")));
    assert_eq!(
        (&lane["currency"], &lane["max_in_flight_from"]),
        (&json!("USD"), &json!("retouch.toml [lanes]"))
    );

    for (lane, looked_up) in
        [("dashscope.wanx2.1-imageedit", true), ("dashscope.qwen-image-2.0", false), ("openai.gpt", false)]
    {
        assert_eq!(named(&shown, "lanes", "lane", lane)["one_unresolved"], looked_up, "{lane}");
    }

    let table = routes(&laptop, &[], &[]).await.stdout;
    let line = |name: &str| table.lines().find(|line| line.starts_with(&format!(" {name} "))).unwrap();
    assert!(
        line("remove").contains("0.11 CNY") && line("remove").contains("price [models], prompt [routes]"),
        "{table}"
    );
    assert!(line("touch_up").contains("openai (no key)"), "{table}");
    assert!(table.contains("no key: set OPENAI_API_KEY"), "{table}");
    let one = routes(&laptop, &["remove"], &[KEY]).await.stdout;
    assert!(one.contains("Remove what the prompt names") && one.contains("retouch.toml [routes]"), "{one}");
    assert!(!one.contains("openai"), "{one}");
}

#[tokio::test]
async fn unknown_and_unavailable_edit_types_are_answered_with_the_fix() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    for (arguments, says) in [
        (
            &["routes", "paint"][..],
            "retouch: edit_type: \"paint\" is not known; known are autocontrast, blur, ",
        ),
        (
            &["edit", "cat.png", "-t", "remove_watermark"],
            "retouch: edit_type: remove_watermark needs DASHSCOPE_API_KEY, which is not set here",
        ),
    ] {
        let done = laptop.retouch(arguments).run().await;
        assert!(done.stderr.starts_with(says), "{}", done.stderr);
        assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(2)));
    }
    let done = laptop.retouch(&["routes", "paint"]).run().await;
    assert!(
        done.stderr.contains("; with DASHSCOPE_API_KEY also colorization, control_cartoon_feature, "),
        "{}",
        done.stderr
    );
    let done = laptop.retouch(&["edit", "cat.png", "-t", "remove"]).env(KEY.0, KEY.1).run().await;
    assert_eq!(done.stderr, "retouch: prompt: remove needs one: say in words what is wanted\n");
    assert_eq!(laptop.calls(), [] as [Value; 0]);
}

#[tokio::test]
async fn a_routes_prompt_makes_the_edit_and_another_one_makes_another() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let file = |prompt: &str| laptop.write("retouch.toml", format!("[routes.double]\nprompt = '{prompt}'"));
    let edit = ["edit", "cat.png", "-t", "double"];
    let with = |prompt: &'static str| [&edit[..], &["-p", prompt]].concat();
    file("Remove {prompt}.");
    assert_eq!(counts(&laptop.report(&with("the bin")).await), [0, 0, 1, 0]);
    assert_eq!(counts(&laptop.report(&with("the bin")).await), [1, 0, 0, 0]);
    file("Take {prompt} away.");
    assert_eq!(counts(&laptop.report(&with("the bin")).await), [0, 0, 1, 0]);
    // The words that arrive are the edit, however they were put together.
    laptop.write("retouch.toml", "");
    assert_eq!(counts(&laptop.report(&with("Remove the bin.")).await), [1, 0, 0, 0]);
    file("Remove the bin.");
    assert_eq!(counts(&laptop.report(&edit).await), [1, 0, 0, 0], "a default, where the task has none");
}

#[tokio::test]
async fn an_unusable_key_is_refused_first_and_never_shown() {
    for (toml, settings, says) in [
        (
            "",
            &[KEY, ("DASHSCOPE_API_KEY_FILE", "/run/key")][..],
            "DASHSCOPE_API_KEY and DASHSCOPE_API_KEY_FILE are both set",
        ),
        ("", &[("OPENAI_API_KEY_FILE", "none")], "OPENAI_API_KEY_FILE: none: No such file"),
        (
            "[editors.dashscope]\napi_key = 'sk-hunter2'",
            &[],
            "retouch.toml: editors.dashscope.api_key: a key must not stand in this file",
        ),
        (
            "",
            &[("DASHSCOPE_BASE_URL", "https://u:hunter2@x.example")],
            "DASHSCOPE_BASE_URL must not hold a user or a password",
        ),
        ("[editors.openai]\nworkspace = 'x'", &[], "retouch.toml: editors.openai.workspace: unknown field"),
    ] {
        let laptop = Laptop::new();
        laptop.write("retouch.toml", toml);
        let program = laptop.retouch(&["routes"]);
        let done =
            settings.iter().fold(program, |program, (name, value)| program.env(name, value)).run().await;
        assert!(done.stderr.starts_with(&format!("retouch: {says}")), "{}", done.stderr);
        assert!(!done.stderr.contains("hunter2") && done.stderr.lines().count() == 1, "{}", done.stderr);
        assert_eq!((done.stdout.as_str(), done.status.code()), ("", Some(2)));
    }
}

#[tokio::test]
async fn the_files_that_the_docs_show_work_as_they_stand() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for page in ["README.md", "docs/routes.md", "docs/providers.md", "docs/providers-openai.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let blocks: Vec<_> = blocks.collect();
        assert!(!blocks.is_empty(), "{page}");
        for block in blocks {
            let laptop = Laptop::new();
            laptop.write("retouch.toml", block);
            routes(&laptop, &[], &[KEY]).await;
        }
    }
}

#[tokio::test]
async fn every_editor_with_a_key_is_opened_with_its_settings() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let edit = laptop.retouch(&["edit", "cat.png", "-t", "invert"]).env(KEY.0, KEY.1);
    let done =
        edit.env("OPENAI_API_KEY", "sk-hunter2").env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/").run().await;
    assert_eq!((done.stderr.as_str(), done.status.code()), ("", Some(0)));
    laptop.write("retouch.toml", "[editors.dashscope]\ninput = 'url'");
    assert!(
        laptop.retouch(&["edit", "cat.png", "-t", "invert"]).run().await.status.success(),
        "no key: tolerated"
    );
    let done = laptop.retouch(&["edit", "cat.png", "-t", "invert"]).env(KEY.0, KEY.1).run().await;
    assert!(
        done.stderr.contains("needs RETOUCH_PUBLIC_URL") && !done.stderr.contains("hunter2"),
        "{}",
        done.stderr
    );
    assert_eq!(done.status.code(), Some(2));
}

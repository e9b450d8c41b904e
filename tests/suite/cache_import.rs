//! `retouch cache import`: results of an older system are not paid for again, while both systems run.

use retouch_tests::older::{self, CACHE, Older, TASKS_COLUMNS, TASKS_JSON};
use retouch_tests::picture_server::Answer;
use retouch_tests::pictures;
use retouch_tests::program::{self, Finished, Program};
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, task};
use serde_json::{Value, json};

mod full;
mod merged;

on_both! {
    rows_of_an_older_cache_are_hits_of_a_running_worker;
    only_new_rows_are_imported_and_hits_grow;
    skipped_rows_are_reported_with_their_reason;
    fetch_copies_the_pictures_and_leaves_dead_links_out;
}

/// Runs an import and returns its report and its exit code.
async fn import(site: &Site, older: &Older, arguments: &[&str]) -> (i32, Value) {
    let done = run(site, older, arguments).await;
    let report = serde_json::from_str(&done.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    (done.status.code().unwrap(), report)
}

async fn run(site: &Site, older: &Older, arguments: &[&str]) -> Finished {
    let only_says = ["--yes", "--check", "--dry-run", "--table"].iter().any(|word| arguments.contains(word));
    let yes: &[&str] = if only_says { &[] } else { &["--yes"] };
    let words = [&["cache", "import", "--json", "--from", older.url()], arguments, yes].concat();
    site.program(&words).run().await
}

/// As a person runs it, in a terminal.
async fn at_a_terminal(site: &Site, older: &Older, answer: &str) -> Finished {
    let line = format!(
        r#"echo {answer} | script -qec 'stty cols 200; "$RETOUCH" cache import --from {}' /dev/null"#,
        older.url()
    );
    let mut program = Program::other("/bin/sh", &["-c", &line]).env("RETOUCH", program::binary());
    for (name, value) in [
        ("DATABASE_URL", site.env.mysql_url()),
        ("AMQP_URL", site.env.amqp_url().to_owned()),
        ("RETOUCH_NAMESPACE", site.env.namespace().to_owned()),
        ("RETOUCH_BLOBS", site.env.blobs_url()),
        ("RETOUCH_DOUBLE", site.double().display().to_string()),
        ("TERM", "xterm".to_owned()),
    ] {
        program = program.env(name, value);
    }
    program.run().await
}

#[tokio::test]
async fn an_import_shows_its_mapping_and_asks_first() {
    let site = Site::on_servers().await;
    let older = Older::on_mariadb(CACHE).await;
    let row = |n: u64, edit_type: &str, prompt: &str| {
        vec![json!(older::hash(n)), json!(edit_type), json!(prompt), json!(older::link(n)), json!(0)]
    };
    let rows =
        [row(1, "vieux", "one"), row(2, "vieux", "two"), row(3, "vieux", "three"), row(4, "lost", "x")];
    older.insert("image_edit_cache", "image_hash, edit_type, prompt, result_url, hit_count", &rows).await;
    let words = ["cache", "import", "--json", "--from", older.url(), "--edit-type-map", "vieux=remove"];
    let done = site.program(&words).env("DASHSCOPE_API_KEY", "sk-test").run().await;
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
    assert_eq!((&report["dry_run"], &report["new"]), (&json!(true), &json!(3)), "{report}");
    let taken = &report["edit_types"]["vieux"];
    assert_eq!((&taken["results"], &taken["route"]["edit_type"]), (&json!(3), &json!("remove")), "{report}");
    assert!(taken["route"]["model"].is_string() && taken["route"]["params"].is_object(), "{report}");
    let examples = taken["examples"].as_array().unwrap();
    assert_eq!((examples.len(), &examples[0]["given"]), (2, &json!("one")));
    let keyed = examples[0]["keyed"].as_str().unwrap();
    assert!(keyed.contains("one") && keyed != "one", "the route's own text is around it: {keyed}");
    assert_eq!(report["edit_types"]["lost"]["refused"]["unknown_edit_type"]["count"], 1, "{report}");
    let cached = "SELECT COUNT(*) FROM image_edit_cache";
    assert_eq!(site.number(cached).await, 0, "it acted without being told to");

    older.execute("UPDATE image_edit_cache SET edit_type = 'double' WHERE edit_type = 'vieux'").await;
    let no = at_a_terminal(&site, &older, "n").await;
    assert!(no.stdout.contains("double → double: double, model double-1"), "{}", no.stdout);
    assert!(no.stdout.contains("1 refused: unknown_edit_type"), "{}", no.stdout);
    assert!(no.stdout.contains("take them in? [y/N]"), "{}", no.stdout);
    assert_eq!(site.number(cached).await, 0, "the answer was no");
    let yes = at_a_terminal(&site, &older, "y").await;
    assert!(yes.stdout.contains("3 new"), "{}", yes.stdout);
    assert_eq!(site.number(cached).await, 3);
}

/// A task of these pictures with the prompt of one.
fn asks(id: &str, prompt: &str, pictures: &[u64]) -> Value {
    let images: Vec<_> = pictures.iter().map(|n| data(&older::picture(*n))).collect();
    let mut task = task(id, json!({}), &images);
    task["prompt"] = json!(prompt);
    task
}

async fn rows_of_an_older_cache_are_hits_of_a_running_worker(site: Site) {
    let older = Older::on_mariadb(CACHE).await;
    older.cache(0..20).await;
    let (code, foretold) = import(&site, &older, &["--dry-run"]).await;
    assert_eq!((code, &foretold["new"], &foretold["dry_run"]), (0, &json!(20), &json!(true)));
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    let [_worker] = site.workers().await;
    let (code, report) = import(&site, &older, &[]).await;
    assert_eq!((code, &report["new"], &report["hits_added"]), (0, &json!(20), &json!(40)));
    assert_eq!(report["shape"], "cache");
    assert_eq!(report["columns"]["result_url"], "result_url");
    assert_eq!(report["ignored"], json!(["created_at"]));
    for n in 0..20 {
        let id = format!("t{n}");
        site.publish(&asks(&id, &older::prompt(n), &[n])).await;
        let ended = site.ended(&id).await;
        assert_eq!((ended.status.as_str(), ended.counts), ("completed", [1, 0, 0, 0]), "{n}");
        assert_eq!(ended.images[0]["result_url"], json!(older::link(n)));
        assert_eq!(ended.images[0].get("width"), None);
    }
    assert_eq!(site.calls().len(), 0);
    // Another prompt is another edit, and paid for.
    site.publish(&asks("other", "another prompt", &[0])).await;
    assert_eq!(site.ended("other").await.counts, [0, 0, 1, 0]);
    site.nothing_left().await;
}

async fn only_new_rows_are_imported_and_hits_grow(site: Site) {
    let older = Older::on_mariadb(CACHE).await;
    older.cache(0..10).await;
    import(&site, &older, &[]).await;
    let (_, again) = import(&site, &older, &[]).await;
    assert_eq!((&again["new"], &again["same"], &again["hits_added"]), (&json!(0), &json!(10), &json!(0)));
    older.cache(10..13).await;
    older.execute("UPDATE image_edit_cache SET hit_count = hit_count + 2 WHERE id <= 3").await;
    let (_, third) = import(&site, &older, &[]).await;
    let counts = ["new", "counted", "same", "hits_added"].map(|count| third[count].as_u64().unwrap());
    // Twice three of the old ones; 0, 1 and 2 of the new ones.
    assert_eq!(counts, [3, 3, 7, 9]);
    let sums = "SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache";
    assert_eq!(site.number(sums).await, older.number(sums).await);
}

async fn skipped_rows_are_reported_with_their_reason(site: Site) {
    let older = Older::in_a_file(
        "CREATE TABLE image_edit_cache (id INTEGER PRIMARY KEY, image_hash, edit_type, prompt, result_url, hit_count)",
    )
    .await;
    let good = older::hash(1);
    let row = |hash: &str, edit_type: &str, prompt: &str, url: Value| {
        vec![json!(hash), json!(edit_type), json!(prompt), url, json!(1)]
    };
    let link = |n: u64| json!(older::link(n));
    let rows = [
        row(&good, "double", "one", link(1)),
        row(&format!("SHA256:{good}").to_lowercase(), "double", " one ", link(2)),
        row("", "double", "two", link(3)),
        row("d41d8cd98f00b204e9800998ecf8427e", "double", "two", link(4)),
        row(&good, "double", "three", Value::Null),
        row(&good, "double", "four", json!("/results/4.png")),
        row(&good, "double", "five", json!("ftp://old.example/5.png")),
        row(&good, "double", "six", json!("https://x.oss.example/6.png?Expires=1&Signature=x")),
        row(&good, "paint_it_black", "seven", link(7)),
        row(&good, "double", &"x".repeat(40_000), link(8)),
        row(&good, "double", "Une autre", link(1)),
        row(&good, "vieux", "neuf", link(9)),
    ];
    older.insert("image_edit_cache", "image_hash, edit_type, prompt, result_url, hit_count", &rows).await;
    let (code, report) = import(&site, &older, &["--edit-type-map", "vieux=double"]).await;
    assert_eq!((code, &report["new"], &report["images"]), (0, &json!(2), &json!(12)), "{report}");
    let skipped = report["skipped"].as_object().unwrap();
    let reasons: Vec<_> =
        skipped.iter().map(|(reason, skipped)| (reason.as_str(), skipped["count"].clone())).collect();
    let once = [
        "bad_hash",
        "bad_prompt",
        "bad_url",
        "no_hash",
        "no_url",
        "relative_url",
        "same_edit",
        "shared_link",
        "temporary_link",
        "unknown_edit_type",
    ];
    assert_eq!(reasons, once.map(|reason| (reason, json!(1))), "{report}");
    let example = |reason: &str| skipped[reason]["examples"][0].as_str().unwrap();
    assert!(example("bad_hash").contains("row 4:") && example("bad_hash").contains("an MD5?"));
    assert!(example("unknown_edit_type").contains("paint_it_black"));
    // The two rows of one edit are one entry with the hits of both, and the link of the later.
    let sql = "SELECT result_url FROM image_edit_cache WHERE hit_count = 2";
    assert_eq!(site.texts(sql).await, [older::link(2)]);
    let done = run(&site, &older, &["--table", "nowhere"]).await;
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("there are image_edit_cache"), "{}", done.stderr);
}

async fn fetch_copies_the_pictures_and_leaves_dead_links_out(site: Site) {
    let older = Older::on_mariadb(CACHE).await;
    let alive = site.pictures.picture(7);
    let page = site.pictures.answer("/page.png", Answer::Bytes("image/png", "<html>".into()));
    let [dead, soon] = ["/dead.png", "/soon.png"].map(|path| site.pictures.url(path));
    let links = [&alive, &page, &dead, &soon];
    let rows: Vec<_> = (0..)
        .zip(links)
        .map(|(n, link)| vec![json!(older::hash(n)), json!("double"), json!("p"), json!(link), json!(1)])
        .collect();
    older.insert("image_edit_cache", "image_hash, edit_type, prompt, result_url, hit_count", &rows).await;
    let (code, checked) = import(&site, &older, &["--check"]).await;
    assert_eq!(
        (code, &checked["alive"], &checked["skipped"]["dead_link"]["count"]),
        (1, &json!(2), &json!(2))
    );
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    // An earlier import took one of the dead links on trust.
    let (_, trusted) = import(&site, &older, &[]).await;
    assert_eq!(trusted["new"], 4);
    site.pictures.answer("/soon.png", Answer::Status(503));
    let (code, report) = import(&site, &older, &["--fetch"]).await;
    let counts = ["new", "upgraded", "removed"].map(|count| report[count].as_u64().unwrap());
    assert_eq!((code, counts), (1, [0, 1, 2]), "{report}");
    let skipped: Vec<_> = report["skipped"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(skipped, ["dead_link", "not_a_picture", "unreachable"]);
    // Once its host is there again, the same command does what was left.
    site.pictures.png("/soon.png", pictures::picture(8));
    let (code, report) = import(&site, &older, &["--fetch"]).await;
    assert_eq!((code, &report["upgraded"], &report["same"]), (0, &json!(1), &json!(1)), "{report}");
    let [_worker] = site.workers().await;
    site.publish(&asks("t", "p", &[0, 3])).await;
    let ended = site.ended("t").await;
    assert_eq!(ended.counts, [2, 0, 0, 0]);
    for (image, seed) in ended.images.iter().zip([7, 8]) {
        assert_eq!(site.result(image), pictures::picture(seed));
        assert_eq!((&image["width"], &image["height"]), (&json!(64), &json!(48)));
    }
    site.nothing_left().await;
}

#[tokio::test]
async fn tasks_with_columns_for_each_image_and_a_text_key_are_read() {
    let site = Site::in_one_file().await;
    let older = Older::on_mariadb(TASKS_COLUMNS).await;
    // More than one batch of rows, in the order of a key that is no number.
    let row = |n: u64| {
        let image =
            |n: u64| [json!("https://source.example/x.png"), json!(older::hash(n)), json!(older::link(n))];
        let none = [Value::Null, Value::Null, Value::Null];
        let task = [json!(format!("Task-{}", n * 7919 % 1201)), json!("double"), json!(older::TASK_PROMPT)];
        [&task[..], &image(n), &image(n + 1), &none].concat()
    };
    let rows: Vec<_> = (0..1201).map(row).collect();
    let columns = "task_id, edit_type, prompt, image_1_url, image_1_hash, image_1_result_url, image_2_url, image_2_hash, \
                   image_2_result_url, image_3_url, image_3_hash, image_3_result_url";
    older.insert("image_edit_tasks", columns, &rows).await;
    let (_, report) = import(&site, &older, &[]).await;
    let counts = ["rows", "images", "new", "hits_added"].map(|count| report[count].as_u64().unwrap());
    assert_eq!((report["shape"].as_str(), counts), (Some("tasks-columns"), [1201, 2402, 1202, 2402]));
    assert_eq!(report["columns"]["image 2"], "image_2_hash, image_2_result_url");
    let (_, again) = import(&site, &older, &[]).await;
    assert_eq!((&again["new"], &again["same"]), (&json!(0), &json!(1202)));
}

#[tokio::test]
async fn model_params_and_price_say_what_the_older_rows_were_made_with() {
    let site = Site::in_one_file().await;
    let older = Older::on_mariadb(TASKS_JSON).await;
    older.tasks(0..1).await;
    let made = ["--model", "double-2", "--params", r#"{"seed":7}"#, "--price", "0.05 USD"];
    let (_, report) = import(&site, &older, &made).await;
    assert_eq!((report["shape"].as_str(), &report["new"]), (Some("tasks-json"), &json!(1)));
    assert_eq!(site.texts("SELECT CONCAT(price_micros, currency) FROM image_edit_cache").await, ["50000USD"]);
    let [_worker] = site.workers().await;
    let mut task = asks("t", older::TASK_PROMPT, &[0]);
    (task["model"], task["params"]) = (json!("double-2"), json!({"seed": 7}));
    site.publish(&task).await;
    assert_eq!(site.ended("t").await.counts, [1, 0, 0, 0]);
    site.nothing_left().await;
}

#[tokio::test]
async fn a_database_of_retouch_is_no_older_system() {
    let site = Site::on_servers().await;
    let own = site.env.mysql_url();
    let same = site.program(&["cache", "import", "--from", &own]).run().await;
    assert_eq!(same.status.code(), Some(2), "{}", same.stderr);
    assert!(same.stderr.contains("--from is DATABASE_URL"), "{}", same.stderr);
    let other = Site::on_servers().await;
    let other = site.program(&["cache", "import", "--from", &other.env.mysql_url()]).run().await;
    assert_eq!(other.status.code(), Some(2), "{}", other.stderr);
    assert!(other.stderr.contains("is Retouch's own"), "{}", other.stderr);
    let nowhere = site.program(&["cache", "import", "--from", "mysql://root@127.0.0.1:1/old"]).run().await;
    assert_eq!(nowhere.status.code(), Some(3), "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("--from (127.0.0.1:1/old)"), "{}", nowhere.stderr);
}

#[tokio::test]
async fn an_imported_link_is_downloaded_or_its_failure_reported() {
    let site = Site::in_one_file().await;
    let older = Older::on_mariadb(CACHE).await;
    let links = [site.pictures.picture(7), site.pictures.url("/gone.png")];
    let row = |(n, link): (u64, &String)| {
        vec![json!(older::hash(n)), json!("double"), json!("p"), json!(link), json!(0)]
    };
    let rows: Vec<_> = (0..).zip(&links).map(row).collect();
    older.insert("image_edit_cache", "image_hash, edit_type, prompt, result_url, hit_count", &rows).await;
    import(&site, &older, &[]).await;
    let edit = site
        .program(&["edit", "0.png", "1.png", "--type", "double", "--prompt", "p", "--out", "out", "--json"]);
    let folder = site.env.folder().join("home");
    std::fs::create_dir(&folder).unwrap();
    for n in 0..2 {
        std::fs::write(folder.join(format!("{n}.png")), older::picture(n)).unwrap();
    }
    let done = edit.within(&folder).run().await;
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
    assert_eq!((done.status.code(), &report["hit"], &report["failed"]), (Some(1), &json!(1), &json!(1)));
    assert_eq!(std::fs::read(folder.join("out/0-double.png")).unwrap(), pictures::picture(7));
    let gone = &report["images"][1];
    assert_eq!((&gone["status"], &gone["error"]["code"]), (&json!("failed"), &json!("result_unavailable")));
    assert!(gone["error"]["message"].as_str().unwrap().contains("/gone.png"), "{gone}");
    assert_eq!(site.calls().len(), 0);
}

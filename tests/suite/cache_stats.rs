//! `retouch cache stats`: equals the tables to the last image, also after deaths, redeliveries and purges.

use retouch_tests::kills::agree::{Told, disagreements, of_stats, of_tables};
use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{PRICE, Paid, picture, task};
use retouch_tests::site::Site;
use retouch_tests::tasks;
use retouch_tests::watched::Watched;
use serde_json::{Value, json};

/// Work of a dead worker continues soon, and nothing counts as poison.
const HURRY: [(&str, &str); 3] =
    [("RETOUCH_LEASE_SECONDS", "1"), ("RETOUCH_PATIENCE_SECONDS", "3"), ("RETOUCH_POISON_KILLS", "1000")];

#[tokio::test]
async fn tables_stats_metrics_and_events_agree_after_kills_redeliveries_and_purges() {
    let paid = Paid::on_servers().await;
    drop(paid.worker("").await);
    let told = Told::listen(paid.site.events().await);
    // Each worker dies just after or just before a commit whose result was not yet published.
    let fatal = ["register:after", "finish_edit:after", "finish_edit:before", "event_sent:before"];
    for (nth, point) in fatal.into_iter().enumerate() {
        for (id, seeds) in [("a", [1, 2]), ("b", [2, 3]), ("c", [1, 1])] {
            let pictures = seeds.map(|seed| picture(seed + 2 * nth as u64));
            paid.site.publish(&task(&format!("{id}-{nth}"), "remove_watermark", "the text", &pictures)).await;
        }
        let worker =
            HURRY.iter().fold(paid.program(&["worker"], ""), |worker, (name, value)| worker.env(name, value));
        let worker = worker.env("RETOUCH_TEST_FAILPOINTS", format!("{point}=kill@1")).start();
        worker.ended().await;
        paid.site.purge_all().await;
    }
    let watched = Watched::start(&paid, "", &HURRY).await;
    // Producers without an event publish purged tasks again; registered ones must not count twice.
    for nth in 0..fatal.len() {
        for (id, seeds) in [("a", [1, 2]), ("b", [2, 3]), ("c", [1, 1])] {
            let pictures = seeds.map(|seed| picture(seed + 2 * nth as u64));
            let id = format!("{id}-{nth}");
            paid.site.publish(&task(&id, "remove_watermark", "the text", &pictures)).await;
        }
    }
    for nth in 0..fatal.len() {
        for id in ["a", "b", "c"] {
            assert_eq!(paid.site.ended(&format!("{id}-{nth}")).await.status, "completed");
        }
    }
    paid.site.nothing_left().await;
    assert_eq!(disagreements(&paid, &watched, &told, 12).await, Vec::<String>::new());
    let [hit, joined, paid_images, failed, money, saved, _] = of_tables(&paid, "TRUE").await;
    assert_eq!((hit + joined + paid_images, failed), (24, 0));
    assert_eq!((money, saved), (paid_images * PRICE, (hit + joined) * PRICE));
}

#[tokio::test]
async fn unfinished_tasks_are_separate_and_part_of_the_total() {
    let site = Site::in_one_file().await;
    let [_worker] = site.workers().await;
    site.publish(&tasks::task("done", json!({}), &[tasks::seed(1), tasks::seed(1)])).await;
    site.ended("done").await;
    let gated = tasks::task("open", json!({"gate": "g"}), &[tasks::seed(2), tasks::seed(3)]);
    site.publish(&gated).await;
    site.called(3).await;
    let stats = site.program(&["cache", "stats", "--json"]).run().await;
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    let [open] = stats["under_way"].as_array().unwrap().as_slice() else { panic!("{stats}") };
    assert_eq!((&open["tasks"], &open["images"], &open["waiting"]), (&json!(1), &json!(2), &json!(2)));
    let [day] = stats["days"].as_array().unwrap().as_slice() else { panic!("{stats}") };
    assert_eq!(
        (&day["joined"], &day["paid"], &day["waiting"], &day["hit_percent"]),
        (&json!(1), &json!(1), &json!(0), &json!(0))
    );
    assert_eq!(
        (&stats["total"][0]["images"], of_stats(&stats["total"])[..4].to_vec()),
        (&json!(4), vec![0, 1, 1, 0])
    );
    assert_eq!(
        (&stats["entries"], &stats["served"], &stats["by_model"][0]["current"]),
        (&json!(1), &json!(2), &json!(true))
    );
    site.open_gate("g");
    site.ended("open").await;
    site.nothing_left().await;
}

#[tokio::test]
async fn the_text_shows_models_days_and_most_served_entries() {
    let laptop = Laptop::new();
    let said = async |arguments: &[&str]| {
        let done = laptop.retouch(arguments).run().await;
        assert_eq!((done.status.code(), done.stderr.as_str()), (Some(0), ""));
        done.stdout
    };
    let empty = said(&["cache", "stats"]).await;
    assert_eq!(empty, "0 entries, 0 B, served 0 times\nno task ended in the last 30 days (UTC)\n");
    laptop.picture("cat.png", 1);
    for _ in 0..2 {
        laptop.report(&["edit", "cat.png", "-t", "sketch"]).await;
    }
    let stats = said(&["cache", "stats"]).await;
    for line in [
        "1 entry, ",
        ", served 2 times",
        " 2             local local-2 ",
        "50 %",
        "       2 times  sketch local-2, 0 CNY",
    ] {
        assert!(stats.contains(line), "{line:?} is not in\n{stats}");
    }
}

/// Prints what docs/operations/cache.md says of big tables; not by `tests/run`, which ends what takes so long:
/// `target/debug/with-servers -- cargo test --locked --workspace --test suite -- --ignored --nocapture a_million`.
#[tokio::test]
#[ignore = "fills two tables with a million rows each, which takes minutes"]
async fn a_million_tasks_and_a_million_entries_are_summed_up_within_seconds() {
    let site = Site::on_servers().await;
    for fill in [
        "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, hit_images, \
            joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, created_at, updated_at, completed_at) \
         SELECT LPAD(seq, 12, '0'), UNHEX(LPAD(HEX(seq), 64, '0')), ELT(1 + seq % 5, 'remove_watermark', 'expand', 'sketch', 'edit', 'enhance'), \
            'make it plain', 'wanx2.1-imageedit', '{}', '[\"https://pictures.example/1.png\"]', 'completed', 3, 1 + seq % 2, 0, 2 - seq % 2, 0, \
            140000 * (2 - seq % 2), 140000 * (1 + seq % 2), 'CNY', CONCAT('[\"', REPEAT('x', 700), '\"]'), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), \
            UTC_TIMESTAMP(3) - INTERVAL (seq * 2) SECOND FROM seq_1_to_1000000",
        "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, result_hash, content_type, \
            width, height, bytes, price_micros, currency, hit_count, last_hit_at, created_at, updated_at) \
         SELECT UNHEX(LPAD(HEX(seq), 64, '0')), LPAD(HEX(seq DIV 2), 64, '0'), 'edit', REPEAT('p', 100), 'dashscope', 'wanx2.1-imageedit', '{\"seed\":7}', \
            CONCAT('sha256/', LPAD(HEX(seq), 64, '0')), LPAD(HEX(seq), 64, '0'), 'image/png', 1024, 768, 1000000, 140000, 'CNY', 1 + seq % 1000, \
            UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) FROM seq_1_to_1000000",
    ] {
        site.execute(fill).await;
    }
    for nth in ["first", "second", "third"] {
        for command in [&["cache", "stats", "--json"][..], &["cache", "stats", "--json", "--days", "1"]] {
            let began = std::time::Instant::now();
            let done = site.program(command).run().await;
            let took = began.elapsed();
            let stats: Value = serde_json::from_str(&done.stdout).unwrap();
            println!(
                "{command:?}, the {nth} time: {:.2} s, {} images",
                took.as_secs_f64(),
                stats["total"][0]["images"]
            );
            assert_eq!(stats["entries"], json!(1_000_000));
        }
    }
    for (what, sql) in [
        (
            "a day, as /metrics asks",
            "SELECT SUM(t.hit_images) FROM image_edit_tasks t FORCE INDEX (ended) WHERE t.completed_at >= UTC_DATE()",
        ),
        (
            "30 days by edit type",
            "SELECT SUM(t.hit_images) FROM image_edit_tasks t FORCE INDEX (ended) WHERE t.completed_at >= UTC_DATE() - INTERVAL 29 DAY GROUP BY DATE(t.completed_at), t.edit_type, t.currency",
        ),
        (
            "the same without the index",
            "SELECT SUM(t.hit_images) FROM image_edit_tasks t IGNORE INDEX (ended) WHERE t.completed_at >= UTC_DATE() - INTERVAL 29 DAY GROUP BY DATE(t.completed_at), t.edit_type, t.currency",
        ),
        (
            "every entry by model",
            "SELECT COUNT(*) FROM (SELECT model, SUM(bytes) FROM image_edit_cache GROUP BY key_version, provider, model) x",
        ),
        (
            "served most",
            "SELECT MAX(id) FROM (SELECT id FROM image_edit_cache ORDER BY hit_count DESC, id LIMIT 10) x",
        ),
    ] {
        let began = std::time::Instant::now();
        site.execute(sql).await;
        println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
    }
}

//! Metrics: the sums over all replicas equal the tables, in the form that Prometheus reads; and a worker
//! exports every name in the dashboard and the alert rules.

use std::collections::BTreeSet;

use retouch_tests::exposition::Scrape;
use retouch_tests::paid::{LANE, Paid, WANX, picture, task};
use retouch_tests::picture_server::Answer;
use retouch_tests::stand_in::{Fault, OnCreate};
use retouch_tests::tasks::{data, url};
use retouch_tests::watched::{Watched, panels, rules, strangers};
use retouch_worker::metrics::{DECLARED, Kind};
use serde_json::json;

const SAID: &str = "remove the text";
const BUDGET: &str = "[lanes.\"dashscope.wanx2.1-imageedit\"]\ndaily_budget = \"100\"\n";

/// Hits, joined, paid and failed images, in tasks that end in each way, on two workers.
async fn work(paid: &Paid) {
    let gone = paid.site.pictures.answer("/gone.png", Answer::Status(404));
    // One submit is billed and not answered.
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    for (id, seeds) in [("a", &[1, 2, 1][..]), ("b", &[2, 3]), ("c", &[1, 4]), ("d", &[4, 4, 5])] {
        let pictures: Vec<_> = seeds.iter().map(|seed| picture(*seed)).collect();
        paid.site.publish(&task(id, "remove_watermark", SAID, &pictures)).await;
    }
    for id in ["a", "b", "c", "d"] {
        assert_eq!(paid.site.ended(id).await.status, "completed");
    }
    let mut partial = task("partial", "remove_watermark", SAID, &[picture(1)]);
    partial["images"].as_array_mut().unwrap().push(url(&gone));
    paid.site.publish(&partial).await;
    let mut failed = task("failed", "remove_watermark", SAID, &[]);
    failed["images"] = json!([url(&gone), data(b"no picture")]);
    paid.site.publish(&failed).await;
    paid.site.publish(&json!({"v": 1, "task_id": "bad"})).await;
    // A repeated task counts nothing.
    paid.site.publish(&task("d", "remove_watermark", SAID, &[picture(4), picture(4), picture(5)])).await;
    for id in ["partial", "failed"] {
        assert_eq!(paid.site.ended(id).await.status, id);
    }
    paid.site.counts("SELECT COUNT(*) FROM dead_letters", 4).await;
    paid.site.nothing_left().await;
}

async fn micros(paid: &Paid, what: &str) -> f64 {
    let sum = format!(
        "SELECT CAST(COALESCE(SUM({what}), 0) AS SIGNED) FROM image_edit_tasks WHERE model = '{WANX}'"
    );
    paid.site.number(&sum).await as f64
}

#[tokio::test]
async fn replicas_figures_add_up_to_the_tables() {
    let paid = Paid::on_servers().await;
    let workers = [Watched::start(&paid, BUDGET, &[]).await, Watched::start(&paid, BUDGET, &[]).await];
    work(&paid).await;
    let scrapes = [workers[0].scrape().await, workers[1].scrape().await];
    let sum = |name: &str, labels: &[(&str, &str)]| -> f64 {
        scrapes.iter().map(|scrape| scrape.sum(name, labels)).sum()
    };

    for source in ["hit", "joined", "paid", "failed"] {
        let rows = format!("SELECT CAST(SUM({source}_images) AS SIGNED) FROM image_edit_tasks");
        let images = paid.site.number(&rows).await as f64;
        assert_eq!(sum("retouch_images_total", &[("source", source)]), images, "{source}");
        assert!(images > 0.0, "{source} was not tried");
    }
    for status in ["completed", "partial", "failed"] {
        let rows = format!("SELECT COUNT(*) FROM image_edit_tasks WHERE status = '{status}'");
        let tasks = paid.site.number(&rows).await as f64;
        assert_eq!(sum("retouch_tasks_total", &[("status", status)]), tasks, "{status}");
    }
    let tasks = paid.site.number("SELECT COUNT(*) FROM image_edit_tasks").await as f64;
    assert_eq!(sum("retouch_tasks_accepted_total", &[]), tasks);
    let calls = paid.site.number("SELECT CAST(SUM(paid_calls) AS SIGNED) FROM image_edit_calls").await;
    let of_wanx = [("model", WANX), ("currency", "CNY")];
    assert_eq!(sum("retouch_paid_calls_total", &of_wanx), calls as f64);
    assert_eq!(sum("retouch_call_duration_seconds", &[("lane", LANE), ("le", "+Inf")]), calls as f64);
    let in_micros = |name| (sum(name, &of_wanx) * 1e6).round();
    assert_eq!(in_micros("retouch_paid_money_total"), micros(&paid, "paid_micros").await);
    assert_eq!(in_micros("retouch_saved_money_total"), micros(&paid, "saved_micros").await);
    assert_eq!(in_micros("retouch_lost_money_total"), micros(&paid, "lost_micros").await);
    assert_eq!(in_micros("retouch_lost_money_total"), 140_000.0, "it was tried");
    // Of the database: on each worker the whole.
    for scrape in &scrapes {
        let today = (scrape.sum("retouch_today_saved_money", &[("currency", "CNY")]) * 1e6).round();
        assert_eq!(today, micros(&paid, "saved_micros").await);
        let hits =
            paid.site.number("SELECT CAST(SUM(hit_images) AS SIGNED) FROM image_edit_tasks").await as f64;
        assert_eq!(scrape.sum("retouch_today_images", &[("source", "hit")]), hits);
    }
    let dead = paid.site.number("SELECT COUNT(*) FROM dead_letters WHERE state = 'open'").await as f64;
    assert_eq!(scrapes[0].sum("retouch_dead_letters", &[]), dead);
    assert_eq!(scrapes[0].sum("retouch_lane_state", &[("lane", LANE), ("state", "open")]), 1.0);
    assert_eq!(scrapes[0].sum("retouch_leases", &[]), 0.0);

    let all = together(scrapes);
    as_declared(&all);
    for (title, expression) in panels() {
        assert_eq!(strangers(&expression, &all), [""; 0], "the panel {title}: {expression}");
    }
    for rule in rules() {
        assert_eq!(strangers(&rule.expr, &all), [""; 0], "{}: {}", rule.alert, rule.expr);
    }
    assert_eq!(strangers("sum by (colour) (retouch_tasks_total{status=\"gone\"})", &all).len(), 2);
    assert_eq!(strangers("retouch_tasks", &all), ["retouch_tasks"]);
}

fn together(scrapes: [Scrape; 2]) -> Scrape {
    let mut all = Scrape::default();
    for (name, family) in scrapes.into_iter().flat_map(|scrape| scrape.families) {
        let known = all.families.entry(name).or_default();
        known.kind = family.kind;
        known.help = family.help;
        known.samples.extend(family.samples);
    }
    all
}

/// Every metric is exported as it is declared, and no other is.
fn as_declared(all: &Scrape) {
    let exported: BTreeSet<_> = all.families.keys().map(String::as_str).collect();
    let declared: BTreeSet<_> = DECLARED.iter().map(|metric| metric.name).collect();
    assert_eq!(exported, declared);
    for metric in DECLARED {
        let family = &all.families[metric.name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.as_str(), metric.help));
        let labels: BTreeSet<_> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        for (name, given, _) in &family.samples {
            let mut given: BTreeSet<_> = given.keys().cloned().collect();
            if metric.kind == Kind::Histogram && name.ends_with("_bucket") {
                given.remove("le");
            }
            assert_eq!(given, labels, "{name}");
        }
    }
}

#[tokio::test]
async fn possible_duplicates_are_counted_as_in_the_tables() {
    use retouch_tests::stand_in::{Fault, OnCreate};
    let paid = Paid::on_servers().await;
    // A model without a list of tasks is sent once more.
    let toml = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n[routes.paint]\nmodel = \"gpt-image-1.5\"\n";
    let watched = Watched::start(&paid, toml, &[]).await;
    let lost = paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    paid.site.publish(&task("t", "paint", "winter", &[picture(1)])).await;
    assert_eq!(paid.site.ended("t").await.status, "completed");
    assert_eq!(lost.fired(), 1);
    let scrape = watched.scrape().await;
    let twice = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(paid.site.number(twice).await, 1);
    assert_eq!(scrape.sum("retouch_possible_duplicates_total", &[]), 1.0);
    assert_eq!(scrape.sum("retouch_ambiguous_calls_total", &[]), 1.0);
    assert_eq!(scrape.sum("retouch_paid_money_total", &[("model", "gpt-image-1.5")]), 0.04);
}

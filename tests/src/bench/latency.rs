//! Latency of a hit from publishing to event, with a thousand paid misses queued and without: hits do not
//! wait behind misses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::feed::task;
use super::gallery::Gallery;
use super::paid_site::{PaidSite, percentile_cells, percentiles};
use super::plan::Plan;
use super::report::{Cell, Check, Report, Section};
use crate::broker::Listener;
use crate::paid;

/// Duration of a call at the provider.
const TAKES: Duration = Duration::from_secs(5);
/// Images in one task of misses.
const IN_A_TASK: u64 = 50;
const OPEN: &str = "SELECT COUNT(*) FROM image_edit_calls WHERE state NOT IN ('done', 'failed')";

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    let gallery = Gallery::start(10).await;
    let (misses, hits) = (plan.pick(1000, 50), plan.pick(300, 10));
    let queued: Vec<Value> = (0..misses / IN_A_TASK).map(task_of_misses).collect();
    let (mut without, mut with, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let round = round(&gallery, &queued, hits).await;
        without.extend(round.without);
        with.extend(round.with);
        waited.push(round.waiting);
    }
    let title = format!(
        "A hit's time from publishing to event, one after the other, while {misses} misses are queued or none"
    );
    let mut section = Section::new("latency", &title);
    let fewest = waited.iter().copied().min().unwrap_or_default();
    for (queued, times) in [(0, &without), (fewest, &with)] {
        let [median, p99] = percentile_cells(times);
        let hits = ("hits", Cell::Count(times.len() as u64));
        section.rows.push(vec![("misses_waiting", Cell::Count(queued)), hits, median, p99]);
    }
    section.note(format!(
        "One worker; pictures of 50 KB over HTTP; {} rounds, each on an empty database, first without misses, then with them. Misses \
         waiting: the fewest at the end of a round.",
        plan.rounds
    ));
    report.sections.push(section);
    if !plan.quick {
        let ratio = percentiles(&with).1 / percentiles(&without).1;
        let what = "latency: p99 of hits with 1,000 misses queued to p99 without";
        report.checks.push(Check::at_most(what, ratio, 1.5));
    }
}

struct Round {
    without: Vec<Duration>,
    with: Vec<Duration>,
    /// Misses that still waited when the last hit was answered.
    waiting: u64,
}

async fn round(gallery: &Gallery, queued: &[Value], hits: u64) -> Round {
    let site = PaidSite::new(TAKES).await;
    let _worker = site.worker(None).await;
    let mut events = site.events().await;
    // Every picture once; then a few for the connections.
    let pictures = gallery.pictures().len() as u64;
    one_by_one(&site, gallery, &mut events, 0..pictures, "paid").await;
    let mut next = pictures;
    let mut some = async |site: &PaidSite, count: u64| {
        let tasks = next..next + count;
        next += count;
        one_by_one(site, gallery, &mut events, tasks, "hit").await
    };
    some(&site, 20).await;
    let without = some(&site, hits).await;
    let misses = i64::try_from(queued.len() as u64 * IN_A_TASK).unwrap();
    for task in queued {
        site.publish(task).await;
    }
    let enough = format!("SELECT COUNT(*) FROM image_edit_calls WHERE lane = '{}'", paid::LANE);
    site.counts(&enough, misses).await;
    let with = some(&site, hits).await;
    let waiting = super::tables::number(&site.pool, OPEN.to_owned()).await;
    assert!(waiting * 10 >= misses * 8, "of {misses} misses only {waiting} still waited");
    Round { without, with, waiting: u64::try_from(waiting).unwrap() }
}

/// How long each took; panics unless its image was answered from `source`.
async fn one_by_one(
    site: &PaidSite,
    gallery: &Gallery,
    events: &mut Listener,
    tasks: std::ops::Range<u64>,
    source: &str,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in tasks {
        let task = task(gallery, number, 1);
        let began = Instant::now();
        site.publish(&task).await;
        let event = loop {
            let event = events.next_json().await;
            if event["task_id"] == task["task_id"] {
                break event;
            }
        };
        took.push(began.elapsed());
        let image = &event["images"][0];
        let hash = gallery.pictures()[gallery.of_task(number)].hash.to_hex();
        assert_eq!((&image["source"], &image["image_hash"]), (&json!(source), &json!(hash)), "{event}");
    }
    took
}

fn task_of_misses(number: u64) -> Value {
    let pictures: Vec<_> = (0..IN_A_TASK).map(|n| paid::picture(10_000 + number * IN_A_TASK + n)).collect();
    paid::task(&format!("misses-{number}"), "remove_watermark", "the text", &pictures)
}

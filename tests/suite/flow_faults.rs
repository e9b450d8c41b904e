//! Servers, disks and processes fail in the middle of the work: paid calls are not paid again, an unavailable
//! store is never a miss, and every task comes to its end.
//!
//! Defects of systems like this one, and the test that prevents each here (most run on the servers and in one
//! file):
//!
//! | | defect | test |
//! |---|---|---|
//! | 1 | only the first image's hash was looked at | `flow_identity::every_image_of_a_task_gets_its_own_result` |
//! | 2 | the key lacked model, size, seed, mask, … | `flow_identity::every_field_that_changes_the_picture_makes_another_edit` |
//! | 3 | a collation called different prompts equal | the same: case, accents, spaces, emoji |
//! | 4 | a short hash of one image | `flow_identity::every_image_of_a_task_gets_its_own_result`, the key's golden values |
//! | 5 | types by assumption | `flow_identity::a_results_type_is_recognised_by_its_bytes` |
//! | 6 | "turn on" hit "turn off" | `flow_identity::every_field_that_changes_the_picture_makes_another_edit` |
//! | 7 | select, call, insert: two workers pay | `flow_scale::two_hundred_tasks_…` (both), `a_thousand_tasks_…` |
//! | 8 | a store failure was taken for a miss | `a_database_that_is_down_holds_tasks_…`, `a_blob_store_that_is_gone_…` |
//! | 9 | a billed call timed out and was forgotten | `flow_editor::an_ambiguous_call_…`, `a_worker_that_died_while_it_was_sending_…` |
//! | 10 | a create whose answer was lost was sent again | `flow_editor::a_held_ambiguous_call_…` |
//! | 11 | a late job was never polled again | `flow_editor::an_accepted_edit_is_polled_…`, `flow_shutdown::a_stopping_worker_hands_…` |
//! | 12 | a crash in mid-job was paid again | `a_killed_workers_call_…` |
//! | 13 | a rate limit per process | `flow_editor::a_lanes_calls_in_flight_…` |
//! | 14 | a settlement ran twice | `redelivery_after_a_cut_broker_…`, `a_worker_that_hung_…`, `flow_messages::the_same_task_again_…` |
//! | 15 | saving failed after paying, paid again | `a_result_is_stored_later_…` |
//! | 17 | a hit on a missing or cut file | `a_missing_result_is_an_explained_miss_…` |
//! | 18 | the domain in every row | `flow_running::a_move_to_another_address_rewrites_no_row` |
//! | 19 | job and input in memory | `a_task_outlives_its_workers_and_the_source_of_its_pictures` |
//! | 20 | followers shared their leader's end | `a_killed_workers_call_…` |
//! | 21 | a bad message for ever, or its batch | `flow_messages::a_malformed_message_…` |
//! | 22 | `completed` with every image failed | `flow_partial::a_task_with_only_failed_images_…` |
//! | 23 | hits that were not counted | `flow_identity::hits_are_counted_on_every_way_…`, every test's `nothing_left` |
//! | 24 | one flat price | `flow_running::savings_are_the_price_of_each_edit` |

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use retouch_tests::picture_server::Answer;
use retouch_tests::pictures::picture;
use retouch_tests::program::Running;
use retouch_tests::proxy::Proxy;
use retouch_tests::site::{Site, TaskRow};
use retouch_tests::tasks::{seed, task, task_async, url};
use retouch_tests::wait;
use serde_json::{Value, json};

on_both! {
    a_killed_workers_call_is_carried_on_without_a_second_submit;
    a_task_outlives_its_workers_and_the_source_of_its_pictures;
    a_result_is_stored_later_without_paying_again;
    a_blob_store_that_is_gone_holds_tasks_and_pays_nothing;
    a_missing_result_is_an_explained_miss_and_made_again_once;
}

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "1"), ("RETOUCH_PATIENCE_SECONDS", "1")];

async fn all_right(site: &Site, row: &TaskRow, inputs: &[u64]) {
    assert_eq!(row.status, "completed", "{row:?}");
    for (image, input) in row.images.iter().zip(inputs) {
        assert!(site.is_right(image, &picture(*input)), "{image}");
    }
    site.nothing_left().await;
}

/// Tasks registered by another process that joined the call do not fail with its worker.
async fn a_killed_workers_call_is_carried_on_without_a_second_submit(site: Site) {
    let mut leader = site.worker_with(&HURRY).await;
    let params = json!({"gate": "open"});
    site.publish(&task_async("leader", params.clone(), &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    let _other = site.worker_with(&HURRY).await;
    site.publish(&task_async("follower", params, &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_waits", 2).await;
    leader.kill9();
    site.notice_a_kill().await;
    let polls = site.polls().len();
    wait::until("polls by the other", async || (site.polls().len() > polls + 2).then_some(())).await;
    site.open_gate("open");
    assert_eq!(site.ended("leader").await.counts, [0, 0, 1, 0]);
    all_right(&site, &site.ended("follower").await, &[1]).await;
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.number("SELECT paid_calls FROM image_edit_calls").await, 1);
    assert_eq!(site.number("SELECT attempts + possible_duplicates FROM image_edit_calls").await, 0);
}

async fn a_task_outlives_its_workers_and_the_source_of_its_pictures(site: Site) {
    let settings = site.env.folder().join("retouch.toml");
    fs::write(&settings, "[lanes.double]\nconcurrency = 1\n").unwrap();
    let one_at_a_time = [HURRY[0], HURRY[1], ("RETOUCH_CONFIG", settings.to_str().unwrap())];
    let mut worker = site.worker_with(&one_at_a_time).await;
    let images = [1, 2, 3].map(|n| url(&site.pictures.picture(n)));
    site.publish(&task_async("task", json!({"gate": "open"}), &images)).await;
    // One call is under way, two have not begun.
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    worker.kill9();
    site.notice_a_kill().await;
    for n in [1, 2, 3] {
        site.pictures.answer(&format!("/{n}.png"), Answer::Status(404));
    }
    site.open_gate("open");
    let _other = site.worker_with(&HURRY).await;
    let row = site.ended("task").await;
    all_right(&site, &row, &[1, 2, 3]).await;
    assert_eq!(site.calls().len(), 3);
}

fn blobs(site: &Site) -> (PathBuf, PathBuf) {
    let folder = site.env.folder();
    (folder.join("blobs"), folder.join("blobs.unplugged"))
}

/// For its users, an unplugged disk. (Permissions would not stop a test that runs as root.)
fn unplug(site: &Site) {
    let (there, away) = blobs(site);
    fs::rename(there, away).unwrap();
}

fn plug_in(site: &Site) {
    let (there, away) = blobs(site);
    // No process may have created a new one meanwhile.
    assert!(!there.exists());
    fs::rename(away, there).unwrap();
}

async fn a_result_is_stored_later_without_paying_again(site: Site) {
    let worker = site.worker_with(&HURRY).await;
    site.publish(&task("task", json!({"gate": "open"}), &[seed(1)])).await;
    site.called(1).await;
    unplug(&site);
    site.open_gate("open");
    worker.line("what the provider said is at stake").await;
    plug_in(&site);
    let row = site.ended("task").await;
    assert_eq!(row.counts, [0, 0, 1, 0]);
    all_right(&site, &row, &[1]).await;
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.number("SELECT paid_calls FROM image_edit_calls").await, 1);
}

async fn a_blob_store_that_is_gone_holds_tasks_and_pays_nothing(site: Site) {
    let [worker] = site.workers().await;
    site.publish(&task("known", json!({}), &[seed(1)])).await;
    site.ended("known").await;
    unplug(&site);
    let mark = worker.mark();
    site.publish(&task("hit", json!({}), &[seed(1)])).await;
    worker.line_after(mark, r#""message":"delayed""#).await;
    let mark = worker.mark();
    site.publish(&task("miss", json!({}), &[seed(2)])).await;
    worker.line_after(mark, r#""message":"delayed""#).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_tasks").await, 1);
    plug_in(&site);
    assert_eq!(site.ended("hit").await.counts, [1, 0, 0, 0]);
    all_right(&site, &site.ended("miss").await, &[2]).await;
    assert_eq!(site.calls().len(), 2);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

async fn a_missing_result_is_an_explained_miss_and_made_again_once(site: Site) {
    let [worker] = site.workers().await;
    site.publish(&task("first", json!({}), &[seed(1), seed(2), seed(3)])).await;
    let first = site.ended("first").await;
    let file = |image: &Value| blobs(&site).0.join(image["result_url"].as_str().unwrap());
    fs::remove_file(file(&first.images[0])).unwrap();
    let whole = fs::read(file(&first.images[1])).unwrap();
    fs::write(file(&first.images[1]), &whole[..whole.len() / 2]).unwrap();

    let again = task("again", json!({}), &[seed(1), seed(2), seed(3), seed(1)]);
    site.publish(&again).await;
    let row = site.ended("again").await;
    assert_eq!(row.counts, [1, 1, 2, 0]);
    all_right(&site, &row, &[1, 2, 3, 1]).await;
    assert_eq!(site.calls().len(), 5);
    assert_eq!(worker.stderr().matches("lost its blob").count(), 2);
    site.publish(&task("healed", json!({}), &[seed(1), seed(2), seed(3)])).await;
    assert_eq!(site.ended("healed").await.counts, [3, 0, 0, 0]);
    assert_eq!(site.calls().len(), 5);
    let served = site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await;
    assert_eq!(served, 10);
}

/// A database behind a host that is up: while the second proxy refuses, the first one closes each connection at once.
struct Database {
    _front: Proxy,
    back: Proxy,
    url: String,
}

impl Database {
    async fn of(site: &Site) -> Self {
        let (back, url) = Proxy::before(&site.env.mysql_url()).await;
        let (front, url) = Proxy::before(&url).await;
        Self { _front: front, back, url }
    }

    async fn worker(&self, site: &Site) -> Running {
        site.worker_with(&[HURRY[0], HURRY[1], ("DATABASE_URL", &self.url)]).await
    }
}

#[tokio::test]
async fn a_database_that_is_down_holds_tasks_and_pays_nothing() {
    let site = Site::on_servers().await;
    let mut database = Database::of(&site).await;
    let worker = database.worker(&site).await;
    site.publish(&task("known", json!({}), &[seed(1)])).await;
    site.ended("known").await;
    database.back.refuse().await;
    let mark = worker.mark();
    site.publish(&task("hit", json!({}), &[seed(1)])).await;
    worker.line_after(mark, r#""message":"delayed""#).await;
    let mark = worker.mark();
    site.publish(&task("miss", json!({}), &[seed(2)])).await;
    worker.line_after(mark, r#""message":"delayed""#).await;
    assert_eq!(site.calls().len(), 1);
    database.back.accept().await;
    assert_eq!(site.ended("hit").await.counts, [1, 0, 0, 0]);
    all_right(&site, &site.ended("miss").await, &[2]).await;
    assert_eq!(site.calls().len(), 2);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

#[tokio::test]
async fn an_outage_longer_than_a_lease_loses_no_result() {
    let site = Site::on_servers().await;
    let mut database = Database::of(&site).await;
    let worker = database.worker(&site).await;
    let params = json!({"gate": "open"});
    site.publish(&task("at-once", params.clone(), &[seed(1)])).await;
    site.publish(&task_async("later", json!({"submit_gate": "open"}), &[seed(2)])).await;
    site.called(2).await;
    database.back.refuse().await;
    // A lease is renewed three times in its life: after ten failures for two leases both have run out.
    let failures = || worker.stderr().matches("cannot renew a lease").count();
    wait::until("ten failures to renew", async || (failures() >= 10).then_some(())).await;
    site.open_gate("open");
    let mark = worker.mark();
    worker.line_after(mark, "what the provider said is at stake").await;
    database.back.accept().await;
    all_right(&site, &site.ended("at-once").await, &[1]).await;
    all_right(&site, &site.ended("later").await, &[2]).await;
    assert_eq!(site.calls().len(), 2);
    assert_eq!(site.number("SELECT MAX(paid_calls) FROM image_edit_calls").await, 1);
    assert_eq!(site.number("SELECT MAX(possible_duplicates) FROM image_edit_calls").await, 0);
}

#[tokio::test]
async fn redelivery_after_a_cut_broker_counts_every_image_once() {
    let site = Site::on_servers().await;
    let (broker, amqp_url) = Proxy::before(site.env.amqp_url()).await;
    let worker = site.worker_with(&[HURRY[0], HURRY[1], ("AMQP_URL", &amqp_url)]).await;
    site.pictures.hold("/1.png");
    let images = [url(&site.pictures.picture(1)), seed(2)];
    site.publish(&task("taken-in", json!({"gate": "open"}), &[seed(3), seed(2)])).await;
    site.called(2).await;
    site.publish(&task("loading", json!({"gate": "open"}), &images)).await;
    site.pictures.requested("/1.png", 1).await;
    // Two edits and one task are in flight.
    broker.cut().await;
    // Delivered again, the task is loaded again while its first delivery is still being worked on.
    site.pictures.requested("/1.png", 2).await;
    site.pictures.release("/1.png");
    site.taken_in("loading").await;
    site.open_gate("open");
    assert_eq!(site.ended("taken-in").await.counts, [0, 0, 2, 0]);
    assert_eq!(site.ended("loading").await.counts, [0, 1, 1, 0]);
    all_right(&site, &site.task("loading").await.unwrap(), &[1, 2]).await;
    assert_eq!(site.calls().len(), 3);
    assert_eq!(site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await, 4);
    assert!(worker.stderr().contains("consuming again"));
}

#[tokio::test]
async fn a_worker_that_hung_changes_nothing_of_its_successor() {
    let site = Site::on_servers().await;
    let hung = site.worker_with(&HURRY).await;
    site.publish(&task_async("task", json!({"gate": "open"}), &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    hung.signal(Signal::SIGSTOP);
    let _other = site.worker_with(&HURRY).await;
    site.open_gate("open");
    let row = site.ended("task").await;
    hung.signal(Signal::SIGCONT);
    // It works again, and has found out.
    hung.line("the lease was lost").await;
    all_right(&site, &row, &[1]).await;
    assert_eq!(site.task("task").await.unwrap(), row);
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.number("SELECT hit_count FROM image_edit_cache").await, 1);
}

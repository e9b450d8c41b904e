//! The blob store fails, one fault at a time, with a real S3 server: paid results are stored later, other
//! work is held, work resumes by itself, nothing is lost and nothing paid twice. Each prints one line: the
//! fault, and the time until work resumed.

use std::time::{Duration, Instant};

use retouch_tests::bucket::{Bucket, Serving};
use retouch_tests::services::S3Fault;
use retouch_tests::tasks::{seed, task, task_async};
use serde_json::json;

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];

/// One call is under way at the provider, its result arrives during the fault, and so do a hit and a miss.
async fn over(
    bucket: &Bucket,
    serving: &Serving,
    fault: &str,
    what: &str,
    make: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
) {
    let site = &bucket.site;
    let calls = site.calls().len();
    let n = u64::try_from(calls).unwrap();
    let [known, before, hit, miss] = ["known", "before", "hit", "miss"].map(|role| format!("{role}-{fault}"));
    site.publish(&task(&known, json!({}), &[seed(2000 + n)])).await;
    assert_eq!(site.ended(&known).await.status, "completed");
    site.publish(&task_async(&before, json!({ "gate": fault }), &[seed(1000 + n)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    make().await;
    site.open_gate(fault);
    site.publish(&task(&hit, json!({}), &[seed(2000 + n)])).await;
    site.publish(&task(&miss, json!({ "fault": fault }), &[seed(3000 + n)])).await;
    end().await;
    let over = Instant::now();
    for id in [&hit, &miss, &before] {
        assert_eq!(site.ended(id).await.status, "completed", "{id}");
    }
    let took = over.elapsed();
    assert_eq!(
        site.ended(&hit).await.counts,
        [1, 0, 0, 0],
        "{fault}: what could not be asked was taken for a miss"
    );
    bucket.all_right(serving, &site.ended(&before).await, &[1000 + n]).await;
    bucket.all_right(serving, &site.ended(&miss).await, &[3000 + n]).await;
    assert_eq!(site.calls().len(), calls + 3, "{fault}: something was paid twice");
    let harmed = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(site.number(harmed).await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    site.nothing_left().await;
    println!("fault | {fault} | {what} | {:.1} s | 0 lost | 0 paid twice", took.as_secs_f64());
}

/// So many requests fail, then none.
async fn broken(
    bucket: &Bucket,
    serving: &Serving,
    fault: &str,
    what: &str,
    how: (S3Fault, Option<&str>),
    times: usize,
) {
    let (how, method) = how;
    let make = async || bucket.s3.break_with(how, method);
    let end = async || {
        bucket.s3.struck(times).await;
        bucket.s3.mend();
    };
    over(bucket, serving, fault, what, make, end).await;
}

#[tokio::test]
async fn a_bucket_that_is_overloaded_or_slow_holds_results_and_tasks() {
    let bucket = Bucket::on_servers().await;
    let serving = bucket.worker(&HURRY).await;
    let slow_down = (S3Fault::SlowDown, None);
    broken(&bucket, &serving, "s3-503", "S3 answers 503 SlowDown to 20 requests", slow_down, 20).await;
    let slow_down = (S3Fault::SlowDown, Some("PUT"));
    broken(&bucket, &serving, "s3-503-put", "S3 answers 503 SlowDown to 12 PUTs", slow_down, 12).await;
    // Longer than a lease.
    let slow = (S3Fault::Slow(Duration::from_secs(3)), None);
    broken(&bucket, &serving, "s3-slow", "S3 takes 3 s for each of 6 answers", slow, 6).await;
}

#[tokio::test]
async fn cut_or_refused_bucket_connections_hold_results_and_tasks() {
    let bucket = Bucket::on_servers().await;
    let serving = bucket.worker(&HURRY).await;
    let cut = (S3Fault::CutRequest, Some("PUT"));
    broken(&bucket, &serving, "s3-cut-put", "6 PUTs cut in the middle", cut, 6).await;
    let cut = (S3Fault::CutAnswer, Some("PUT"));
    broken(&bucket, &serving, "s3-unheard-put", "3 PUTs done, their answers cut off", cut, 3).await;
    let cut = (S3Fault::CutAnswer, Some("GET"));
    broken(&bucket, &serving, "s3-cut-get", "the answers to 10 GETs cut in the middle", cut, 10).await;
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_holds_results_and_tasks() {
    let bucket = Bucket::on_servers().await;
    let serving = bucket.worker(&HURRY).await;
    let make = async || bucket.proxy.lock().await.refuse().await;
    let end = async || {
        serving.worker.line("what the provider said is at stake").await;
        serving.worker.line(r#""message":"delayed""#).await;
        bucket.proxy.lock().await.accept().await;
    };
    over(
        &bucket,
        &serving,
        "s3-refused",
        "S3 refuses connections until a result and a task were held",
        make,
        end,
    )
    .await;
}

//! Replicas: who reports is listed, who goes or is silent is not.

use retouch_worker::store::ReplicaReport;
use serde_json::json;

use super::fixture::Fixture;

promises!(
    a_reporting_worker_is_listed_with_its_last_report,
    a_worker_that_goes_or_is_silent_drops_out_of_the_list,
    the_rows_of_the_dead_are_dropped_after_an_hour,
);

fn report(owner: &str, intake: u32) -> ReplicaReport {
    ReplicaReport {
        owner: owner.to_owned(),
        name: "Wörker 1".to_owned(),
        version: "0.1.0".to_owned(),
        doing: json!({"draining": false, "intake": intake}),
    }
}

async fn a_reporting_worker_is_listed_with_its_last_report(db: Fixture) {
    let store = db.store().await;
    store.report_replica(&report("a", 1)).await.unwrap();
    db.execute("UPDATE replicas SET started_at = '2020-01-01 00:00:00.000'").await;
    store.report_replica(&report("b", 0)).await.unwrap();
    store.report_replica(&report("a", 2)).await.unwrap();
    let listed = store.replicas().await.unwrap();
    let said: Vec<_> = listed.iter().map(|replica| replica.report.clone()).collect();
    assert_eq!(said, [report("a", 2), report("b", 0)], "the oldest first");
    assert!(listed[0].up.as_secs() > 86_400, "it began when it reported first");
    assert!(listed.iter().all(|replica| replica.seen.as_secs() < 15));
}

async fn a_worker_that_goes_or_is_silent_drops_out_of_the_list(db: Fixture) {
    let store = db.store().await;
    for owner in ["goes", "silent", "lives"] {
        store.report_replica(&report(owner, 0)).await.unwrap();
    }
    store.remove_replica("goes").await.unwrap();
    store.remove_replica("goes").await.unwrap();
    db.execute("UPDATE replicas SET seen_at = '2020-01-01 00:00:00.000' WHERE owner = 'silent'").await;
    let listed = store.replicas().await.unwrap();
    assert_eq!(listed.iter().map(|replica| replica.report.owner.as_str()).collect::<Vec<_>>(), ["lives"]);
    // It was only slow.
    store.report_replica(&report("silent", 0)).await.unwrap();
    assert_eq!(store.replicas().await.unwrap().len(), 2);
}

async fn the_rows_of_the_dead_are_dropped_after_an_hour(db: Fixture) {
    let store = db.store().await;
    for owner in ["dead", "lives"] {
        store.report_replica(&report(owner, 0)).await.unwrap();
    }
    assert_eq!(store.forget_replicas().await.unwrap(), 0);
    db.execute("UPDATE replicas SET seen_at = '2020-01-01 00:00:00.000' WHERE owner = 'dead'").await;
    assert_eq!(store.forget_replicas().await.unwrap(), 1);
    assert_eq!(db.text("SELECT owner FROM replicas").await, "lives");
}

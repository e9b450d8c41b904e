//! Health while a server hangs: reported within seconds, with the figures that are available.

use std::time::{Duration, Instant};

use retouch_tests::paid::Paid;
use retouch_tests::proxy::Proxy;
use retouch_tests::wait;
use retouch_tests::watched::Watched;
use serde_json::Value;

#[tokio::test]
async fn a_hanging_database_hides_no_other_figures() {
    let paid = Paid::on_servers().await;
    let (database, url) = Proxy::before(&paid.site.env.mysql_url()).await;
    let watched = Watched::start(&paid, "", &[("DATABASE_URL", &url)]).await;
    wait::until("readiness", async || (watched.get("/readyz").await.0 == 200).then_some(())).await;
    let before = watched.scrape().await;
    assert!(before.families.contains_key("retouch_lane_state"));
    assert_eq!(before.sum("retouch_scrape_errors_total", &[]), 0.0);

    database.stall();
    let asked = Instant::now();
    let hangs = async || {
        let (status, body) = watched.get("/readyz").await;
        let parts: Value = serde_json::from_str(&body).unwrap();
        // A cached answer may still be served.
        (status == 503 && parts["database"] != "ok").then_some(parts)
    };
    let parts = wait::until("a database that hangs", hangs).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(parts["database"].as_str().unwrap().starts_with("no answer within"), "{parts}");
    assert_eq!((&parts["blobs"], &parts["queue tasks"]), (&"ok".into(), &"ok".into()), "{parts}");

    let errors = async || {
        let asked = Instant::now();
        let scrape = watched.scrape().await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        (scrape.sum("retouch_scrape_errors_total", &[("source", "database")]) > 0.0).then_some(scrape)
    };
    let scrape = wait::until("a scrape without the database", errors).await;
    assert!(
        !scrape.families.contains_key("retouch_lane_state"),
        "figures of before are shown as if they were new"
    );
    assert!(scrape.families.contains_key("retouch_images_total"));
    assert!(scrape.families.contains_key("retouch_queue_messages_ready"), "the broker can be asked");

    database.resume();
    wait::until("readiness again", async || (watched.get("/readyz").await.0 == 200).then_some(())).await;
    let again = async || watched.scrape().await.families.contains_key("retouch_lane_state").then_some(());
    wait::until("the figures again", again).await;
}

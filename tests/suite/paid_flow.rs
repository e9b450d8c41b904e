//! Paid edits from the message to the picture: right, refused before payment, and never paid twice if the
//! result is still available.

use std::time::Duration;

use image::ImageFormat;
use retouch_tests::paid::{PRICE, Paid, WANX, asked, picture, task};
use retouch_tests::picture_server::Answer;
use retouch_tests::pictures;
use retouch_tests::stand_in::{Asked, Fault, OnCreate, OnResult, OnTask, Refusal, StandIn};
use retouch_tests::tasks::{data, url};
use retouch_tests::wait;
use serde_json::json;

const SAID: &str = "remove the text";

/// One edit that must succeed; returns its request at the provider.
async fn one_edit(paid: &Paid, id: &str, seed: u64) -> Asked {
    paid.site.publish(&task(id, "remove_watermark", SAID, &[picture(seed)])).await;
    let row = paid.site.ended(id).await;
    let asked = asked("remove_watermark", SAID);
    assert_eq!(row.status, "completed", "{row:?}");
    assert!(paid.is_right(&row.images[0], &picture(seed), &asked), "{:?}", row.images[0]);
    asked
}

/// Paid once, and everything adds up.
async fn paid_once(paid: &Paid, asked: &Asked, seed: u64) {
    let ledger = paid.provider.ledger();
    let edit = asked.identity(&picture(seed));
    assert_eq!((ledger.creates_of(&edit), ledger.billed_of(&edit)), (1, 1));
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number("SELECT CAST(SUM(paid_calls) AS SIGNED) FROM image_edit_calls").await, 1);
    assert_eq!(
        paid.site.number("SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls").await,
        0
    );
}

#[tokio::test]
async fn every_api_style_returns_the_picture_of_its_edit() {
    let paid = Paid::on_servers().await;
    let toml = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n\
                [routes.paint]\nmodel = \"gpt-image-1.5\"\n";
    let _worker = paid.worker(toml).await;
    let input = picture(1);
    let mask =
        pictures::encode(&image::RgbImage::from_pixel(512, 512, image::Rgb([255; 3])), ImageFormat::Png);
    let said = "make it winter";
    let mut tasks = Vec::new();
    for (edit_type, model, asked) in [
        ("description_edit", None, asked("description_edit", said)),
        ("edit", Some("wan2.5-i2i-preview"), Asked::new("wan2.5-i2i-preview").prompt(said)),
        ("edit", None, Asked::new("qwen-image-2.0").prompt(said)),
        ("edit", Some("wan2.7-image"), Asked::new("wan2.7-image").prompt(said)),
        ("paint", None, Asked::new("gpt-image-1.5").prompt(said)),
    ] {
        let id = format!("{edit_type}-{}", model.unwrap_or("default"));
        let mut message = task(&id, edit_type, said, std::slice::from_ref(&input));
        if let Some(model) = model {
            message["model"] = json!(model);
        }
        paid.site.publish(&message).await;
        tasks.push((id, asked));
    }
    let mut masked = task("masked", "description_edit_with_mask", said, std::slice::from_ref(&input));
    masked["mask"] = data(&mask);
    masked["params"] = json!({"seed": 7});
    paid.site.publish(&masked).await;
    tasks.push(("masked".to_owned(), asked("description_edit_with_mask", said).mask(&mask).param("seed", 7)));
    for (id, asked) in tasks {
        let row = paid.site.ended(&id).await;
        assert_eq!(row.status, "completed", "{id}: {row:?}");
        assert!(paid.is_right(&row.images[0], &input, &asked), "{id}");
    }
    assert_eq!(paid.billed(), 6);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn an_openai_result_at_a_url_is_fetched_and_kept() {
    let paid = Paid::on_servers().await;
    paid.provider.set(|settings| settings.openai_urls = true);
    let toml = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n\
                [routes.paint]\nmodel = \"gpt-image-1.5\"\n";
    let _worker = paid.worker(toml).await;
    paid.site.publish(&task("t", "paint", "winter", &[picture(1)])).await;
    let row = paid.site.ended("t").await;
    assert!(
        paid.is_right(&row.images[0], &picture(1), &Asked::new("gpt-image-1.5").prompt("winter")),
        "{row:?}"
    );
    assert_eq!(paid.billed(), 1);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn large_pictures_are_uploaded_first_with_input_oss() {
    let paid = Paid::on_servers().await;
    let _worker = paid.worker("input = \"oss\"\n").await;
    one_edit(&paid, "t", 1).await;
    assert_eq!(paid.provider.ledger().uploads, 1);
}

#[tokio::test]
async fn a_hit_saves_what_its_entry_cost_whatever_the_price_is_now() {
    let paid = Paid::on_servers().await;
    {
        let _worker = paid.worker("").await;
        one_edit(&paid, "dear", 1).await;
    }
    let _worker = paid.worker(&format!("[models.\"{WANX}\"]\nprice = \"0.50\"\n")).await;
    one_edit(&paid, "hit", 1).await;
    one_edit(&paid, "dearer", 2).await;
    let money =
        "SELECT CONCAT(task_id, ' ', paid_micros, ' ', saved_micros) FROM image_edit_tasks ORDER BY id";
    assert_eq!(paid.site.texts(money).await, ["dear 140000 0", "hit 0 140000", "dearer 500000 0"]);
    let prices = "SELECT CONCAT(price_micros) FROM image_edit_cache ORDER BY id";
    assert_eq!(paid.site.texts(prices).await, [PRICE.to_string(), "500000".to_owned()]);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn requests_beyond_the_providers_limits_are_refused_before_paying() {
    let paid = Paid::on_servers().await;
    let _worker = paid.worker("").await;
    let small = pictures::picture_as(1, 400, 400, ImageFormat::Png);
    // 9.0 MiB: below the provider's 10 MB, and beyond what fits into its requests.
    let heavy = pictures::picture_as(2, 1774, 1774, ImageFormat::Bmp);
    assert_eq!(heavy.len() / 1024 / 1024, 9);
    let heavy = paid.site.pictures.answer("/heavy.bmp", Answer::Bytes("image/bmp", heavy.into()));
    paid.site.publish(&task("long", "remove_watermark", &"x".repeat(900), &[picture(1)])).await;
    let mut pictures = task("pictures", "remove_watermark", SAID, &[small]);
    pictures["images"].as_array_mut().unwrap().push(url(&heavy));
    paid.site.publish(&pictures).await;
    let error = |image: &serde_json::Value| image["error"]["message"].as_str().unwrap().to_owned();
    let long = paid.site.ended("long").await;
    let pictures = paid.site.ended("pictures").await;
    for (message, parts) in [
        (error(&long.images[0]), ["prompt", "900", "800"]),
        (error(&pictures.images[0]), ["400", "512", "4096"]),
        (error(&pictures.images[1]), ["10485760", "9444830", "bytes"]),
    ] {
        let message = message.replace([',', '_'], "");
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
    assert!(paid.provider.ledger().received.is_empty(), "nothing was sent");
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_result_link_failing_three_times_costs_one_create() {
    let paid = Paid::on_servers().await;
    let fault = paid.provider.arm(Fault::Result(OnResult::Status(500)).times(3));
    let _worker = paid.worker("").await;
    let asked = one_edit(&paid, "t", 1).await;
    assert_eq!(fault.fired(), 3);
    paid_once(&paid, &asked, 1).await;
}

#[tokio::test]
async fn a_damaged_result_is_never_served_and_fetched_again() {
    let paid = Paid::on_servers().await;
    let faults =
        [OnResult::Truncated, OnResult::CutOff, OnResult::Html, OnResult::Drop, OnResult::Status(403)];
    let faults = faults.map(|fault| paid.provider.arm(Fault::Result(fault)));
    let _worker = paid.worker("").await;
    let asked = one_edit(&paid, "t", 1).await;
    for fault in faults {
        assert_eq!(fault.fired(), 1);
    }
    paid_once(&paid, &asked, 1).await;
}

#[tokio::test]
async fn an_expired_result_fails_its_edit_as_paid() {
    let paid = Paid::on_servers().await;
    let fault = paid.provider.arm(Fault::Result(OnResult::Status(403)).always());
    let _worker = paid.worker("").await;
    paid.site.publish(&task("t", "remove_watermark", SAID, &[picture(1)])).await;
    fault.struck(1).await;
    // A day passes for the call.
    paid.site
        .execute("UPDATE image_edit_calls SET submitted_at = submitted_at - INTERVAL 1 DAY, lease_until = '2020-01-01', fence = fence + 1, wake_at = '2020-01-01'")
        .await;
    let row = paid.site.ended("t").await;
    assert_eq!(row.images[0]["error"]["code"], "result_lost");
    assert_eq!(paid.site.dead_letters(1).await, ["result_lost t"]);
    assert_eq!(paid.provider.ledger().creates(), 1);
    assert_eq!(paid.site.number("SELECT paid_calls FROM image_edit_calls").await, 1);
}

#[tokio::test]
async fn a_synchronous_answer_outlives_the_worker_that_heard_it() {
    let paid = Paid::on_servers().await;
    let held = paid.provider.arm(Fault::Result(OnResult::Hold).times(1));
    let hurry = [("RETOUCH_LEASE_SECONDS", "1")];
    let mut first = paid.worker_with("", &hurry).await;
    paid.site.publish(&task("t", "edit", "winter", &[picture(1)])).await;
    held.held(1).await;
    // Its picture is fetched while its address is being committed.
    let committed = "SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'";
    wait::until("the address", async || (paid.site.number(committed).await == 1).then_some(())).await;
    first.kill9();
    held.release();
    let _second = paid.worker_with("", &hurry).await;
    let row = paid.site.ended("t").await;
    assert!(
        paid.is_right(&row.images[0], &picture(1), &Asked::new("qwen-image-2.0").prompt("winter")),
        "{row:?}"
    );
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (1, 1));
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_synchronous_result_is_fetched_again_and_paid_once() {
    let paid = Paid::on_servers().await;
    let fault = paid.provider.arm(Fault::Result(OnResult::Html).times(2));
    let _worker = paid.worker("").await;
    paid.site.publish(&task("t", "edit", "winter", &[picture(1)])).await;
    let row = paid.site.ended("t").await;
    let asked = Asked::new("qwen-image-2.0").prompt("winter");
    assert!(paid.is_right(&row.images[0], &picture(1), &asked), "{row:?}");
    assert_eq!((fault.fired(), paid.provider.ledger().creates(), paid.billed()), (2, 1, 1));
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number("SELECT paid_calls FROM image_edit_calls").await, 1);
}

#[tokio::test]
async fn a_task_given_up_unbilled_is_sent_again_and_counted_once() {
    let paid = Paid::on_servers().await;
    let gave_up = Refusal::new(500, "InternalError.Timeout", "no result within 3 hours");
    let fault = paid.provider.arm(Fault::Task(OnTask::Fail(gave_up)).times(1));
    let _worker = paid.worker("").await;
    let asked = one_edit(&paid, "t", 1).await;
    assert_eq!(fault.fired(), 1);
    let ledger = paid.provider.ledger();
    assert_eq!((ledger.creates_of(&asked.identity(&picture(1))), ledger.billed()), (2, 1));
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number("SELECT paid_calls FROM image_edit_calls").await, 1);
    assert_eq!(paid.lane("spent_micros").await, PRICE.to_string());
}

#[tokio::test]
async fn a_refused_picture_fails_with_the_providers_code_free() {
    let paid = Paid::on_servers().await;
    let refusal = Refusal::new(400, "DataInspectionFailed", "Output data may contain inappropriate content.");
    paid.provider.arm(Fault::Task(OnTask::Fail(refusal.clone())).times(1));
    let _worker = paid.worker("").await;
    paid.site.publish(&task("late", "remove_watermark", SAID, &[picture(1)])).await;
    assert_eq!(paid.site.ended("late").await.images[0]["error"]["code"], "DataInspectionFailed");
    paid.provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: false }));
    paid.site.publish(&task("at-once", "remove_watermark", SAID, &[picture(2)])).await;
    assert_eq!(paid.site.ended("at-once").await.images[0]["error"]["code"], "DataInspectionFailed");
    assert_eq!(paid.billed(), 0);
    let dead = ["DataInspectionFailed at-once", "DataInspectionFailed late"];
    assert_eq!(paid.site.dead_letters(2).await, dead);
    assert_eq!(paid.lane("spent_micros").await, "0");
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_partial_result_is_a_result() {
    let paid = Paid::on_servers().await;
    let refusal = Refusal::new(500, "InternalError.Timeout", "one of two");
    let fault = paid.provider.arm(Fault::Task(OnTask::Partial(refusal)).times(1));
    let _worker = paid.worker("").await;
    let asked = one_edit(&paid, "t", 1).await;
    assert_eq!(fault.fired(), 1);
    paid_once(&paid, &asked, 1).await;
}

#[tokio::test]
async fn an_error_inside_a_200_is_an_error() {
    let paid = Paid::on_servers().await;
    let refusal = Refusal::new(200, "InvalidParameter", "function must be in the list");
    paid.provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: false }));
    let _worker = paid.worker("").await;
    paid.site.publish(&task("t", "remove_watermark", SAID, &[picture(1)])).await;
    assert_eq!(paid.site.ended("t").await.images[0]["error"]["code"], "InvalidParameter");
}

#[tokio::test]
async fn an_unanswered_create_is_counted_and_held_under_hold() {
    let paid = Paid::on_servers().await;
    for (id, created) in [("made", true), ("not-made", false)] {
        let lost = paid.provider.arm(Fault::Create(OnCreate::Drop { created }));
        let _worker = paid.worker_with("", &[("RETOUCH_ON_AMBIGUOUS", "hold")]).await;
        let seed = u64::from(created);
        paid.site.publish(&task(id, "remove_watermark", SAID, &[picture(seed)])).await;
        assert_eq!(paid.site.ended(id).await.images[0]["error"]["code"], "ambiguous");
        assert_eq!(lost.fired(), 1);
        let edit = asked("remove_watermark", SAID).identity(&picture(seed));
        assert_eq!(paid.provider.ledger().received_of(&edit), 1, "never blindly again");
    }
    assert_eq!(paid.site.dead_letters(2).await, ["ambiguous made", "ambiguous not-made"]);
    let _worker = paid.worker("").await;
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    paid.site.publish(&task("again", "remove_watermark", SAID, &[picture(9)])).await;
    assert_eq!(paid.site.ended("again").await.status, "completed");
    let edit = asked("remove_watermark", SAID).identity(&picture(9));
    assert_eq!(paid.provider.ledger().billed_of(&edit), 2, "the policy says to try once more");
    let counted = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(paid.site.number(counted).await, 1, "and it is counted");
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_key_never_appears_in_logs_tables_or_errors() {
    let paid = Paid::on_servers().await;
    let said = Refusal::new(400, "InvalidParameter", format!("Incorrect API key provided: {}", StandIn::KEY));
    paid.provider.arm(Fault::Create(OnCreate::Refuse { refusal: said, created: false }));
    let worker = paid.worker_with("", &[("RUST_LOG", "retouch_worker=trace")]).await;
    paid.site.publish(&task("t", "remove_watermark", SAID, &[picture(1)])).await;
    let row = paid.site.ended("t").await;
    one_edit(&paid, "fine", 2).await;
    paid.site.nothing_left().await;
    assert!(!row.images[0].to_string().contains(StandIn::KEY), "{row:?}");
    assert!(!worker.stderr().contains(StandIn::KEY));
    let tables = "SELECT COUNT(*) FROM image_edit_calls WHERE last_error LIKE '%sk-stand-in%'";
    assert_eq!(paid.site.number(tables).await, 0);
}

#[tokio::test]
async fn an_endless_task_keeps_its_place_and_is_handed_over() {
    let paid = Paid::on_servers().await;
    paid.takes(Duration::from_secs(3600));
    let worker = paid.worker("").await;
    paid.site.publish(&task("t", "remove_watermark", SAID, &[picture(1)])).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    worker.terminate();
    assert!(worker.exit().await.success());
    assert_eq!(
        paid.site.number("SELECT COUNT(*) FROM image_edit_calls WHERE owner IS NULL AND attempts = 0").await,
        1
    );
    let _second = paid.worker("").await;
    paid.provider.advance(Duration::from_secs(3600));
    assert_eq!(paid.site.ended("t").await.status, "completed");
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (1, 1));
}

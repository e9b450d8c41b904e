//! Paid results, whatever they are: kept as they came, fetched for as long as it takes, and never in the way
//! of other edits.

use std::io::{Cursor, Write as _};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{LANE, Paid, asked, picture, task};
use retouch_tests::pictures;
use retouch_tests::program::Program;
use retouch_tests::proxy::Proxy;
use retouch_tests::stand_in::{Fault, Limits, Makes, OnResult, StandIn};
use retouch_tests::wait;
use retouch_tests::watched::Watched;
use serde_json::{Value, json};

const SAID: &str = "remove the text";
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
const UNFETCHED: &str =
    "SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted' AND fetch_host IS NOT NULL";
const BLOCKED: &str = "SELECT COUNT(*) FROM lanes WHERE blocked_by = 'fetch'";
/// The provider's answer is the picture itself.
const PAINT: &str = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n[routes.paint]\nmodel = \"gpt-image-1.5\"\n";
const HTML: &str = "<!DOCTYPE html><title>Sign in</title><p>Please sign in to this network.";
const MIB: usize = 1024 * 1024;

/// One box of a file that is made of boxes.
fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 8).unwrap();
    [&length.to_be_bytes()[..], name, content].concat()
}

/// An AVIF or HEIC of 640 by 480 pixels, as far as its boxes say.
fn heif(brand: &[u8; 4]) -> Vec<u8> {
    let ispe = boxed(b"ispe", &[&[0; 4][..], &640u32.to_be_bytes(), &480u32.to_be_bytes()].concat());
    let meta = [&[0; 4][..], &boxed(b"iprp", &boxed(b"ipco", &ispe))].concat();
    let ftyp = [&brand[..], &[0; 4], b"mif1"].concat();
    [boxed(b"ftyp", &ftyp), boxed(b"meta", &meta), boxed(b"mdat", &[7; 32])].concat()
}

/// 67 megapixels of one grey.
fn huge_png() -> Vec<u8> {
    const SIDE: u32 = 8200;
    let mut out = Cursor::new(Vec::new());
    let encoder = PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::NoFilter);
    let pixels = vec![127; (SIDE * SIDE) as usize];
    encoder.write_image(&pixels, SIDE, SIDE, ExtendedColorType::L8).unwrap();
    out.into_inner()
}

/// The header of a BMP of 24 bits; its pixels are zeros.
fn bmp(width: u32, height: u32) -> Makes {
    let pixels = (width * 3).div_ceil(4) * 4 * height;
    let mut head = b"BM".to_vec();
    for word in [54 + pixels, 0, 54, 40, width, height] {
        head.extend(word.to_le_bytes());
    }
    head.extend([1, 0, 24, 0]);
    head.resize(54, 0);
    Makes::new("image/bmp", head).filled(54 + pixels as usize)
}

struct Row {
    what: &'static str,
    makes: Makes,
    /// What its row in the cache says: content type, width, height.
    kept: (&'static str, u32, u32),
    /// Whether it is recorded that it cannot be decoded.
    checked: bool,
}

fn table() -> Vec<Row> {
    let jpeg =
        pictures::encode(&image::RgbImage::from_pixel(64, 48, image::Rgb([9, 99, 200])), ImageFormat::Jpeg);
    let row = |what, makes, kept, checked| Row { what, makes, kept, checked };
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"64\" height=\"48\"><script>alert(1)</script></svg>";
    let png = picture(99);
    let iend = png.len() - 12;
    vec![
        row("PNG of 67 megapixels", Makes::new("image/png", huge_png()), ("image/png", 8200, 8200), false),
        row("BMP of 66 MiB", bmp(5000, 4600), ("image/bmp", 5000, 4600), false),
        row("AVIF", Makes::new("image/avif", heif(b"avif")), ("image/avif", 640, 480), false),
        row("HEIC", Makes::new("image/heic", heif(b"heic")), ("image/heic", 640, 480), false),
        row(
            "JPEG XL",
            Makes::new("image/jxl", b"\xff\x0a\xf8\x1f".repeat(9)),
            ("image/jxl", 512, 512),
            false,
        ),
        row("SVG", Makes::new("image/svg+xml", svg), ("image/svg+xml", 64, 48), false),
        row(
            "AVIF that its host calls a PNG",
            Makes::new("image/png", heif(b"avis")),
            ("image/avif", 640, 480),
            false,
        ),
        row(
            "JPEG without its end",
            Makes::new("image/jpeg", &jpeg[..jpeg.len() - 2]),
            ("image/jpeg", 64, 48),
            false,
        ),
        row("PNG without its end", Makes::new("image/png", &png[..iend]), ("image/png", 512, 512), true),
        row("PNG cut at half", Makes::new("image/png", &png[..png.len() / 2]), ("image/png", 512, 512), true),
    ]
}

/// Each row at an address, and within the answer. Printed as the table of docs/reliability.md.
#[tokio::test]
async fn every_result_of_the_table_is_kept() {
    let paid = Paid::on_servers().await;
    paid.provider.set(|settings| settings.limits = Limits::Off);
    let watched = Watched::start(&paid, PAINT, &[]).await;
    println!("| the result | calls sent | what became of it |\n|---|---|---|");
    for (seed, row) in (0u64..).zip(table()) {
        let whole = row.makes.whole();
        paid.provider.set(|settings| settings.makes = Some(row.makes.clone()));
        let sent = paid.provider.ledger().creates();
        let mut types = vec!["remove_watermark"];
        // Base64 of the largest is more than an answer may have.
        types.extend((whole.len() < 10 * MIB).then_some("paint"));
        for edit_type in &types {
            let id = format!("{edit_type}-{seed}");
            paid.site.publish(&task(&id, edit_type, SAID, &[picture(seed)])).await;
            let done = paid.site.ended(&id).await;
            assert_eq!(done.status, "completed", "{}: {done:?}", row.what);
            let image = &done.images[0];
            assert_eq!(paid.site.result(image), whole, "{}: as it came", row.what);
            let (content_type, width, height) = row.kept;
            assert_eq!(image["content_type"], content_type, "{}", row.what);
            let size = (image["width"].as_u64(), image["height"].as_u64());
            assert_eq!(size, (Some(width.into()), Some(height.into())), "{}", row.what);
            let served =
                reqwest::get(format!("{}/blobs/{}", watched.root(), image["result_url"].as_str().unwrap()));
            let served = served.await.unwrap();
            assert_eq!(served.headers()["content-type"], content_type, "{}", row.what);
            assert_eq!(served.headers()["x-content-type-options"], "nosniff");
            let attached = served.headers().get("content-disposition").is_some_and(|how| how == "attachment");
            assert_eq!(attached, content_type == "image/svg+xml", "{}", row.what);
        }
        let calls = paid.provider.ledger().creates() - sent;
        assert_eq!(calls, types.len(), "{}", row.what);
        let count = "SELECT COUNT(*) FROM image_edit_cache WHERE result_check IS NOT NULL AND result_hash = ";
        let hash = retouch_shared::key::Digest32::of(&whole);
        let checked = paid.site.number(&format!("{count}'{hash}'")).await;
        assert_eq!(checked > 0, row.checked, "{}: whether it decodes is recorded", row.what);
        let check = if row.checked { ", with a note that it cannot be decoded" } else { "" };
        println!("| {} | {} | kept as it came: `{}`{check} |", row.what, calls / types.len(), row.kept.0);
    }
    let input = paid.site.env.folder().join("input.png");
    std::fs::write(&input, picture(8)).unwrap();
    let shown = paid.program(&["cache", "show"], PAINT).arg(&input).run().await;
    assert!(shown.stdout.contains("could not be decoded"), "{}{}", shown.stdout, shown.stderr);
    no_picture_is_kept_for_a_person(&paid).await;
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_result_that_its_host_compresses_unasked_is_kept_unpacked() {
    let paid = Paid::on_servers().await;
    let made = picture(5);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&made).unwrap();
    let packed = packed.finish().unwrap();
    paid.provider.set(|settings| settings.makes = Some(Makes::new("image/png", packed.as_slice())));
    let _worker = paid.worker("").await;
    paid.site.publish(&task("t", "remove_watermark", SAID, &[picture(1)])).await;
    let done = paid.site.ended("t").await;
    assert_eq!(paid.site.result(&done.images[0]), made);
    assert_eq!(done.images[0]["content_type"], "image/png");
    assert_eq!(paid.provider.ledger().creates(), 1);
    paid.site.nothing_left().await;
    println!("| PNG that its host compressed unasked | 1 | kept unpacked: `image/png` |");
}

/// A page in place of a result: at an address for longer than it is worth waiting for, and within the answer.
async fn no_picture_is_kept_for_a_person(paid: &Paid) {
    paid.provider.set(|settings| settings.makes = Some(Makes::new("text/html; charset=utf-8", HTML)));
    for edit_type in ["remove_watermark", "paint"] {
        let sent = paid.provider.ledger().creates();
        paid.site.publish(&task(edit_type, edit_type, SAID, &[picture(77)])).await;
        if edit_type == "remove_watermark" {
            paid.site.counts(UNFETCHED, 1).await;
            // Two hours pass for the call, whose owner dies.
            let later = "UPDATE image_edit_calls SET submitted_at = submitted_at - INTERVAL 2 HOUR, lease_until = '2020-01-01', \
                         fence = fence + 1, wake_at = '2020-01-01' WHERE state = 'submitted'";
            paid.site.execute(later).await;
        }
        let done = paid.site.ended(edit_type).await;
        let error = &done.images[0]["error"];
        assert_eq!(error["code"], "bad_result", "{done:?}");
        let hash = retouch_shared::key::Digest32::of(HTML.as_bytes());
        let message =
            paid.site.texts(&format!("SELECT message FROM dead_letters WHERE task_id = '{edit_type}'")).await;
        assert!(message[0].contains("an HTML page"), "{message:?}");
        let kept = json!({ "result_url": retouch_worker::blobs::reference(hash) });
        assert_eq!(paid.site.result(&kept), HTML.as_bytes());
        assert_eq!(paid.provider.ledger().creates() - sent, 1);
    }
    println!("| HTML page that stays | 1 | kept as a blob: `bad_result`, whose letter names it |");
}

/// A task a picture, each an edit of its own.
async fn publish(paid: &Paid, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        paid.site.publish(&task(&format!("task-{seed}"), "remove_watermark", SAID, &[picture(seed)])).await;
    }
}

async fn shown(paid: &Paid) -> Value {
    let done = paid.program(&["lanes", "--json"], "").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    let lanes: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    lanes.into_iter().find(|lane| lane["name"] == LANE).expect("the lane")
}

/// Results go through the proxy from now on, or straight.
fn results_through(provider: &StandIn, proxy: Option<&Proxy>) {
    let base = proxy.map(|proxy| format!("http://{}", proxy.address()));
    provider.set(|settings| settings.result_base = base);
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Refuses,
    Stalls,
    Resets,
}

/// Two results that cannot be fetched on a lane of two places: a third edit is made meanwhile, and the reason
/// is shown.
async fn two_cannot_be_fetched(trouble: Trouble) {
    let paid = Paid::on_servers().await;
    let watched = Watched::start(&paid, "", &[]).await;
    let target = paid.provider.address().to_string();
    let mut proxy = Proxy::start(&target).await;
    match trouble {
        Trouble::Refuses => proxy.refuse().await,
        Trouble::Stalls | Trouble::Resets => proxy.stall(),
    }
    results_through(&paid.provider, Some(&proxy));
    publish(&paid, 0..2).await;
    let host = proxy.address().to_string();
    let resets = async {
        let Trouble::Resets = trouble else { return std::future::pending::<()>().await };
        loop {
            proxy.reset().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let meanwhile = async {
        paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 2).await;
        let since = Instant::now();
        let name = format!("lane {LANE}");
        wait::until("the reason in /readyz", async || {
            let (status, body) = watched.get("/readyz").await;
            let parts: Value = serde_json::from_str(&body).unwrap();
            let why = parts[&name].as_str().unwrap_or_default();
            (status == 200 && why.contains("2 paid results") && why.contains(&host)).then_some(())
        })
        .await;
        let told = since.elapsed();
        assert!(told < Duration::from_secs(5), "{told:?}");
        let lane = shown(&paid).await;
        assert_eq!(
            (&lane["unfetched"]["calls"], &lane["unfetched"]["host"]),
            (&2.into(), &host.clone().into()),
            "{lane}"
        );
        assert_eq!((&lane["state"], &lane["in_flight"]), (&"open".into(), &0.into()), "{lane}");
        let scrape = watched.scrape().await;
        assert_eq!(scrape.sum("retouch_unfetched_results", &[("lane", LANE)]), 2.0);
        results_through(&paid.provider, None);
        let third = Instant::now();
        publish(&paid, 2..3).await;
        assert_eq!(paid.site.ended("task-2").await.status, "completed");
        let third = third.elapsed();
        assert_eq!(paid.site.number(COMPLETED).await, 1, "the two others wait");
        println!("{trouble:?}: the reason after {told:.1?}, the third edit within {third:.1?}");
    };
    tokio::select! {
        () = meanwhile => {}
        () = resets => {}
    }
    match trouble {
        Trouble::Refuses => proxy.accept().await,
        Trouble::Stalls | Trouble::Resets => proxy.resume(),
    }
    paid.site.counts(COMPLETED, 3).await;
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (3, 3));
    paid.site.nothing_left().await;
    assert_eq!(shown(&paid).await["unfetched"], Value::Null);
}

#[tokio::test]
async fn two_results_whose_host_refuses_do_not_stop_a_third_edit() {
    two_cannot_be_fetched(Trouble::Refuses).await;
}

#[tokio::test]
async fn two_results_whose_host_stalls_do_not_stop_a_third_edit() {
    two_cannot_be_fetched(Trouble::Stalls).await;
}

#[tokio::test]
async fn two_results_whose_host_resets_do_not_stop_a_third_edit() {
    two_cannot_be_fetched(Trouble::Resets).await;
}

#[tokio::test]
async fn results_on_a_host_that_is_not_allowed_block_their_lane_at_the_first() {
    let paid = Paid::on_servers().await;
    let port = paid.provider.address().port();
    paid.provider.set(|settings| settings.result_base = Some(format!("http://localhost:{port}")));
    let allowed = [("RETOUCH_ALLOW_HOSTS", "127.0.0.1,localhost")];
    let listed = "result_hosts = [\"localhost\"]\n";
    // First it is none of the provider's hosts, then one that leads to this machine.
    for (first, toml, variables, setting) in [
        (0, "", &allowed[..], "result_hosts"),
        (5, listed, &[("RETOUCH_ALLOW_HOSTS", "elsewhere.example")], "RETOUCH_ALLOW_HOSTS"),
    ] {
        let worker = paid.worker_with(toml, variables).await;
        publish(&paid, first..first + 5).await;
        paid.site.counts(BLOCKED, 1).await;
        let lane = shown(&paid).await;
        assert_eq!((&lane["state"], &lane["code"]), (&"blocked".into(), &"result_host".into()), "{lane}");
        let message = lane["message"].as_str().unwrap();
        assert!(message.contains("localhost") && message.contains(setting), "{message}");
        wait::until("the results", async || {
            let lane = shown(&paid).await;
            (lane["unfetched"]["setting"] == setting && lane["in_flight"] == 0).then_some(())
        })
        .await;
        let billed = paid.billed();
        assert!(billed - first <= 2, "{billed} were paid for that cannot be fetched");
        worker.terminate();
        assert!(worker.exit().await.success());
        assert_eq!(paid.billed(), billed);
        let allowed_since = Instant::now();
        let worker = paid.worker_with(listed, &allowed).await;
        paid.site.counts(COMPLETED, i64::try_from(first + 5).unwrap()).await;
        println!(
            "{setting}: {} of 5 paid at first, all kept {:.1?} after the restart",
            billed - first,
            allowed_since.elapsed()
        );
        assert_eq!(shown(&paid).await["state"], "open");
        worker.terminate();
        assert!(worker.exit().await.success());
    }
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (10, 10));
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_result_beyond_the_limit_waits_and_its_lane_names_the_setting() {
    let paid = Paid::on_servers().await;
    let makes = bmp(1000, 700);
    paid.provider.set(|settings| settings.makes = Some(makes.clone()));
    let worker = paid.worker_with("", &[("RETOUCH_RESULT_MAX_MIB", "1")]).await;
    publish(&paid, 0..1).await;
    paid.site.counts(UNFETCHED, 1).await;
    let lane = shown(&paid).await;
    assert_eq!(lane["unfetched"]["setting"], "RETOUCH_RESULT_MAX_MIB", "{lane}");
    assert_eq!(lane["state"], "open");
    // Where the factor says so, nothing is paid for.
    let mut larger = task("larger", "super_resolution", "", &[picture(1)]);
    larger["params"] = json!({ "upscale_factor": 3 });
    paid.site.publish(&larger).await;
    let refused = paid.site.ended("larger").await;
    assert_eq!(refused.images[0]["error"]["code"], "result_too_large", "{refused:?}");
    worker.terminate();
    assert!(worker.exit().await.success());
    let _worker = paid.worker("").await;
    let done = paid.site.ended("task-0").await;
    assert_eq!(paid.site.result(&done.images[0]), makes.whole());
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (1, 1));
}

/// `retouch edit` at home, with the provider's key.
fn edit(laptop: &Laptop, provider: &StandIn) -> Program {
    let program = laptop.retouch(&["edit", "photos", "--type", "remove_watermark", "--out", "out"]);
    let program =
        program.env("DASHSCOPE_API_KEY", StandIn::KEY).env("RETOUCH_ALLOW_HOSTS", "127.0.0.1,localhost");
    program.env("DASHSCOPE_BASE_URL", provider.dashscope_url())
}

#[tokio::test]
async fn a_command_says_why_a_result_cannot_be_fetched_and_goes_on_when_it_can() {
    let provider = StandIn::start().await;
    let laptop = Laptop::new();
    laptop.write("photos/one.png", picture(1));
    let mut proxy = Proxy::start(&provider.address().to_string()).await;
    proxy.refuse().await;
    results_through(&provider, Some(&proxy));
    let running = edit(&laptop, &provider).start();
    wait::until("the bill", async || (provider.ledger().billed() == 1).then_some(())).await;
    let since = Instant::now();
    let line = running.line(&proxy.address().to_string()).await;
    assert!(
        line.contains("1 paid result") && since.elapsed() < Duration::from_secs(5),
        "{:?} {line}",
        since.elapsed()
    );
    println!("the reason after {:.1?}: {line}", since.elapsed());
    proxy.accept().await;
    assert!(running.exit().await.success(), "{}", running.stderr());
    let expected = retouch_tests::stand_in::expected(
        &picture(1),
        &asked("remove_watermark", "Remove the watermark from the picture."),
    );
    assert!(pictures::same_pixels(&laptop.read("out/one-remove_watermark.png"), &expected));
    assert_eq!(provider.ledger().billed(), 1);
}

#[tokio::test]
async fn a_command_whose_results_are_on_a_host_that_is_not_allowed_ends_with_the_setting() {
    let provider = StandIn::start().await;
    let laptop = Laptop::new();
    laptop.write("photos/one.png", picture(1));
    let port = provider.address().port();
    provider.set(|settings| settings.result_base = Some(format!("http://localhost:{port}")));
    let refused = edit(&laptop, &provider).run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("localhost") && refused.stderr.contains("result_hosts"),
        "{}",
        refused.stderr
    );
    laptop.write("retouch.toml", "[editors.dashscope]\nresult_hosts = [\"localhost\"]\n");
    let done = edit(&laptop, &provider).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(laptop.list("out"), ["one-remove_watermark.png"]);
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (1, 1));
}

#[tokio::test]
async fn a_command_does_not_wait_an_hour_for_a_page_to_become_a_picture() {
    let provider = StandIn::start().await;
    provider.set(|settings| settings.makes = Some(Makes::new("text/html", HTML)));
    let laptop = Laptop::new();
    laptop.write("photos/one.png", picture(1));
    let done = edit(&laptop, &provider).run().await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("HTML page"), "{}", done.stdout);
    assert!(
        done.stderr.contains("1 paid result") && !done.stderr.contains("another process"),
        "{}",
        done.stderr
    );
    assert_eq!(provider.ledger().creates(), 1);
}

const PAGE: Fault = Fault::Result(OnResult::Html);
const GONE: Fault = Fault::Result(OnResult::Status(404));
const OPEN: &str = "SELECT COUNT(*) FROM dead_letters WHERE state = 'open'";

/// What a command of a person says; it must succeed.
async fn said(paid: &Paid, arguments: &[&str]) -> String {
    let done = paid.program(arguments, "").run().await;
    assert!(done.status.success(), "{arguments:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

/// A task whose picture is paid for, while a page comes in place of every result: it ends as `bad_result`.
async fn loses_its_result(paid: &Paid, name: &str, picture: &[u8]) {
    paid.site.publish(&task(name, "remove_watermark", SAID, &[picture.to_vec()])).await;
    paid.site.counts(UNFETCHED, 1).await;
    let later = "UPDATE image_edit_calls SET submitted_at = submitted_at - INTERVAL 2 HOUR, lease_until = '2020-01-01', \
                 fence = fence + 1, wake_at = '2020-01-01' WHERE state = 'submitted'";
    paid.site.execute(later).await;
    let done = paid.site.ended(name).await;
    assert_eq!(done.images[0]["error"]["code"], "bad_result", "{done:?}");
}

async fn is_answered(paid: &Paid, name: &str, picture: &[u8]) {
    let done =
        format!("SELECT COUNT(*) FROM image_edit_tasks WHERE task_id = '{name}' AND status = 'completed'");
    paid.site.counts(&done, 1).await;
    let row = paid.site.ended(name).await;
    assert!(paid.is_right(&row.images[0], picture, &asked("remove_watermark", SAID)), "{row:?}");
}

#[tokio::test]
async fn a_result_behind_a_page_is_asked_for_until_it_is_there() {
    let paid = Paid::on_servers().await;
    let page = paid.provider.arm(PAGE.always());
    let _worker = paid.worker("").await;
    loses_its_result(&paid, "t", &picture(1)).await;
    // The page stays: asked for again, and not paid again.
    let before = page.fired();
    let preview = said(&paid, &["dead", "retry", "--all"]).await;
    assert!(preview.contains("1 call: the paid result is asked for again first, free"), "{preview}");
    assert!(preview.contains("at most 1 call of") && preview.contains("about 0.14 CNY"), "{preview}");
    said(&paid, &["dead", "retry", "--all", "--yes"]).await;
    paid.site.counts("SELECT COUNT(*) FROM dead_letters WHERE state = 'open' AND retries = 1", 1).await;
    assert!(page.fired() > before);
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (1, 1));
    let id = paid.site.number("SELECT id FROM dead_letters").await.to_string();
    let shown = said(&paid, &["dead", "show", &id]).await;
    let first = "asks for the paid result again first; pays again only if the provider no longer has it (about 0.14 CNY)";
    assert!(shown.contains(first), "{shown}");
    page.clear();
    said(&paid, &["dead", "retry", "--all", "--yes"]).await;
    is_answered(&paid, "t", &picture(1)).await;
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (1, 1));
    let money = "SELECT COUNT(*) FROM image_edit_tasks WHERE paid_micros = 140000 AND lost_micros = 0";
    assert_eq!(paid.site.number(money).await, 1);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_lost_result_that_is_gone_is_paid_for_once_more() {
    let paid = Paid::on_servers().await;
    let page = paid.provider.arm(PAGE.always());
    let _worker = paid.worker("").await;
    loses_its_result(&paid, "gone", &picture(1)).await;
    page.clear();
    // As long as that takes: the owner whose lease was taken away may still ask, too.
    let gone = paid.provider.arm(GONE.always());
    said(&paid, &["dead", "retry", "--all", "--yes"]).await;
    wait::until("the second submit", async || (paid.provider.ledger().creates() == 2).then_some(())).await;
    gone.clear();
    is_answered(&paid, "gone", &picture(1)).await;
    assert_eq!((paid.provider.ledger().creates(), paid.billed()), (2, 2));
    // Where a person wants to pay, nothing is asked.
    let page = paid.provider.arm(PAGE.always());
    loses_its_result(&paid, "anew", &picture(2)).await;
    page.clear();
    let preview = said(&paid, &["dead", "retry", "--all", "--anew"]).await;
    assert!(preview.contains("  1 call of") && !preview.contains("is asked for again"), "{preview}");
    said(&paid, &["dead", "retry", "--all", "--anew", "--yes"]).await;
    is_answered(&paid, "anew", &picture(2)).await;
    assert_eq!(paid.billed(), 4);
    paid.site.nothing_left().await;
}

/// No task pays again for a result that was lost, and each asks for it.
#[tokio::test]
async fn a_later_task_asks_for_a_lost_result_and_never_pays_again() {
    let paid = Paid::on_servers().await;
    let page = paid.provider.arm(PAGE.always());
    let _worker = paid.worker("").await;
    loses_its_result(&paid, "first", &picture(1)).await;
    page.clear();
    paid.site.publish(&task("later", "remove_watermark", SAID, &[picture(1)])).await;
    is_answered(&paid, "later", &picture(1)).await;
    said(&paid, &["dead", "retry", "--all", "--yes"]).await;
    is_answered(&paid, "first", &picture(1)).await;
    assert_eq!(paid.billed(), 1);
    let page = paid.provider.arm(PAGE.always());
    loses_its_result(&paid, "other", &picture(2)).await;
    page.clear();
    let _gone = paid.provider.arm(GONE.always());
    paid.site.publish(&task("held", "remove_watermark", SAID, &[picture(2)])).await;
    let held = paid.site.ended("held").await;
    assert_eq!(held.images[0]["error"]["code"], "bad_result", "{held:?}");
    // The second failure is in the open letter of the first.
    assert_eq!((paid.billed(), paid.site.number(OPEN).await), (2, 1));
    paid.site.nothing_left().await;
}

/// The story of one laptop on a network that asks to sign in.
#[tokio::test]
async fn a_command_fetches_what_it_paid_for_behind_a_page() {
    let provider = StandIn::start().await;
    let page = provider.arm(PAGE.always());
    let laptop = Laptop::new();
    laptop.write("photos/one.png", picture(1));
    let lost = edit(&laptop, &provider).run().await;
    assert!(!lost.status.success() && lost.stdout.contains("HTML page"), "{}{}", lost.stdout, lost.stderr);
    page.clear();
    let retry = laptop.retouch(&["dead", "retry", "--all", "--yes"]).env("DASHSCOPE_API_KEY", StandIn::KEY);
    assert!(retry.run().await.status.success());
    let done = edit(&laptop, &provider).run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let expected = retouch_tests::stand_in::expected(
        &picture(1),
        &asked("remove_watermark", "Remove the watermark from the picture."),
    );
    assert!(pictures::same_pixels(&laptop.read("out/one-remove_watermark.png"), &expected));
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (1, 1));
}

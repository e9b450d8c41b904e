//! `--dry-run` and `--max-cost` foresee what the run would do with damaged pictures and with calls that were
//! sent before; and what a command reports itself piles up in no list.

use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::paid::picture;
use retouch_tests::program::{Finished, Program};
use retouch_tests::stand_in::{Fault, OnCreate, StandIn};
use serde_json::{Value, json};

const SAID: &str = "remove the text";
const CUT_JPEG: &[u8] = include_bytes!("inputs/cut70.jpg");
const CUT_PNG: &[u8] = include_bytes!("inputs/cut.png");

/// The paid edit of what is in the folder `in`.
fn edit(laptop: &Laptop, provider: &StandIn, policy: &str, more: &[&str]) -> Program {
    let edit = ["edit", "in", "--type", "remove_watermark", "--prompt", SAID, "--out", "out"];
    laptop
        .retouch(&[&edit[..], more].concat())
        .env("DASHSCOPE_API_KEY", StandIn::KEY)
        .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
        .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
        .env("RETOUCH_ON_AMBIGUOUS", policy)
}

fn of_json(done: &Finished) -> (Option<i32>, Value) {
    let report = serde_json::from_str(&done.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    (done.status.code(), report)
}

async fn dry_run(laptop: &Laptop, provider: &StandIn, policy: &str) -> (Option<i32>, Value) {
    of_json(&edit(laptop, provider, policy, &["--dry-run", "--json"]).run().await)
}

fn failed(report: &Value) -> Vec<(&str, &str)> {
    let failed = report["failed"].as_array().unwrap().iter();
    failed.map(|failed| (text(&failed["input"]), text(&failed["error"]["code"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn money(amount: &str) -> Value {
    json!({"amount": amount, "currency": "CNY"})
}

#[tokio::test]
async fn a_dry_run_decodes_in_full_and_ends_as_the_run() {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("in/cut.png", CUT_PNG);
    laptop.write("in/cut70.jpg", CUT_JPEG);
    laptop.write("in/whole.png", picture(1));
    let (code, report) = dry_run(&laptop, &provider, "retry").await;
    assert_eq!((code, &report["calls"], &report["cost"]), (Some(1), &json!(1), &money("0.14")), "{report}");
    assert_eq!(failed(&report), [("in/cut.png", "undecodable"), ("in/cut70.jpg", "undecodable")]);
    let (code, real) = of_json(&edit(&laptop, &provider, "retry", &["--json"]).run().await);
    assert_eq!((code, counts(&real)), (Some(1), [0, 0, 1, 2]));
    assert_eq!(provider.ledger().received.len(), 1);
    // A local edit costs nothing, and fails for the same pictures.
    let (code, local) = laptop.ended(&["edit", "in", "-t", "invert", "--dry-run"]).await;
    assert_eq!((code, failed(&local).len(), &local["calls"]), (1, 2, &json!(1)));
}

#[tokio::test]
async fn a_dry_run_foresees_that_a_held_call_is_not_sent() {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("in/1.png", picture(1));
    provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let first = edit(&laptop, &provider, "hold", &[]).run().await;
    assert_eq!(first.status.code(), Some(1), "{}{}", first.stdout, first.stderr);
    let (code, report) = dry_run(&laptop, &provider, "hold").await;
    assert_eq!((code, &report["calls"], &report["cost"]), (Some(1), &json!(0), &money("0")), "{report}");
    assert_eq!(failed(&report), [("in/1.png", "ambiguous")]);
    // The run ends in the same way, and nothing of it is too dear.
    for _ in 0..3 {
        let (code, real) =
            of_json(&edit(&laptop, &provider, "hold", &["--max-cost", "0", "--json"]).run().await);
        assert_eq!((code, counts(&real)), (Some(1), [0, 0, 0, 1]), "{real}");
    }
    assert_eq!(provider.ledger().received.len(), 1);
    // Four commands reported the same failure of the same edit: one letter waits for a decision.
    let list = laptop.retouch(&["dead", "list"]).run().await.stdout;
    assert!(list.contains("\n1 letter in 1 group; "), "{list}");
    let preview =
        laptop.retouch(&["dead", "retry", "--all"]).env("DASHSCOPE_API_KEY", StandIn::KEY).run().await;
    let says = "1 letter would be sent again, for 4 images:\n  \
                3 images: answered by a call of another image, at no further cost\n  \
                1 call of wanx2.1-imageedit would be paid: about 0.14 CNY; 1 of them may have been paid already";
    assert!(preview.stdout.starts_with(says), "{}{}", preview.stdout, preview.stderr);
    let retry = laptop.retouch(&["dead", "retry", "--all", "--yes"]).env("DASHSCOPE_API_KEY", StandIn::KEY);
    let retried = retry.run().await;
    assert!(retried.stdout.starts_with("sent 1 letter again in "), "{}{}", retried.stdout, retried.stderr);
    assert!(retried.stdout.contains("  0 images were hits, 4 wait for their call"), "{}", retried.stdout);
    let (code, real) = of_json(&edit(&laptop, &provider, "hold", &["--json"]).run().await);
    assert_eq!((code, real["failed"].as_u64()), (Some(0), Some(0)), "the decision sends it: {real}");
    assert_eq!(provider.ledger().received.len(), 2);
}

#[tokio::test]
async fn a_dry_run_says_what_may_be_paid_twice() {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("in/1.png", picture(1));
    laptop.write("in/2.png", picture(2));
    provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    // The limit ends it before the unanswered one is sent again.
    let first = edit(&laptop, &provider, "retry", &["--max-cost", "0.28"]).run().await;
    assert_eq!(first.status.code(), Some(1), "{}{}", first.stdout, first.stderr);
    let (code, report) = dry_run(&laptop, &provider, "retry").await;
    assert_eq!((code, &report["calls"], &report["hit"]), (Some(0), &json!(1), &json!(1)), "{report}");
    assert_eq!((&report["possible_duplicates"], &report["possibly_twice"]), (&json!(1), &money("0.14")));
    let text = edit(&laptop, &provider, "retry", &["--dry-run"]).run().await.stdout;
    let says = "2 images: 1 hit, 0 joined, 1 to be edited (about 0.14 CNY; 1 of them may have been paid already, \
                so 0.14 CNY of it perhaps a second time), 0 failed; nothing was done\n";
    assert_eq!(text, says);
}

#[tokio::test]
async fn what_a_command_reports_at_intake_leaves_no_letter() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("small.png", retouch_tests::pictures::picture_as(2, 8, 8, image::ImageFormat::Png));
    let crop = ["edit", "cat.png", "small.png", "-t", "crop", "--param", "width=32", "--param", "height=32"];
    for _ in 0..2 {
        let (code, report) = laptop.ended(&crop).await;
        assert_eq!((code, &report["images"][1]["error"]["code"]), (1, &json!("invalid_params")));
    }
    assert_eq!(laptop.retouch(&["dead", "list"]).run().await.stdout, "no dead letters\n");
}

//! Whole answers to a submit, as providers and gateways really give them: each is read or kept, and never a
//! reason to pay again. Checked against the provider's own books, through `retouch edit` with default
//! settings.
//!
//! `tests/run -E 'test(answers::every)' --success-output immediate` prints the table of docs/reliability.md.

use std::path::Path;

use futures::stream::{self, StreamExt};
use retouch_shared::key::Digest32;
use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{Paid, asked, picture, task};
use retouch_tests::program::{Finished, Program};
use retouch_tests::site::Site;
use retouch_tests::stand_in::{Arm, Fault, OnCreate, Refusal, Shape, StandIn};
use serde_json::{Value, json};

const CONFIG: &str = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n[routes.paint]\nmodel = \"gpt-image-1.5\"\n";

/// A provider's API: edit type, model, and its name in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    OpenAi,
    Task,
    Call,
}

const ALL: &[Way] = &[Way::OpenAi, Way::Task, Way::Call];
const WITH_PICTURE: &[Way] = &[Way::OpenAi, Way::Call];

impl Way {
    const fn edit_type(self) -> &'static str {
        match self {
            Self::OpenAi => "paint",
            Self::Task => "remove_watermark",
            Self::Call => "edit",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI form",
            Self::Task => "DashScope task",
            Self::Call => "DashScope call",
        }
    }
}

/// The expected fate of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    Refused,
    Kept,
    /// Sent at most once more, and then right, or a dead letter.
    Ambiguous,
}

impl Fate {
    const fn words(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "the provider's error, not charged",
            Self::Kept => "body kept, lane blocked",
            Self::Ambiguous => "ambiguous, once more at most",
        }
    }
}

struct Row {
    answer: &'static str,
    fault: OnCreate,
    ways: &'static [Way],
    fate: Fate,
}

const fn row(answer: &'static str, shape: Shape, ways: &'static [Way], fate: Fate) -> Row {
    Row { answer, fault: OnCreate::Shaped(shape), ways, fate }
}

fn rows() -> Vec<Row> {
    use Fate::{Ambiguous, Kept, Refused, Taken};
    let lost = |status: u16| OnCreate::Refuse {
        refusal: Refusal::new(status, "timeout", "A timeout occurred."),
        created: true,
    };
    vec![
        row("the picture itself", Shape::Picture, WITH_PICTURE, Taken),
        row("server-sent events, the last with the picture", Shape::Events, WITH_PICTURE, Taken),
        row("`data:` lines that end with `[DONE]`", Shape::Lines, ALL, Taken),
        row("JSON behind a byte order mark", Shape::Marked, ALL, Taken),
        row("JSON behind white space", Shape::Spaced, ALL, Taken),
        row("`Content-Encoding: gzip`", Shape::Gzip, ALL, Taken),
        row("`Content-Encoding: deflate`", Shape::Deflate, ALL, Taken),
        row("`Content-Encoding: br`", Shape::Brotli, ALL, Taken),
        row("`Content-Encoding: zstd`", Shape::Zstd, ALL, Taken),
        row("`b64_json` in the URL-safe alphabet", Shape::UrlSafe, &[Way::OpenAi], Taken),
        row("`b64_json` without padding", Shape::Unpadded, &[Way::OpenAi], Taken),
        row("a data URI", Shape::DataUri, WITH_PICTURE, Taken),
        row("a relative URL", Shape::Relative, WITH_PICTURE, Taken),
        row("`{\"images\":[{\"url\":…}]}`", Shape::Images, WITH_PICTURE, Taken),
        row("`data` as one object", Shape::DataObject, WITH_PICTURE, Taken),
        row("`data` as texts", Shape::DataStrings, WITH_PICTURE, Taken),
        row("wrapped, `{\"code\":0,\"data\":…}`", Shape::Wrapped, ALL, Taken),
        row("`{\"error\":{\"code\",\"message\"}}` with an unknown code", Shape::OddError, ALL, Refused),
        row("an HTML page", Shape::Html, ALL, Kept),
        row("JSON in a shape that is not known", Shape::Odd, ALL, Kept),
        Row { answer: "524 of a CDN", fault: lost(524), ways: ALL, fate: Ambiguous },
        Row { answer: "504 of a CDN", fault: lost(504), ways: ALL, fate: Ambiguous },
    ]
}

/// A person's program with the provider's keys.
fn program(laptop: &Laptop, provider: &StandIn, arguments: &[&str]) -> Program {
    laptop.write("retouch.toml", CONFIG);
    laptop
        .retouch(arguments)
        .env("DASHSCOPE_API_KEY", StandIn::KEY)
        .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
        .env("OPENAI_API_KEY", StandIn::KEY)
        .env("OPENAI_BASE_URL", provider.openai_url())
        .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
}

async fn edit(laptop: &Laptop, provider: &StandIn, edit_type: &str) -> Finished {
    let arguments = ["edit", "a.png", "--type", edit_type, "--prompt", "make it winter", "--out", "out"];
    program(laptop, provider, &arguments).run().await
}

async fn json_of(laptop: &Laptop, provider: &StandIn, arguments: &[&str]) -> Value {
    let done = program(laptop, provider, arguments).arg("--json").run().await;
    serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr))
}

/// One row for one provider: the calls that were sent.
async fn tried(row: &Row, way: Way) -> usize {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("a.png", picture(1));
    let armed = provider.arm(Arm::from(Fault::Create(row.fault.clone())));
    let always = provider.arm(Fault::Create(row.fault.clone()).always());
    let what = format!("{}, {}", row.answer, way.name());
    let done = edit(&laptop, &provider, way.edit_type()).await;
    let said = format!("{}{}", done.stdout, done.stderr);
    assert_eq!(armed.fired(), 1, "{what}: {}{}", done.stdout, done.stderr);
    let sent = armed.fired() + always.fired();
    assert_eq!(laptop.list("out").len(), usize::from(row.fate == Fate::Taken), "{what}: {said}");
    match row.fate {
        Fate::Taken => assert!(done.status.success(), "{what}: {}", done.stderr),
        Fate::Refused => {
            assert!(!done.status.success() && said.contains("odd_failure"), "{what}: {}", done.stderr)
        }
        Fate::Ambiguous => assert!(!done.status.success(), "{what}: {}", done.stderr),
        Fate::Kept => is_kept(&laptop, &provider, &what).await,
    }
    sent
}

/// The letter names the blob, the file has the body, the lane shows why it is blocked.
async fn is_kept(laptop: &Laptop, provider: &StandIn, what: &str) {
    let letter = json_of(laptop, provider, &["dead", "show", "1", "--save", "kept.bin"]).await;
    assert_eq!(letter["reason"], "unreadable_answer", "{what}: {letter}");
    let kept = laptop.read("kept.bin");
    assert_eq!(letter["kept"]["blob"], Digest32::of(&kept).to_hex(), "{what}: {letter}");
    assert_eq!(letter["kept"]["bytes"], kept.len());
    let text = String::from_utf8(kept).unwrap();
    assert!(text.contains("artwork") || text.contains("reached the gateway"), "{what}: {text}");
    let lanes = json_of(laptop, provider, &["lanes"]).await.to_string();
    assert!(
        lanes.contains("unreadable_answer") && lanes.contains("the provider answered 200"),
        "{what}: {lanes}"
    );
    let again = program(laptop, provider, &["dead", "show", "1", "--save", "kept.bin"]).run().await;
    assert!(again.stderr.contains("is there already"), "{what}: {}", again.stderr);
}

#[tokio::test]
async fn every_answer_of_the_table_is_read_or_kept() {
    let rows = rows();
    let tries = rows.iter().flat_map(|row| row.ways.iter().map(move |way| (row, *way)));
    let tries: Vec<_> = stream::iter(tries)
        .map(async |(row, way)| (row.answer, row.fate, way, tried(row, way).await))
        .buffered(4)
        .collect()
        .await;
    let mut table = vec![
        "| answer | OpenAI form | DashScope task | DashScope call | the picture |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for row in &rows {
        let of = |way: Way| {
            let sent = tries.iter().find(|(answer, _, own, _)| *answer == row.answer && *own == way);
            sent.map_or("–".to_owned(), |(.., sent)| sent.to_string())
        };
        let [openai, task, call] = [Way::OpenAi, Way::Task, Way::Call].map(of);
        table.push(format!("| {} | {openai} | {task} | {call} | {} |", row.answer, row.fate.words()));
    }
    println!("{}", table.join("\n"));
    for (answer, fate, way, sent) in &tries {
        let most = if *fate == Fate::Ambiguous { 2 } else { 1 };
        assert!((1..=most).contains(sent), "{answer}, {}: {sent} calls", way.name());
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for line in table {
        assert!(docs.contains(&line), "docs/reliability.md lacks:\n{line}");
    }
}

/// Neither the same command nor another task sends it again; a person's retry reads the kept body first.
#[tokio::test]
async fn a_kept_answer_is_sent_again_only_by_a_persons_retry() {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("a.png", picture(1));
    let odd = provider.arm(Fault::Create(OnCreate::Shaped(Shape::Odd)));
    assert!(!edit(&laptop, &provider, "paint").await.status.success());
    for _ in 0..2 {
        let again = edit(&laptop, &provider, "paint").await;
        assert!(
            !again.status.success()
                && format!("{}{}", again.stdout, again.stderr).contains("unreadable_answer"),
            "{}",
            again.stderr
        );
    }
    assert_eq!((odd.fired(), provider.ledger().received.len()), (1, 1), "nothing was sent again");
    let preview = program(&laptop, &provider, &["dead", "retry", "1"]).run().await.stdout;
    assert!(preview.contains("1 kept answer: read again first, free"), "{preview}");
    assert!(preview.contains("at most 1 call of gpt-image-1.5 would be paid: about 0.04"), "{preview}");
    let export = program(&laptop, &provider, &["dead", "export"]).run().await.stdout;
    let line: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert!(line["kept"]["blob"].is_string(), "{line}");
}

/// A newer program may read a kept answer: here the call's blob is replaced by a readable one.
#[tokio::test]
async fn a_kept_answer_that_can_be_read_now_costs_nothing() {
    let paid = Paid::of(Site::in_one_file().await).await;
    let odd = paid.provider.arm(Fault::Create(OnCreate::Shaped(Shape::Odd)));
    let _worker = paid.worker("").await;
    let said = "remove the text";
    paid.site.publish(&task("t", "remove_watermark", said, &[picture(1)])).await;
    assert_eq!(paid.site.dead_letters(1).await, ["unreadable_answer t"]);
    let id = paid.provider.ledger().received[0].task_id.clone().unwrap();
    let readable = json!({ "output": { "task_status": "PENDING", "task_id": id } }).to_string();
    let hash = Digest32::of(readable.as_bytes()).to_hex();
    let shelf = paid.site.env.folder().join("blobs/sha256").join(&hash[..2]);
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join(&hash), &readable).unwrap();
    paid.site.execute(&format!("UPDATE image_edit_calls SET answer_hash = '{hash}'")).await;
    let retry = paid.program(&["dead", "retry", "1", "--yes"], "").run().await;
    assert!(retry.status.success(), "{}", retry.stderr);
    paid.site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'", 1).await;
    let row = paid.site.ended("t").await;
    assert!(paid.is_right(&row.images[0], &picture(1), &asked("remove_watermark", said)), "{row:?}");
    assert_eq!((odd.fired(), paid.provider.ledger().received.len(), paid.billed()), (1, 1, 1));
    let rows =
        "SELECT COUNT(*) FROM image_edit_calls WHERE paid_calls = 1 AND answer_hash IS NULL AND held IS NULL";
    assert_eq!(paid.site.number(rows).await, 1, "counted as paid once, and nothing is kept any more");
}

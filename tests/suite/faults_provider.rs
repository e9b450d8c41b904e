//! The faults of the provider stand-in, at random and in combination, by a seed: each task ends, every
//! picture is right, and every bill beyond one an edit is accounted for. Each prints one line.
//!
//! Left out is a cancellation that fails, because workers cancel nothing.

use std::time::{Duration, Instant};

use retouch_tests::kills::books::Books;
use retouch_tests::kills::feed::{Mode, nth};
use retouch_tests::paid::Paid;
use retouch_tests::stand_in::{Armed, Chaos, Fault, Limits, OnCreate, OnRequest, OnResult, OnTask, Refusal};

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "2")];
const ENDED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status NOT IN ('pending', 'processing')";
/// Expected error codes of images: the provider's refusals, and its own failures (which are free) after all
/// retries.
const REFUSED: [&str; 3] = ["DataInspectionFailed", "InternalError", "canceled"];
const WITHIN: Duration = Duration::from_secs(110);
const A_WHILE: Duration = Duration::from_millis(700);

fn inspection() -> Refusal {
    Refusal::new(400, "DataInspectionFailed", "Output data may contain inappropriate content.")
}

/// Around the work: of polls, lists and uploads.
fn requests() -> [OnRequest; 4] {
    let refuse = OnRequest::Refuse;
    [
        OnRequest::Drop,
        refuse(Refusal::throttled()),
        refuse(Refusal::internal_error()),
        OnRequest::Slow(A_WHILE),
    ]
}

/// All faults that end by themselves.
fn chaos(refusal: Refusal) -> Chaos {
    let refuse = |created| OnCreate::Refuse { refusal: Refusal::internal_error(), created };
    let creates = [
        OnCreate::Drop { created: true },
        OnCreate::Drop { created: false },
        refuse(true),
        refuse(false),
        OnCreate::Refuse { refusal, created: false },
        OnCreate::Slow(A_WHILE),
    ];
    let tasks = [
        OnTask::Fail(Refusal::internal_error()),
        OnTask::Fail(inspection()),
        OnTask::Cancel,
        OnTask::Partial(inspection()),
        OnTask::Slow(A_WHILE),
    ];
    let results = [
        OnResult::Drop,
        OnResult::Status(500),
        OnResult::Status(404),
        OnResult::Truncated,
        OnResult::CutOff,
        OnResult::Html,
        OnResult::Slow(A_WHILE),
    ];
    let all = creates.map(|fault| (0.03, Fault::Create(fault))).into_iter();
    let all = all.chain(tasks.map(|fault| (0.03, Fault::Task(fault))));
    let all = all.chain(requests().map(|fault| (0.05, Fault::Poll(fault))));
    let all = all.chain(requests().map(|fault| (0.15, Fault::List(fault))));
    let all = all.chain(requests().map(|fault| (0.05, Fault::Upload(fault))));
    let all = all.chain(results.map(|fault| (0.05, Fault::Result(fault))));
    all.fold(Chaos::new(), |chaos, (probability, fault)| chaos.with(probability, fault))
}

/// One request at each stage hangs until others have gone on.
fn holds(paid: &Paid, faults: &[Fault]) -> Vec<Armed> {
    faults.iter().map(|fault| paid.provider.arm(fault.clone())).collect()
}

async fn let_go(held: Vec<Armed>) {
    for armed in &held {
        armed.held(1).await;
    }
    held.iter().for_each(Armed::release);
}

/// The books of so many tasks, after the last has ended.
async fn books(paid: &Paid, mode: Mode, tasks: u64) -> Books {
    let count = i64::try_from(tasks).unwrap();
    paid.site.counts_within(WITHIN, ENDED, count).await;
    paid.provider.clear_faults();
    paid.site.nothing_left().await;
    Books::read(paid, mode, tasks).await
}

fn report(fault: &str, what: &str, struck: usize, books: Books, took: Duration) {
    // A create whose answer is lost counts as paid, and its replacement may be refused: lost are only billed,
    // failed calls whose answer arrived.
    let books = &Books { paid_lost: books.unheard.saturating_sub(books.withheld), ..books };
    assert_eq!(books.broken(), Vec::<String>::new(), "{books}");
    let allowed = |code: &String| REFUSED.contains(&code.as_str());
    assert!(books.errors.keys().all(allowed), "{books}");
    assert!(books.extra <= books.possible_duplicates, "{books}");
    let (edits, seconds) = (books.edits, took.as_secs_f64());
    println!(
        "fault | {fault} | {what}: {struck} faults over {edits} edits, of whose answers {} were withheld | {seconds:.1} s in \
         all | 0 lost | {} paid twice, {} counted as possible",
        books.withheld, books.extra, books.possible_duplicates
    );
}

async fn publish(paid: &Paid, mode: Mode, tasks: std::ops::Range<u64>) {
    for n in tasks {
        paid.site.publish(&nth(mode, n).2).await;
    }
}

#[tokio::test]
async fn every_fault_of_a_provider_whose_list_is_asked_pays_nothing_twice() {
    let paid = Paid::on_servers().await;
    let toml = Mode::AsyncList.toml().replacen("[editors.dashscope]\npoll_seconds = 0.1\n", "", 1);
    let toml = toml.replacen("list_settles_seconds = 3\n", "list_settles_seconds = 0.5\n", 1);
    let struck = paid.provider.chaos(12, chaos(Refusal::throttled()));
    let _workers = [paid.worker_with(&toml, &HURRY).await, paid.worker_with(&toml, &HURRY).await];
    let begun = Instant::now();
    let lost = paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }).times(2));
    let held = holds(&paid, &[Fault::List(OnRequest::Hold)]);
    publish(&paid, Mode::AsyncList, 0..10).await;
    let_go(held).await;
    lost.struck(2).await;
    let books = books(&paid, Mode::AsyncList, 10).await;
    let took = begun.elapsed();
    assert_eq!(books.extra, 0, "{books}");
    report("provider-list", "the same, and of lists, with `ask_list`", struck.fired() + 3, books, took);
}

#[tokio::test]
async fn every_fault_of_providers_that_answer_at_once_is_accounted_for() {
    let paid = Paid::on_servers().await;
    paid.provider.set(|settings| settings.limits = Limits::Off);
    let toml = Mode::Sync.toml().replacen("[editors.dashscope]\npoll_seconds = 0.1\n", "", 1);
    let struck = paid.provider.chaos(13, chaos(Refusal::throttled()));
    let _workers = [paid.worker_with(&toml, &HURRY).await, paid.worker_with(&toml, &HURRY).await];
    let begun = Instant::now();
    let held =
        holds(&paid, &[Fault::Create(OnCreate::Hold { created: true }), Fault::Result(OnResult::Hold)]);
    publish(&paid, Mode::Sync, 0..24).await;
    let_go(held).await;
    let books = books(&paid, Mode::Sync, 24).await;
    let took = begun.elapsed();
    report(
        "provider-sync",
        "every fault of synchronous calls (DashScope, OpenAI) and results",
        struck.fired() + 2,
        books,
        took,
    );
}

/// Pictures are first uploaded to the provider's own storage, a separate request with faults of its own. One
/// task runs for ever; a day later the provider no longer knows its id.
#[tokio::test]
async fn every_fault_of_uploads_and_an_endless_task_are_accounted_for() {
    const TASKS: u64 = 16;
    let paid = Paid::on_servers().await;
    paid.provider.set(|settings| settings.limits = Limits::Off);
    let brisk = "[editors.dashscope]\npoll_seconds = 0.1\n";
    let toml = Mode::Async.toml().replacen(brisk, "input = \"oss\"\n", 1);
    let workers = [paid.worker_with(&toml, &HURRY).await, paid.worker_with(&toml, &HURRY).await];
    let begun = Instant::now();
    let never = paid.provider.arm(Fault::Task(OnTask::Never));
    publish(&paid, Mode::Async, 0..1).await;
    // Before the others, whose answers may be lost: its id is known.
    never.struck(1).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    let struck = paid.provider.chaos(14, chaos(Refusal::throttled()));
    let held = holds(&paid, &[Fault::Upload(OnRequest::Hold), Fault::Poll(OnRequest::Hold)]);
    publish(&paid, Mode::Async, 1..TASKS).await;
    let_go(held).await;
    let one_is_left = format!(
        "SELECT (SELECT COUNT(*) FROM image_edit_tasks) = {TASKS} AND \
            (SELECT COUNT(*) FROM image_edit_calls WHERE state NOT IN ('done', 'failed')) = 1 AND \
            (SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted') = 1"
    );
    paid.site.counts_within(WITHIN, &one_is_left, 1).await;
    for mut worker in workers {
        worker.kill9();
    }
    // Time is the database's, and the provider's own.
    const DAY: u64 = 25;
    let submitted = format!(
        "UPDATE image_edit_calls SET submitted_at = submitted_at - INTERVAL {DAY} HOUR WHERE state = 'submitted'"
    );
    paid.site.execute(&submitted).await;
    paid.provider.advance(Duration::from_secs(DAY * 60 * 60));
    let _workers = [paid.worker_with(&toml, &HURRY).await, paid.worker_with(&toml, &HURRY).await];
    let books = books(&paid, Mode::Async, TASKS).await;
    let took = begun.elapsed();
    assert!(books.possible_duplicates > 0, "the one that never ended was sent again: {books}");
    report(
        "provider-uploads",
        "uploads, polled tasks and results, and one task that never ends",
        struck.fired() + 3,
        books,
        took,
    );
}

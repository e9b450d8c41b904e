//! `retouch top` and the replicas that report themselves: many processes in one view.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use retouch_tests::laptop::Laptop;
use retouch_tests::program::{Program, Running};
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use serde_json::{Value, json};

on_both! {
    top_shows_replicas_lanes_queues_images_money_and_failures;
    a_killed_replica_drops_out_and_a_stopped_one_leaves_at_once;
}

async fn look(site: &Site) -> Value {
    let done = site.program(&["top", "--json"]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

/// What top shows once it shows so many replicas, and how long that took.
async fn replicas(site: &Site, count: usize) -> (Value, Duration) {
    let began = Instant::now();
    let what = format!("{count} replicas in top");
    let seen = wait::until(&what, async || {
        let seen = look(site).await;
        (seen["replicas"].as_array().unwrap().len() == count).then_some(seen)
    });
    (seen.await, began.elapsed())
}

async fn top_shows_replicas_lanes_queues_images_money_and_failures(site: Site) {
    let worker = site.worker_with(&[("RETOUCH_NAME", "Wörker 1")]).await;
    site.publish(&task("paid", json!({}), &[seed(1), seed(1)])).await;
    site.ended("paid").await;
    site.publish(&task("hit", json!({}), &[seed(1), json!({"data": "data:,x"})])).await;
    site.ended("hit").await;
    site.publish(&task("open", json!({"gate": "go"}), &[seed(2)])).await;
    site.called(2).await;
    let seen = wait::until("the worker in its call", async || {
        let seen = look(&site).await;
        let sending = seen["replicas"][0]["doing"]["calls"]["sending"] == 1;
        sending.then_some(seen)
    });
    let seen = seen.await;
    let replica = &seen["replicas"][0];
    assert_eq!(
        (&replica["name"], &replica["version"]),
        (&json!("Wörker 1"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(replica["doing"]["draining"], false);
    let queue = |name: &str| {
        let queues = seen["queues"].as_array().unwrap();
        queues
            .iter()
            .find(|queue| queue["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {queues:?}"))
            .clone()
    };
    for name in ["tasks", "edits.double", "dead"] {
        let queue = queue(name);
        assert_eq!((&queue["ready"], &queue["consumers"]), (&json!(0), &json!(1)), "{queue}");
    }
    let lanes = seen["lanes"].as_array().unwrap();
    let lane = lanes.iter().find(|lane| lane["name"] == "double").unwrap();
    assert_eq!((&lane["state"], &lane["in_flight"]), (&json!("open"), &json!(1)));
    let minute = &seen["images"]["minute"];
    let counts =
        ["hit", "joined", "paid", "failed", "hit_percent"].map(|field| minute[field].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 1, 1, 33]);
    assert_eq!((&minute["money"][0]["paid"], &minute["money"][0]["saved"]), (&json!("0.14"), &json!("0.28")));
    assert_eq!(seen["images"]["hour"], *minute);
    assert_eq!(seen["failures"]["open"], 1);
    assert_eq!(seen["failures"]["last"][0]["task_id"], "hit");

    // The same as text, also without `--once`: the output is not a terminal.
    let text = site.program(&["top"]).run().await;
    assert!(text.status.success(), "{}", text.stderr);
    for part in ["1 replica", "Wörker 1", "last minute", "33 %", "edits.double", "open", "failures (1 open)"]
    {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert!(!text.stdout.contains('\u{1b}'), "{:?}", text.stdout);
    site.open_gate("go");
    site.ended("open").await;
    site.nothing_left().await;
    drop(worker);
}

async fn a_killed_replica_drops_out_and_a_stopped_one_leaves_at_once(site: Site) {
    let [mut killed, ends] = site.workers().await;
    let (_, _) = replicas(&site, 2).await;
    killed.kill9();
    site.notice_a_kill().await;
    let (_, took) = replicas(&site, 1).await;
    println!("a killed replica was dropped after {took:?}");
    assert!(took < Duration::from_secs(25), "{took:?}");
    ends.terminate();
    assert!(ends.exit().await.success());
    assert!(look(&site).await["replicas"].as_array().unwrap().is_empty());
    assert_eq!(
        site.number("SELECT COUNT(*) FROM replicas").await,
        1,
        "the killed one's row, until the sweep"
    );
}

#[tokio::test]
async fn a_broker_that_is_gone_hides_nothing_of_what_the_database_says() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let (_, _) = replicas(&site, 1).await;
    let done = site.program(&["top", "--json"]).env("AMQP_URL", "amqp://127.0.0.1:1").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    let seen: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(seen["queues"][0]["ready"], Value::Null);
    assert!(seen["queues"][0]["error"].as_str().unwrap().contains("unreachable"), "{seen}");
    assert_eq!(seen["replicas"].as_array().unwrap().len(), 1);
}

/// A worker whose reports fail for as long as the table is away.
#[tokio::test]
async fn a_report_that_fails_disturbs_no_work() {
    let site = Site::on_servers().await;
    let [worker] = site.workers().await;
    site.execute("RENAME TABLE replicas TO away").await;
    worker.line("cannot report").await;
    site.publish(&task("t", json!({}), &[seed(1)])).await;
    assert_eq!(site.ended("t").await.counts, [0, 0, 1, 0]);
    site.execute("RENAME TABLE away TO replicas").await;
    replicas(&site, 1).await;
    worker.terminate();
    assert!(worker.exit().await.success());
}

/// `retouch top` at a terminal of its own; what it writes goes into a file, what it reads comes out of another.
struct AtTerminal {
    running: Running,
    folder: std::path::PathBuf,
    size: (u16, u16),
}

impl AtTerminal {
    fn start(laptop: &Laptop, (columns, rows): (u16, u16)) -> Self {
        let folder = laptop.home().to_owned();
        let line = format!(
            "rm -f keys; mkfifo keys; exec 3<>keys; exec script -qfec 'stty cols {columns} rows {rows}; echo $$ > pid; \
             exec \"$RETOUCH\" top --interval 0.2' screen <&3"
        );
        let program = Program::other("/bin/sh", &["-c", &line]).within(laptop.home());
        let program = program.env("RETOUCH", retouch_tests::program::binary()).env("TERM", "xterm-256color");
        Self { running: program.start(), folder, size: (rows, columns) }
    }

    fn parser(&self) -> vt100::Parser {
        let written = std::fs::read(self.folder.join("screen")).unwrap_or_default();
        // The first line is what `script` says of itself.
        let begin = written.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut parser =
            vt100::Parser::new(self.size.0.try_into().unwrap(), self.size.1.try_into().unwrap(), 0);
        parser.process(&written[begin..]);
        parser
    }

    /// What is on the screen once `part` is.
    async fn shows(&self, part: &str) -> String {
        let mut last = String::new();
        let shown = wait::poll(wait::SOON, async || {
            last = self.parser().screen().contents();
            last.contains(part).then(|| last.clone())
        });
        match shown.await {
            Some(screen) => screen,
            None => panic!("{part:?} was not shown; the screen was:\n{last}\n{}", self.running.stderr()),
        }
    }

    fn press(&self, keys: &str) {
        let fifo = std::fs::OpenOptions::new().write(true).open(self.folder.join("keys"));
        fifo.unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(Path::new(&self.folder).join("pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
    }

    /// It has ended well, and the terminal is as it was.
    async fn is_given_back(&self) {
        assert!(self.running.exit().await.success(), "{}", self.running.stderr());
        let parser = self.parser();
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the terminal was not given back");
    }
}

/// A laptop whose database has a cached picture, and a lane.
async fn laptop() -> Laptop {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    for _ in 0..2 {
        let done = laptop.retouch(&["edit", "cat.png", "-t", "double", "--out", "out"]).run().await;
        assert!(done.status.success(), "{}", done.stderr);
    }
    laptop
}

#[tokio::test]
async fn top_draws_answers_keys_and_restores_the_terminal() {
    let laptop = laptop().await;
    let top = AtTerminal::start(&laptop, (80, 24));
    let screen = top.shows("last minute").await;
    for part in ["Retouch ", "0 replicas", "images", "queues", "lanes", "double", "50 %", "q end"] {
        assert!(screen.contains(part), "{part} is not there:\n{screen}");
    }
    assert!(top.parser().screen().alternate_screen());
    top.shows("since ").await;
    top.press("?");
    top.shows("pauses the lane, or resumes it").await;
    top.press("?");
    top.shows("last minute").await;
    top.press("p");
    top.shows("for all replicas? y: yes").await;
    top.press("y");
    top.shows("paused by a person").await;
    top.press("py");
    let open = wait::poll(wait::SOON, async || {
        let screen = top.parser().screen().contents();
        (!screen.contains("paused by a person") && screen.contains("last minute")).then_some(())
    });
    assert!(open.await.is_some(), "{}", top.parser().screen().contents());
    // A worker comes, and goes.
    laptop.picture("dog.png", 2);
    let edit = ["edit", "dog.png", "-t", "double", "--param", "gate=go", "--out", "out"];
    let edit = laptop.retouch(&edit).start();
    top.shows("1 replica ").await;
    laptop.open_gate("go");
    assert!(edit.exit().await.success());
    top.shows("0 replicas").await;
    top.press("q");
    top.is_given_back().await;
}

#[tokio::test]
async fn a_signal_ends_top_and_gives_the_terminal_back() {
    let laptop = laptop().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let top = AtTerminal::start(&laptop, (60, 12));
        let screen = top.shows("images").await;
        assert!(screen.lines().count() <= 12, "{screen}");
        top.signal(signal);
        top.is_given_back().await;
    }
    let top = AtTerminal::start(&laptop, (100, 30));
    top.shows("images").await;
    top.press("\u{3}");
    top.is_given_back().await;
}

/// One edit takes this long, so the number of workers decides how many are made in a second.
const TAKES: u64 = 1000;
/// Calls at a time in one worker.
const AT_A_TIME: usize = 4;
/// For which a throughput is measured.
const PHASE: Duration = Duration::from_secs(8);

async fn named(site: &Site, name: &str) -> Running {
    let file = site.env.folder().join("retouch.toml");
    std::fs::write(&file, format!("[lanes.double]\nconcurrency = {AT_A_TIME}\n")).unwrap();
    let worker = site.worker().env("RETOUCH_CONFIG", file).env("RETOUCH_NAME", name).start();
    working(&worker).await;
    worker
}

const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";

/// Tasks that are completed in a second, over [`PHASE`].
async fn throughput(site: &Site) -> f64 {
    let (began, before) = (Instant::now(), site.number(COMPLETED).await);
    tokio::time::sleep(PHASE).await;
    let made = site.number(COMPLETED).await - before;
    f64::from(i32::try_from(made).unwrap()) / began.elapsed().as_secs_f64()
}

#[tokio::test]
async fn from_one_replica_to_four_and_back_the_throughput_follows() {
    const TASKS: u64 = 320;
    let site = Site::on_servers().await;
    let first = named(&site, "worker-1").await;
    for n in 0..TASKS {
        site.publish(&task(&format!("t-{n}"), json!({"delay_ms": TAKES}), &[seed(n)])).await;
    }
    site.counts_within(wait::SOON, "SELECT COUNT(*) FROM image_edit_tasks", 320).await;
    let (_, shown) = replicas(&site, 1).await;
    let one = throughput(&site).await;
    println!("1 replica: {one:.1} tasks a second; top showed it within {:.1} s", shown.as_secs_f64());

    let more =
        [named(&site, "worker-2").await, named(&site, "worker-3").await, named(&site, "worker-4").await];
    let (_, shown) = replicas(&site, 4).await;
    let four = throughput(&site).await;
    println!("4 replicas: {four:.1} tasks a second; top showed them within {:.1} s", shown.as_secs_f64());
    println!("{}", site.program(&["top", "--once"]).run().await.stdout);

    for worker in &more {
        worker.terminate();
    }
    let (_, shown) = replicas(&site, 1).await;
    let back = throughput(&site).await;
    println!("1 replica again: {back:.1} tasks a second; top showed it within {:.1} s", shown.as_secs_f64());
    for worker in &more {
        assert!(worker.exit().await.success());
    }
    assert!(four > 2.5 * one, "four made {four:.1} a second, one {one:.1}");
    assert!(back < 0.5 * four, "one made {back:.1} a second, four {four:.1}");
    // The rest, by four again.
    let _more =
        [named(&site, "worker-5").await, named(&site, "worker-6").await, named(&site, "worker-7").await];
    site.counts_within(Duration::from_secs(90), COMPLETED, 320).await;
    assert_eq!(site.calls().len(), 320, "nothing was made twice");
    assert!(site.dead_letters(0).await.is_empty());
    site.nothing_left().await;
    drop(first);
}

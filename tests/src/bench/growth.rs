//! Growth: the same statements over ever more rows, more workers, more images a task.

use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use retouch_shared::key::Digest32;
use retouch_worker::store::{DeadPayload, NewTask, Planned, Registered, Store};

use super::contender::{Contender as _, turn};
use super::filled::{Filled, image, is_row, key};
use super::gallery::Gallery;
use super::paid_site::percentiles;
use super::plan::Plan;
use super::report::{Cell, Check, Report, Section};
use super::retouch::Retouch;
use super::run::say;
use super::stats::Spread;

/// Images of the task that is looked up and committed beside the task of one.
const MANY: u64 = 64;
/// Rows of each kind that a sweep looks at.
const SWEEP: u32 = 200;

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    rows(plan, report).await;
    workers(plan, report).await;
    images(plan, report).await;
    one_entry(plan, report).await;
}

/// One size, and the times that its statements took.
struct Sized {
    rows: u64,
    store: Store,
    times: [Vec<Duration>; STEPS.len()],
}

const STEPS: [&str; 5] =
    ["lookup_of_1_ms", "lookup_of_64_ms", "commit_of_1_ms", "commit_of_64_ms", "sweep_ms"];

/// All sizes exist at once and take turns, so that a disturbance affects all alike.
async fn rows(plan: &Plan, report: &mut Report) {
    let server = Filled::start(plan).await;
    let mut sizes = Vec::new();
    for rows in plan.sizes() {
        let store = server.retouch(&database(rows), rows).await;
        sizes.push(Sized { rows, store, times: Default::default() });
    }
    let mut dice = StdRng::seed_from_u64(1);
    let turns = plan.pick(2000, 20);
    for number in 0..turns + turns / 10 {
        // The first tenth warms connections and prepared statements.
        let counts = number >= turns / 10;
        for size in &mut sizes {
            let took = size.step(number, &mut dice).await;
            for (times, took) in size.times.iter_mut().zip(took).filter(|_| counts) {
                times.push(took);
            }
        }
    }
    let title = "The store's steps over ever more rows: median and 99th percentile in milliseconds";
    let mut section = Section::new("growth_rows", title);
    for size in &sizes {
        let mut row = vec![("cache_rows", Cell::Count(size.rows))];
        row.extend(STEPS.iter().zip(&size.times).map(|(name, times)| {
            let (median, p99) = percentiles(times);
            (*name, Cell::Text(format!("{median:.3} / {p99:.3}")))
        }));
        section.rows.push(row);
        size.store.close().await;
        server.drop_database(&database(size.rows)).await;
    }
    section.note(format!(
        "{turns} of each, sizes in turns. Random rows, one lookup in ten of a picture that is not there. Buffer pool {} MiB, read once \
         before. A commit is a task of hits as `register` writes it; a sweep is one look for due calls and events, of which there are none.",
        server.memory
    ));
    report.sections.push(section);
    if let (false, [first, .., last]) = (plan.quick, &*sizes) {
        let ratio = percentiles(&last.times[0]).1 / percentiles(&first.times[0]).1;
        let what = format!("growth: p99 of a lookup at {} rows to that at {}", last.rows, first.rows);
        report.checks.push(Check::at_most(&what, ratio, 1.5));
    }
}

fn database(rows: u64) -> String {
    format!("rows_{rows}")
}

impl Sized {
    /// Each step once, with its duration.
    async fn step(&self, number: u64, dice: &mut StdRng) -> [Duration; STEPS.len()] {
        let mut some =
            |count: u64| -> Vec<u64> { (0..count).map(|_| dice.random_range(1..=self.rows)).collect() };
        let (one, mut many) = (some(1), some(MANY));
        many.sort_unstable();
        many.dedup();
        let looked_up = self.look_up(&one, number.is_multiple_of(10)).await;
        let looked_up_many = self.look_up(&many, false).await;
        let committed = self.commit(&format!("one-{number}"), &one).await;
        let committed_many = self.commit(&format!("many-{number}"), &many).await;
        let began = Instant::now();
        assert!(self.store.take_due_calls(SWEEP).await.unwrap().is_empty());
        assert!(
            self.store
                .take_due_events(SWEEP)
                .await
                .unwrap()
                .iter()
                .all(|task| !task.task_id.starts_with("old-"))
        );
        [looked_up, looked_up_many, committed, committed_many, began.elapsed()]
    }

    async fn look_up(&self, rows: &[u64], absent: bool) -> Duration {
        let keys: Vec<_> = rows.iter().map(|row| key(if absent { row + self.rows } else { *row })).collect();
        let began = Instant::now();
        let found = self.store.lookup(&keys).await.unwrap();
        let took = began.elapsed();
        assert_eq!(found.len(), if absent { 0 } else { rows.len() });
        for row in rows.iter().filter(|_| !absent) {
            is_row(&found[&key(*row)], *row);
        }
        took
    }

    async fn commit(&self, id: &str, rows: &[u64]) -> Duration {
        let keys: Vec<_> = rows.iter().map(|row| key(*row)).collect();
        let found = self.store.lookup(&keys).await.unwrap();
        let hit = |row: &u64| Planned::Hit { image_hash: image(*row), result: found[&key(*row)].clone() };
        let task = task(id, rows.iter().map(hit).collect());
        let began = Instant::now();
        let registered = self.store.register(&task).await.unwrap();
        let took = began.elapsed();
        let Registered::New { task, wake } = registered else { panic!("{id} was there before") };
        assert!(wake.is_empty() && task.hit as usize == rows.len());
        // As after a confirmed event.
        self.store.event_sent(id, task.status, 0).await.unwrap();
        took
    }
}

fn task(id: &str, images: Vec<Planned>) -> NewTask {
    NewTask {
        task_id: id.to_owned(),
        request_hash: Digest32::of(id.as_bytes()),
        edit_type: "remove_watermark".to_owned(),
        prompt: String::new(),
        model: "wanx2.1-imageedit".to_owned(),
        params: Default::default(),
        inputs: images.iter().map(|_| "https://pictures.example/1.png".to_owned()).collect(),
        images,
        began: Instant::now(),
        metadata: None,
        reply_to: None,
        correlation_id: None,
        currency: "CNY".to_owned(),
        payload: DeadPayload::Inline(Bytes::new()),
        trace: None,
        again: None,
        told: false,
    }
}

/// Tasks of one hit over more and more processes.
async fn workers(plan: &Plan, report: &mut Report) {
    let numbers: &[usize] = if plan.quick { &[1, 2] } else { &[1, 2, 4, 8] };
    let gallery = shop(plan).await;
    let mut contenders = Vec::new();
    for processes in numbers {
        contenders.push(Grown::of(processes.to_string(), Retouch::new(*processes).await, &gallery));
    }
    let title = "All-hit tasks a second over more worker processes on this machine";
    let mut section = Section::new("growth_workers", title);
    for (grown, turns) in contenders.iter().zip(in_turns(plan, &contenders).await) {
        section.rows.push(vec![
            ("workers", Cell::Text(grown.name.clone())),
            ("tasks_a_second", spread(&turns, |turn| turn.rate)),
        ]);
    }
    report.sections.push(section);
}

/// Tasks of more and more hits.
async fn images(plan: &Plan, report: &mut Report) {
    let numbers: &[u64] = if plan.quick { &[1, 3] } else { &[1, 4, 16, 64] };
    let gallery = shop(plan).await;
    let mut contenders = Vec::new();
    for images in numbers {
        let retouch = Retouch::new(1).await.of_images(*images);
        contenders.push(Grown::of(images.to_string(), retouch, &gallery));
    }
    let mut section = Section::new("growth_images", "All-hit tasks of more and more images, one worker");
    let all = in_turns(plan, &contenders).await;
    for ((grown, turns), images) in contenders.iter().zip(all).zip(numbers) {
        #[expect(clippy::cast_precision_loss, reason = "64 at most")]
        let images = *images as f64;
        section.rows.push(vec![
            ("images_a_task", Cell::Text(grown.name.clone())),
            ("tasks_a_second", spread(&turns, |turn| turn.rate)),
            ("images_a_second", spread(&turns, |turn| turn.rate * images)),
        ]);
    }
    report.sections.push(section);
}

/// Tasks that all want the same result, beside tasks of many: every commit of every worker counts on one row.
async fn one_entry(plan: &Plan, report: &mut Report) {
    let (many, one) = (shop(plan).await, Rc::new(Gallery::start(1).await));
    let numbers: &[usize] = if plan.quick { &[2] } else { &[1, 4] };
    let mut contenders = Vec::new();
    for processes in numbers {
        for (what, gallery) in [("many entries", &many), ("one entry", &one)] {
            let name = format!("{processes}, {what}");
            contenders.push(Grown::of(name, Retouch::new(*processes).await, gallery));
        }
    }
    let title = "All-hit tasks of one hot entry, and the locks of the database that they waited for";
    let mut section = Section::new("growth_one_entry", title);
    for (grown, turns) in contenders.iter().zip(in_turns(plan, &contenders).await) {
        section.rows.push(vec![
            ("workers", Cell::Text(grown.name.clone())),
            ("tasks_a_second", spread(&turns, |turn| turn.rate)),
            ("lock_waits_in_1000", spread(&turns, |turn| turn.lock_waits)),
            ("deadlocks", Cell::Count(turns.iter().map(|turn| turn.deadlocks).sum())),
        ]);
        if !plan.quick {
            let deadlocks: u64 = turns.iter().map(|turn| turn.deadlocks).sum();
            #[expect(clippy::cast_precision_loss, reason = "none, or the check fails")]
            report.checks.push(Check::at_most(
                &format!("growth: deadlocks, {}", grown.name),
                deadlocks as f64,
                0.0,
            ));
        }
    }
    report.sections.push(section);
}

/// What a shop sells all day.
async fn shop(plan: &Plan) -> Rc<Gallery> {
    Rc::new(Gallery::start(plan.pick(100, 5)).await)
}

/// One of those that take turns.
struct Grown {
    name: String,
    retouch: Retouch,
    gallery: Rc<Gallery>,
}

/// The result of one turn.
struct Turned {
    rate: f64,
    /// For a thousand tasks.
    lock_waits: f64,
    deadlocks: u64,
}

impl Grown {
    fn of(name: String, retouch: Retouch, gallery: &Rc<Gallery>) -> Self {
        Self { name, retouch, gallery: Rc::clone(gallery) }
    }

    /// What the server has counted since its start.
    async fn counted(&self, name: &str) -> u64 {
        let sql = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name = ?";
        let counted = sqlx::query_scalar::<_, i64>(sql).bind(name).fetch_one(self.retouch.pool());
        u64::try_from(counted.await.unwrap()).unwrap()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    async fn turn(&self, tasks: Range<u64>) -> Turned {
        const WAITS: &str = "Innodb_row_lock_waits";
        const DEADLOCKS: &str = "Innodb_deadlocks";
        let count = tasks.end - tasks.start;
        let before = (self.counted(WAITS).await, self.counted(DEADLOCKS).await);
        let turn = turn(&self.retouch, &self.gallery, tasks).await;
        let waits = self.counted(WAITS).await - before.0;
        let deadlocks = self.counted(DEADLOCKS).await - before.1;
        Turned { rate: turn.rate, lock_waits: waits as f64 * 1000.0 / count as f64, deadlocks }
    }
}

async fn in_turns(plan: &Plan, contenders: &[Grown]) -> Vec<Vec<Turned>> {
    for grown in contenders {
        grown.retouch.warm(&grown.gallery).await;
    }
    let (mut next, mut counts) = (0, vec![plan.pick(200, 10); contenders.len()]);
    let mut turns: Vec<Vec<Turned>> = contenders.iter().map(|_| Vec::new()).collect();
    // The first round is to see how many tasks a turn needs.
    for round in 0..=plan.rounds {
        for (at, grown) in contenders.iter().enumerate() {
            let turn = grown.turn(next..next + counts[at]).await;
            next += counts[at];
            counts[at] = plan.tasks(turn.rate, plan.pick(50, 10));
            if round > 0 {
                say(&format!("growth, round {round}: {}: {:.0} tasks/s", grown.name, turn.rate));
                turns[at].push(turn);
            }
        }
    }
    turns
}

fn spread(turns: &[Turned], of: impl Fn(&Turned) -> f64) -> Cell {
    Cell::Spread(Spread::of(&turns.iter().map(of).collect::<Vec<_>>()))
}

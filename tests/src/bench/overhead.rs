//! The overhead of Retouch on a paid call: from the task's publishing to its event, without the provider's
//! own time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::bare::Bare;
use super::paid_site::{Mode, PaidSite, arrival, arrivals, percentile_cells, percentiles};
use super::plan::Plan;
use super::report::{Cell, Check, Report, Section};
use super::run::settled;
use crate::broker::Listener;

/// Duration of a call at the provider.
const TAKES: Duration = Duration::from_secs(5);
/// Calls that are in flight at a time.
const MANY: u64 = 100;
/// For a provider without a limit of queries.
const UNLIMITED: &str = "[editors.dashscope]\npolls_per_second = 1000\n";

/// So far from the worker's pictures are those of the bare loop.
const BARE: u64 = 1_000_000;

/// Between two hits, where the worker answers some beside.
const HITS: Duration = Duration::from_millis(50);

/// One row of the report.
struct Measured {
    mode: String,
    in_flight: u64,
    /// At the provider; none where they came one by one.
    most: Option<u64>,
    overheads: Vec<Duration>,
    /// The most that the median may be, in milliseconds.
    limit: Option<f64>,
}

/// The limit of the median.
const LIMIT: Option<f64> = Some(50.0);

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    let takes = plan.pick(TAKES, Duration::from_millis(400));
    let title = format!(
        "Overhead on a paid call of {:.1} s: task published to event, less the call",
        takes.as_secs_f64()
    );
    let mut section = Section::new("overhead", &title);
    for mode in [Mode::Sync, Mode::Async] {
        for measured in measure_mode(plan, mode, takes).await {
            let [median, p99] = percentile_cells(&measured.overheads);
            let (name, in_flight) = (measured.mode, measured.in_flight);
            section.rows.push(vec![
                ("mode", Cell::Text(name.clone())),
                ("in_flight", Cell::Count(in_flight)),
                ("most_in_flight", measured.most.map_or(Cell::None("one by one"), Cell::Count)),
                ("calls", Cell::Count(measured.overheads.len() as u64)),
                median,
                p99,
            ]);
            if let Some(limit) = measured.limit.filter(|_| !plan.quick) {
                let what = format!("overhead, {name}, {in_flight} in flight: median in ms");
                report.checks.push(Check::at_most(&what, percentiles(&measured.overheads).0, limit));
            }
        }
    }
    section.note(
        "Every call is a new picture of 512 × 512 pixels inside its message. Asynchronous calls are polled in the default rhythm, 20 polls a second at most where nothing else is said: as many as end with 100 in flight. A worker's first are asked after in vain before it knows how long they \
         take, and a line that has formed by then gets no shorter at that rate. \
         With many in flight a task comes every call's time divided by their number; those that come while as many are under way count. \
         One by one, everything on the machine rests for the seconds that the provider takes; the bare loop, which does nothing but what cannot be left out and takes turns with the worker, says what \
         that costs here, and 20 hits a second keep the machine awake. The provider's own time is the work's, and what the stand-in needs to make the picture before it; that it reads requests, \
         answers polls and sends pictures is a part of the overhead.",
    );
    report.sections.push(section);
}

async fn measure_mode(plan: &Plan, mode: Mode, takes: Duration) -> Vec<Measured> {
    let (many, few) = (plan.pick(MANY, 2), plan.pick(plan.rounds as u64 * 4, 1));
    let name = mode.name();
    let site = PaidSite::new(takes).await;
    let worker = site.worker(Some(u16::try_from(many * 2).unwrap())).await;
    // First many: nothing is opened, and little prepared, for the first time in what comes one by one.
    let steady = steadily(&site, mode, takes, 0, many).await;
    let alone = many * 3;
    let mut measured = match mode {
        Mode::Sync => beside_the_bare_loop(&site, mode, takes, alone, few).await,
        Mode::Async => vec![one_by_one(&site, mode, takes, alone, few).await],
    };
    measured.push(beside_hits(&site, mode, takes, alone + few, few).await);
    if mode == Mode::Async {
        let mode_name = format!("{name}, the worker's first");
        measured.push(Measured { mode: mode_name, ..steady });
        measured.push(steadily(&site, mode, takes, alone + few * 2, many).await);
    } else {
        measured.push(steady);
    }
    drop(worker);
    if mode == Mode::Async {
        let site = PaidSite::new(takes).await;
        let _worker = site.worker_with(Some(u16::try_from(many * 2).unwrap()), UNLIMITED).await;
        let mode_name = format!("{name}, 1,000 polls a second");
        measured.push(Measured { mode: mode_name, ..steadily(&site, mode, takes, 0, many).await });
    }
    measured
}

/// The next begins when the one before it has ended.
async fn one_by_one(site: &PaidSite, mode: Mode, takes: Duration, first: u64, calls: u64) -> Measured {
    let mut events = site.events().await;
    let mut overheads = Vec::new();
    for seed in first..first + calls {
        overheads.push(one(site, &mut events, mode, takes, seed).await);
    }
    site.right(mode, first..first + calls).await;
    settled(&site.env).await;
    alone(mode.name(), overheads, LIMIT)
}

async fn one(site: &PaidSite, events: &mut Listener, mode: Mode, takes: Duration, seed: u64) -> Duration {
    let task = mode.task(seed);
    let began = Instant::now();
    site.publish(&task).await;
    arrival(events, &format!("paid-{seed}")).await;
    site.overhead(mode, seed, began.elapsed(), takes)
}

/// The provider's count of those that were open at once goes on from before.
fn alone(mode: &str, overheads: Vec<Duration>, limit: Option<f64>) -> Measured {
    Measured { mode: mode.to_owned(), in_flight: 1, most: None, overheads, limit }
}

/// As [`one_by_one`], while the worker answers hits.
async fn beside_hits(site: &PaidSite, mode: Mode, takes: Duration, first: u64, calls: u64) -> Measured {
    let hits = async {
        let mut ticks = interval(HITS);
        for hit in 0u64.. {
            ticks.tick().await;
            site.publish(&mode.task_as(&format!("hit-{hit}"), 0)).await;
        }
    };
    let measured = tokio::select! {
        () = hits => unreachable!("hits do not end"),
        measured = one_by_one(site, mode, takes, first, calls) => measured,
    };
    settled(&site.env).await;
    Measured { mode: format!("{}, beside 20 hits a second", mode.name()), ..measured }
}

/// As [`one_by_one`], in turns with the bare loop: what the machine does to one it does to the other.
async fn beside_the_bare_loop(
    site: &PaidSite,
    mode: Mode,
    takes: Duration,
    first: u64,
    calls: u64,
) -> Vec<Measured> {
    let bare = Bare::start(site).await;
    let (mut events, mut bare_events) = (site.events().await, bare.events(site).await);
    let (mut overheads, mut bare_overheads) = (Vec::new(), Vec::new());
    // Other pictures: the provider's books, which tell its own time, go by picture.
    let other = first + BARE;
    // One more than count: its connections are made in the first.
    for turn in 0..=calls {
        bare_overheads.push(by_bare(site, &bare, &mut bare_events, mode, takes, other + turn).await);
        if turn < calls {
            overheads.push(one(site, &mut events, mode, takes, first + turn).await);
        }
    }
    bare_overheads.remove(0);
    site.right(mode, first..first + calls).await;
    settled(&site.env).await;
    let bare = alone(&format!("{}, the bare loop", mode.name()), bare_overheads, None);
    vec![alone(mode.name(), overheads, LIMIT), bare]
}

async fn by_bare(
    site: &PaidSite,
    bare: &Bare,
    events: &mut Listener,
    mode: Mode,
    takes: Duration,
    seed: u64,
) -> Duration {
    let task = mode.task(seed);
    let began = Instant::now();
    bare.publish(site, &task).await;
    let id = format!("paid-{seed}");
    arrival(events, &id).await;
    let overhead = site.overhead(mode, seed, began.elapsed(), takes);
    assert!(mode.right(seed, &bare.kept(site, &id).await), "task {seed} shows something else");
    overhead
}

/// They come at such a rate that `many` are under way at any time, with the pictures from `first` on.
async fn steadily(site: &PaidSite, mode: Mode, takes: Duration, first: u64, many: u64) -> Measured {
    let mut events = site.events().await;
    let count = many * 3;
    let tasks: Vec<_> = (first..first + count).map(|seed| mode.task(seed)).collect();
    let send = async {
        let mut ticks = interval(takes / u32::try_from(many).unwrap());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = HashMap::new();
        for task in &tasks {
            ticks.tick().await;
            let id = task["task_id"].as_str().unwrap().to_owned();
            sent.insert(id, Instant::now());
            site.publish(task).await;
        }
        sent
    };
    let (sent, arrived) = tokio::join!(send, arrivals(&mut events, tasks.len()));
    site.right(mode, first..first + count).await;
    settled(&site.env).await;
    // The first find fewer under way, the last end among fewer.
    let overheads = (first + many..first + many * 2).map(|seed| {
        let id = format!("paid-{seed}");
        site.overhead(mode, seed, arrived[&id] - sent[&id], takes)
    });
    Measured {
        mode: mode.name().to_owned(),
        in_flight: many,
        most: Some(site.most_in_flight(mode)),
        overheads: overheads.collect(),
        limit: LIMIT,
    }
}

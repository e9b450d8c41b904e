//! `faults`: the kill harness at length, and its report. `tests/run-faults` starts it with servers.
//!
//! Exit codes: 0 when everything held, 1 when something did not (it says what), 2 for a wrong argument.

// The report is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use retouch_tests::kills::books::{Books, per_10_000};
use retouch_tests::kills::feed::Mode;
use retouch_tests::kills::{fleet, run, simulated};
use retouch_tests::stand_in::Chaos;

const USAGE: &str = "\
usage: faults [--kills N] [--minutes M] [--seed S] [--modes sync,async,async+list] [--workers W]
       faults simulate [--kills N] [--minutes M] [--seed S]";

struct Arguments {
    kills: usize,
    minutes: u64,
    seed: u64,
    modes: Vec<Mode>,
    workers: usize,
    simulate: bool,
}

fn arguments() -> Option<Arguments> {
    let (minutes, modes, workers) = (10, vec![Mode::Sync, Mode::Async, Mode::AsyncList], 3);
    let mut given = Arguments { kills: 60, minutes, seed: 1, modes, workers, simulate: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "simulate" => given.simulate = true,
            "--kills" => given.kills = words.next()?.parse().ok()?,
            "--minutes" => given.minutes = words.next()?.parse().ok()?,
            "--seed" => given.seed = words.next()?.parse().ok()?,
            "--workers" => given.workers = words.next()?.parse().ok()?,
            "--modes" => given.modes = words.next()?.split(',').map(mode).collect::<Option<_>>()?,
            _ => return None,
        }
    }
    Some(given)
}

fn mode(name: &str) -> Option<Mode> {
    [Mode::Sync, Mode::Async, Mode::AsyncList].into_iter().find(|mode| mode.name() == name)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.simulate {
        let within = Duration::from_secs(arguments.minutes * 60);
        let report = simulated::run(arguments.kills as u64, within, arguments.seed);
        println!("{report}");
        return if report.broken().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(kill(&arguments)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn kill(arguments: &Arguments) -> ExitCode {
    let Arguments { kills, minutes, seed, ref modes, workers, .. } = *arguments;
    let begun = Instant::now();
    let mut all = Vec::new();
    for &mode in modes {
        let share = kills.div_ceil(modes.len());
        let most = Duration::from_secs(minutes * 60 / modes.len() as u64);
        let fates: VecDeque<_> = fleet::fates(share, seed, mode.patience());
        let books = run::run(run::Plan {
            mode,
            slots: workers,
            fates,
            most,
            seed,
            chaos: Chaos::ambiguous(0.02),
            takes: Duration::from_millis(300),
            open: 24,
            plain: true,
        });
        let books = books.await;
        println!("{books}");
        all.push(books);
    }
    table(&all);
    println!("{} kills in all, seed {seed}, {:.0} s", total(&all), begun.elapsed().as_secs_f64());
    let broken: Vec<_> = all.iter().flat_map(Books::broken).collect();
    for line in &broken {
        println!("BROKEN  {line}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn total(all: &[Books]) -> u64 {
    all.iter().map(|books| books.deaths.all()).sum()
}

/// What was paid again for ten thousand crashes, beside the plain worker's.
fn table(all: &[Books]) {
    println!(
        "Paid again for 10,000 crashes, without what the provider's withheld answers account for; plain workers died at the same \
         moments, and met no fault of the provider:"
    );
    for books in all {
        let by_kills = books.extra.saturating_sub(books.withheld);
        let (kills, (_, plain)) = (books.deaths.all(), books.plain.unwrap_or_default());
        println!(
            "{:>12}  {:>6} of {kills} kills: {:>6}    plain select-call-insert {plain:>6}: {:>6}",
            books.mode,
            by_kills,
            per_10_000(by_kills, kills),
            per_10_000(plain, kills),
        );
    }
}

//! `load`: load over time, and its report. `tests/run-load` starts it with servers.
//!
//! Exit codes: 0 when everything held, 1 when something did not (it says what), 2 for a wrong argument.

// The report is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use retouch_tests::load::run::{Plan, run};

const USAGE: &str = "usage: load [--minutes M] [--workers W] [--rate R] [--seed S]";

fn plan() -> Option<Plan> {
    let mut plan = Plan {
        length: Duration::from_secs(600),
        workers: 3,
        rate: 5.0,
        seed: 1,
        replace: Duration::from_secs(20),
        sample: Duration::from_secs(3),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--minutes" => {
                let minutes: f64 = value.parse().ok()?;
                plan.length = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
            }
            "--workers" => plan.workers = value.parse().ok().filter(|workers| *workers > 0)?,
            "--rate" => plan.rate = value.parse().ok().filter(|rate| *rate > 0.01)?,
            "--seed" => plan.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(plan)
}

fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(run(plan));
    println!("{report}");
    let broken = report.broken();
    for line in &broken {
        println!("BROKEN  {line}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

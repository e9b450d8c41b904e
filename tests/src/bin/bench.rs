//! `bench`: measures Retouch beside other ways to do the same. `tests/bench` builds it and starts it with servers;
//! docs/performance.md has its figures.
//!
//! Exit codes: 0 if every contender did its work, whatever the figures are; 101 if one did not (it says
//! which); 2 for a wrong argument.

// The report is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::{Context, Result};
use retouch_tests::bench::plan::Plan;
use retouch_tests::bench::{bare, floor, run};

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The contenders that are processes of this program.
    match std::env::args().nth(1).as_deref() {
        Some("floor") => return runtime.block_on(floor::run()).map(|()| ExitCode::SUCCESS),
        Some("bare") => return runtime.block_on(bare::run()).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let Some(plan) = Plan::read(std::env::args().skip(1)) else {
        eprintln!("{}", Plan::USAGE);
        return Ok(ExitCode::from(2));
    };
    let report = runtime.block_on(run::run(&plan));
    println!("{report}");
    if let Some(file) = &plan.json {
        let json = serde_json::to_vec_pretty(&report.json())?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

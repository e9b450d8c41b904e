//! `stand-in [--port PORT]` serves the provider stand-in until it is stopped, for a person who wants to try the worker or a
//! client without paying. It prints its base URLs; `/stand-in/` has the ledger, the settings and the faults.

// The messages are what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::{Context, Result};
use retouch_tests::stand_in::StandIn;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: stand-in [--port PORT]
Serves the provider stand-in until it is stopped, and prints its base URLs; without PORT on a free one.";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 0,
        ["--port", port] => port.parse().context("--port")?,
        ["-h" | "--help"] => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut stopped = signal(SignalKind::terminate())?;
    let provider = StandIn::start_on(port);
    println!("export DASHSCOPE_BASE_URL={}", provider.dashscope_url());
    println!("export OPENAI_BASE_URL={}", provider.openai_url());
    println!("export DASHSCOPE_API_KEY={key} OPENAI_API_KEY={key}", key = StandIn::KEY);
    println!("# the books: curl -s http://{}/stand-in/ledger", provider.address());
    tokio::select! {
        _ = stopped.recv() => {}
        done = tokio::signal::ctrl_c() => done?,
    }
    Ok(ExitCode::SUCCESS)
}

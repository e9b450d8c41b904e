//! Logs go to standard error: readable on a terminal, JSON otherwise, `RUST_LOG` decides what.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// A worker tells what it does; other commands only what goes wrong.
///
/// # Errors
/// `RUST_LOG` cannot be understood.
pub(super) fn init(worker: bool) -> Result<()> {
    let default =
        if worker { "info,lapin=error,sqlx=warn" } else { "error,lapin=off,rustls_platform_verifier=off" };
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let asked = if asked.trim().is_empty() { default } else { &asked };
    let filter = EnvFilter::try_new(asked).context("RUST_LOG")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() || !worker {
        logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    } else {
        logs.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    }
    Ok(())
}

//! Logs go to standard error: readable on a terminal, JSON otherwise, `RUST_LOG` decides what. Spans go to a collector where
//! one is set, with the feature `otlp`.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::trace::PHASE;

/// What has to be ended when the program ends.
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    exporting: Option<crate::trace::otlp::Exporting>,
}

impl Logging {
    /// Sends what is left to be sent.
    #[cfg(feature = "otlp")]
    pub(super) async fn end(self) {
        if let Some(exporting) = self.exporting {
            exporting.end().await;
        }
    }

    /// Sends what is left to be sent.
    #[cfg(not(feature = "otlp"))]
    #[expect(clippy::unused_async, reason = "called as the other one is")]
    pub(super) async fn end(self) {}
}

/// A worker tells what it does; other commands only what goes wrong.
///
/// # Errors
/// `RUST_LOG` or one of the `OTEL_*` variables cannot be understood.
pub(super) fn init(worker: bool) -> Result<Logging> {
    let filter = filter(worker)?;
    #[cfg(feature = "otlp")]
    if worker && let Some((spans, exporting)) = crate::trace::otlp::layer()? {
        let logs = logs(worker).with_filter(crate::trace::otlp::EachTime(filter));
        tracing_subscriber::registry().with(logs).with(spans).init();
        return Ok(Logging { exporting: Some(exporting) });
    }
    tracing_subscriber::registry().with(filter).with(logs(worker)).init();
    Ok(Logging {
        #[cfg(feature = "otlp")]
        exporting: None,
    })
}

fn filter(worker: bool) -> Result<EnvFilter> {
    let default =
        if worker { "info,lapin=error,sqlx=warn" } else { "error,lapin=off,rustls_platform_verifier=off" };
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let asked = if asked.trim().is_empty() { default } else { &asked };
    let filter = EnvFilter::try_new(asked).context("RUST_LOG")?;
    // A line names the task or the edit that it is about, not a phase of it.
    Ok(filter.add_directive(format!("{PHASE}=off").parse()?))
}

fn logs<S>(worker: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() || !worker {
        logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        logs.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    }
}

//! Logs go to standard error: readable on a terminal, JSON otherwise, `RUST_LOG` decides what. Spans go to a collector where
//! one is set, with the feature `otlp`.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::say::HarmlessStderr;
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
        tracing_subscriber::registry().with(filter_fn(tells_no_secret)).with(logs).with(spans).init();
        return Ok(Logging { exporting: Some(exporting) });
    }
    tracing_subscriber::registry().with(filter_fn(tells_no_secret)).with(filter).with(logs(worker)).init();
    Ok(Logging {
        #[cfg(feature = "otlp")]
        exporting: None,
    })
}

fn filter(worker: bool) -> Result<EnvFilter> {
    let default = if worker {
        "info,lapin=error,sqlx=warn"
    } else {
        // A command says itself, once and in a sentence, why a lane takes no calls.
        "error,retouch_worker::lanes=off,lapin=off,rustls_platform_verifier=off"
    };
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let asked = if asked.trim().is_empty() { default } else { &asked };
    let filter = EnvFilter::try_new(asked).context("RUST_LOG")?;
    // A line names the task or the edit that it is about, not a phase of it.
    Ok(filter.add_directive(format!("{PHASE}=off").parse()?))
}

/// What libraries log of their inner workings holds what passes through them: the AMQP client its login,
/// every message and the signed addresses in it, an HTTP client its headers, a database driver its
/// statements. They are never heard below `info`, whatever `RUST_LOG` asks for; what this program logs itself
/// is written with secrets in mind.
fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || is_ours(metadata.target())
}

fn is_ours(target: &str) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    matches!(library, "retouch_worker" | "retouch_shared" | "retouch")
}

fn logs<S>(worker: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let logs = tracing_subscriber::fmt::layer().with_writer(HarmlessStderr::default);
    if std::io::stderr().is_terminal() || !worker {
        logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        logs.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_does_not_make_a_library_ours() {
        for (target, ours) in [
            ("retouch_worker::intake", true),
            ("retouch_worker", true),
            (PHASE, true),
            ("retouch_shared::publisher", true),
            ("retouch_workers_friend", false),
            ("lapin::channel", false),
            ("hyper_util::client", false),
            ("log", false),
        ] {
            assert_eq!(is_ours(target), ours, "{target}");
        }
    }
}

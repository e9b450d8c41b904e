//! Traces: the W3C context of a message, continued, passed on and shown in the log; OTLP export behind the
//! feature `otlp`.
//!
//! Invariant: a context is untrusted and decides nothing; it is sent to events, edit messages and a
//! provider's own API, never to the hosts of sources or results.

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::RequestBuilder;
use tracing::{Instrument, Span};

use crate::broker::{Headers, TRACEPARENT, TRACESTATE};
use crate::metrics::count::Phase;

mod context;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;

pub use context::TraceContext;

/// The target of spans for traces only; lines of the log name the task or the edit themselves.
pub(crate) const PHASE: &str = "retouch_worker::phase";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The span of a task message.
pub(crate) fn intake_span() -> Span {
    tracing::info_span!("intake", task_id = tracing::field::Empty, trace_id = tracing::field::Empty)
}

/// The span of an edit message.
pub(crate) fn edit_span() -> Span {
    tracing::info_span!("edit", edit_key = tracing::field::Empty, trace_id = tracing::field::Empty)
}

/// The span of a dead message.
pub(crate) fn archive_span() -> Span {
    tracing::info_span!("archive", trace_id = tracing::field::Empty)
}

/// The span of one phase of a call.
pub(crate) fn phase_span(phase: Phase) -> Span {
    tracing::info_span!(target: PHASE, "phase", otel.name = phase.as_str())
}

/// Runs `work` in `span`, as part of the trace in the message's headers, or of a new one.
pub(crate) fn within<'a, T>(
    span: Span,
    headers: &Headers,
    work: impl Future<Output = T> + Send + 'a,
) -> BoxFuture<'a, T> {
    let incoming = read(headers);
    let context = adopted(&span, incoming.as_ref());
    let context =
        context.unwrap_or_else(|| incoming.map_or_else(TraceContext::fresh, |incoming| incoming.child()));
    span.record("trace_id", context.trace_id());
    CURRENT.scope(context, work.instrument(span)).boxed()
}

/// Runs work elsewhere in its original span and trace.
pub(crate) fn onward<T>(work: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    let work = work.instrument(Span::current());
    match CURRENT.try_with(Clone::clone) {
        Ok(context) => CURRENT.scope(context, work).boxed(),
        Err(_) => work.boxed(),
    }
}

/// The trace and span of the current work.
pub(crate) fn current() -> Option<TraceContext> {
    let own = || CURRENT.try_with(Clone::clone).ok();
    exported(&Span::current()).or_else(own)
}

/// Reads the context from a message's headers.
pub(crate) fn read(headers: &Headers) -> Option<TraceContext> {
    let header = |name| headers.get(name).map(String::as_str);
    TraceContext::read(header(TRACEPARENT), header(TRACESTATE))
}

/// Writes a context into a message's headers.
pub(crate) fn stamp(headers: &mut Headers, context: Option<&TraceContext>) {
    let Some(context) = context else { return };
    headers.insert(TRACEPARENT.to_owned(), context.traceparent());
    match context.state() {
        Some(state) => headers.insert(TRACESTATE.to_owned(), state.to_owned()),
        None => headers.remove(TRACESTATE),
    };
}

/// Writes the current context into a request to a provider's own API.
pub(crate) fn outgoing(request: RequestBuilder) -> RequestBuilder {
    let Some(context) = current() else { return request };
    let request = request.header(TRACEPARENT, context.traceparent());
    match context.state() {
        Some(state) => request.header(TRACESTATE, state),
        None => request,
    }
}

#[cfg(feature = "otlp")]
use otlp::{adopted, exported};

#[cfg(not(feature = "otlp"))]
fn adopted(_span: &Span, _incoming: Option<&TraceContext>) -> Option<TraceContext> {
    None
}

#[cfg(not(feature = "otlp"))]
fn exported(_span: &Span) -> Option<TraceContext> {
    None
}

//! Export of spans to an OpenTelemetry collector, over OTLP/HTTP with JSON. Set by the standard variables
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, …); without an endpoint nothing is exported.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{self, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::{PHASE, TraceContext};

/// Time limit for sending the rest at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Sends on the program's own runtime: the exporter's threads have none.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

/// The running export; end it with the program.
#[derive(Debug)]
pub(crate) struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Sends the rest within a few seconds.
    pub(crate) async fn end(self) {
        // It blocks its thread, and its requests need the runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("some spans were not exported");
        }
    }
}

/// The layer that exports, if an endpoint is set.
///
/// # Errors
/// Invalid `OTEL_*` variables.
pub(crate) fn layer<S>() -> Result<Option<(impl Layer<S>, Exporting)>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let set = |name| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    if !set("OTEL_EXPORTER_OTLP_ENDPOINT") && !set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(None);
    }
    let client = OnRuntime { client: reqwest::Client::builder().build()?, runtime: Handle::current() };
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
    let exporter = exporter.context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("retouch");
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("retouch"))
        .with_location(false)
        .with_threads(false)
        .with_filter(EachTime(filter_fn(|metadata| metadata.is_span() && ours(metadata.target()))));
    Ok(Some((layer, Exporting(provider))))
}

/// Wraps a layer's filter so that it is evaluated for each event. With cached answers, tracing-subscriber 0.3
/// takes the result for an earlier line or span on the same thread that no layer wanted, and drops events.
pub(crate) struct EachTime<F>(pub(crate) F);

impl<S, F: Filter<S>> Filter<S> for EachTime<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &layer::Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.0.callsite_enabled(metadata);
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &layer::Context<'_, S>) -> bool {
        self.0.event_enabled(event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: layer::Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: layer::Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: layer::Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: layer::Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

fn ours(target: &str) -> bool {
    target == PHASE || target.starts_with("retouch_worker")
}

/// Makes `span` part of the trace in a message, and returns its context. `None` if it is not exported.
pub(super) fn adopted(span: &Span, incoming: Option<&TraceContext>) -> Option<TraceContext> {
    if let Some(incoming) = incoming {
        let (trace_id, span_id, flags) = incoming.parts();
        let state = incoming.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        let remote = SpanContext::new(
            TraceId::from_bytes(trace_id),
            SpanId::from_bytes(span_id),
            TraceFlags::new(flags),
            true,
            state,
        );
        // Fails only for a span that is not exported.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
    exported(span)
}

/// The context of an exported span.
pub(super) fn exported(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        let state = Some(context.trace_state().header()).filter(|state| !state.is_empty());
        let flags = context.trace_flags().to_u8();
        TraceContext::new(context.trace_id().to_bytes(), context.span_id().to_bytes(), flags, state)
    })
}

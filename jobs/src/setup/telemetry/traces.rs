//! Traces: the W3C context of requests, carried in jobs, and the spans that are exported when an endpoint is configured.
//!
//! Without one no span is made; a client's context still goes with its jobs.

use super::TelemetryError;
use crate::queue::outcome::Outcome;
use keywright_entities::job;
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer, TracerProvider,
    },
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use std::{sync::OnceLock, time::Duration};
use url::Url;

/// How long the last spans may take to be sent when the process ends.
const FLUSH: Duration = Duration::from_secs(2);
/// How long one export may take.
const EXPORT: Duration = Duration::from_secs(5);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends what is left when it is dropped, for up to two seconds.
pub struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans could not be sent in time and are lost");
        }
    }
}

/// Begins to export the spans of this process as `service`, to an OTLP receiver (HTTP, protobuf). Call it outside of any async
/// runtime.
///
/// # Errors
/// When no HTTP client can be made, or exporting was begun before.
pub fn export(endpoint: &Url, service: &'static str) -> Result<Exporting, TelemetryError> {
    let failed = |what: String| TelemetryError(format!("traces cannot be exported: {what}"));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')))
        .with_timeout(EXPORT)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    TRACER.set(provider.tracer("keywright")).map_err(|_| failed("they are already".to_owned()))?;
    Ok(Exporting(provider))
}

/// The trace of one request.
pub struct RequestTrace {
    span: Option<opentelemetry_sdk::trace::Span>,
    /// The context that jobs of this request carry: of its own span, else the client's.
    pub traceparent: Option<String>,
}

impl RequestTrace {
    /// `sent` is the client's `traceparent`; one that is none is ignored.
    pub fn begin(sent: Option<&str>, method: &str) -> Self {
        let parent = sent.and_then(parse);
        let span = TRACER.get().map(|tracer| {
            let above =
                parent.clone().map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
            tracer.build_with_context(SpanBuilder::from_name(method.to_owned()).with_kind(SpanKind::Server), &above)
        });
        let context = span.as_ref().map(|span| span.span_context().clone()).filter(SpanContext::is_valid).or(parent);
        Self { traceparent: context.as_ref().map(write), span }
    }

    /// Ends it. `route` is the pattern that matched.
    pub fn end(self, method: &str, route: &str, status: u16, request_id: &str) {
        let Some(mut span) = self.span.filter(Span::is_recording) else { return };
        span.update_name(format!("{method} {route}"));
        span.set_attribute(KeyValue::new("http.request.method", method.to_owned()));
        span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        span.set_attribute(KeyValue::new("keywright.request.id", request_id.to_owned()));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The trace of one attempt: a trace of its own, since it may run long after the request, linked to the request's.
pub struct AttemptTrace(Option<opentelemetry_sdk::trace::Span>);

impl AttemptTrace {
    pub fn begin(job: &job::Model) -> Self {
        Self(TRACER.get().map(|tracer| {
            let asked = job.traceparent.as_deref().and_then(parse);
            let builder = SpanBuilder::from_name(format!("job {}", job.kind))
                .with_kind(SpanKind::Consumer)
                .with_links(asked.map(|context| Link::new(context, Vec::new(), 0)).into_iter().collect())
                .with_attributes([
                    KeyValue::new("keywright.job.id", job.id.to_string()),
                    KeyValue::new("keywright.job.kind", job.kind.clone()),
                    KeyValue::new("keywright.job.attempt", i64::from(job.attempt)),
                    KeyValue::new("keywright.job.rescues", i64::from(job.rescues)),
                ]);
            tracer.build_with_context(builder, &Context::new())
        }))
    }

    /// `None`: the job was lost to another worker.
    pub fn end(self, outcome: Option<&Outcome>) {
        let Some(mut span) = self.0 else { return };
        span.set_attribute(KeyValue::new("keywright.job.outcome", outcome.map_or("lease_lost", Outcome::word)));
        if let Some(reason) = outcome.and_then(Outcome::reason) {
            span.set_status(Status::error(reason.code.clone()));
        }
        span.end();
    }
}

/// Reads a `traceparent` (W3C Trace Context, 3.2). A later version may say more at its end.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let mut hex = |length: usize| {
        parts
            .next()
            .filter(|part| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

fn write(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_carried_and_what_is_none_is_ignored() {
        assert_eq!(RequestTrace::begin(Some(GOOD), "GET").traceparent.as_deref(), Some(GOOD));
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(RequestTrace::begin(Some(&later), "GET").traceparent.as_deref(), Some(GOOD));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
        ] {
            assert_eq!(RequestTrace::begin(Some(bad), "GET").traceparent, None, "{bad}");
        }
    }
}

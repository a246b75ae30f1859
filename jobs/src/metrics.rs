//! What this process counts and measures, for Prometheus. One registry per process: counting costs a lookup by label and an
//! atomic addition, and nothing is ever asked of the database here.
//!
//! Labels are bounded: kinds of job that this program does not know, and methods that HTTP does not, share the value `other`.

use crate::{kinds, queue::outcome::Outcome, setup::database::Database};
use keywright_entities::{
    job,
    types::{JobState, ProviderKind},
};
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
    core::{Collector, GenericGauge},
};
use std::{net::IpAddr, sync::LazyLock, time::Duration};

/// The media type of [`text`], as Prometheus wants it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Headers of a proxy: with one of them a request came from elsewhere, whatever its last hop.
pub const FORWARDED: &[&str] =
    &["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

const OTHER: &str = "other";
/// From an idle queue's few milliseconds to a backlog of hours.
const LATENCY: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
const ATTEMPT: &[f64] =
    &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0];
/// Up to a long poll of a minute.
const HTTP: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 65.0];

struct Metrics {
    registry: Registry,
    claims: IntCounterVec,
    attempts: IntCounterVec,
    finished: IntCounterVec,
    rescues: IntCounterVec,
    lease_losses: IntCounterVec,
    start_latency: HistogramVec,
    attempt_duration: HistogramVec,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    acquire_timeouts: IntCounter,
    audit_verifications: IntCounterVec,
    provider_calls: IntCounterVec,
    provider_slowdowns: IntCounterVec,
    provider_waits: CounterVec,
    provider_rate: GaugeVec,
}

/// `None` when two metrics contradict each other: a fault of the code that the tests show.
static METRICS: LazyLock<Option<Metrics>> = LazyLock::new(|| match Metrics::new() {
    Ok(metrics) => Some(metrics),
    Err(error) => {
        tracing::error!(%error, "there are no metrics");
        None
    }
});

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, HistogramVec::new(options, labels)?)
        };
        let build =
            IntGaugeVec::new(Opts::new("keywright_build_info", "The version that runs; always 1."), &["version"])?;
        registered(&registry, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let acquire_timeouts = IntCounter::new(
            "keywright_db_acquire_timeouts_total",
            "Writes that failed because no database connection was to be had in time.",
        )?;
        let operation = ["provider", "operation"];
        let waits = Opts::new(
            "keywright_provider_waited_seconds_total",
            "How long calls of this worker waited for their turn, or because a cloud throttled them.",
        );
        let rate = Opts::new(
            "keywright_provider_rate",
            "Calls per second that the budget last drawn on allows all workers together.",
        );
        Ok(Self {
            provider_calls: counter(
                "keywright_provider_calls_total",
                "Calls of this worker to clouds, by what came of them.",
                &["provider", "operation", "outcome"],
            )?,
            provider_slowdowns: counter(
                "keywright_provider_slowdowns_total",
                "How often this worker lowered the rate of a budget because a cloud throttled.",
                &operation,
            )?,
            provider_waits: registered(&registry, CounterVec::new(waits, &operation)?)?,
            provider_rate: registered(&registry, GaugeVec::new(rate, &operation)?)?,
            claims: counter("keywright_job_claims_total", "Jobs that this worker has claimed.", &["kind"])?,
            attempts: counter(
                "keywright_job_attempts_total",
                "Attempts of this worker whose outcome is recorded.",
                &["kind", "outcome"],
            )?,
            finished: counter(
                "keywright_jobs_finished_total",
                "Jobs that this process has brought to their end: by an attempt, a last part, a rescue, a deadline or a cancel.",
                &["kind", "state"],
            )?,
            rescues: counter(
                "keywright_job_rescues_total",
                "Jobs that this worker has taken back from a worker whose lease had lapsed.",
                &["kind"],
            )?,
            lease_losses: counter(
                "keywright_job_lease_losses_total",
                "Attempts of this worker that lost their job to another.",
                &["kind"],
            )?,
            start_latency: histogram(
                "keywright_job_start_latency_seconds",
                "From when a job was due to the beginning of its first attempt.",
                LATENCY,
                &["kind"],
            )?,
            attempt_duration: histogram(
                "keywright_job_attempt_duration_seconds",
                "How long attempts ran, whatever their outcome.",
                ATTEMPT,
                &["kind"],
            )?,
            http_requests: counter(
                "keywright_http_requests_total",
                "Answered requests, by the pattern of their path.",
                &["route", "method", "status"],
            )?,
            http_duration: histogram(
                "keywright_http_request_duration_seconds",
                "From the head of a request to its answer, long polls included.",
                HTTP,
                &["route", "method"],
            )?,
            acquire_timeouts: registered(&registry, acquire_timeouts)?,
            audit_verifications: counter(
                "keywright_audit_verifications_total",
                "Checks of the audit log by this process; `broken`: something in it is not what was signed.",
                &["verdict"],
            )?,
            registry,
        })
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn of_kind(kind: &str) -> &str {
    kinds::KINDS.iter().find(|known| **known == kind).copied().unwrap_or(OTHER)
}

pub(crate) fn claimed(kind: &str) {
    if let Some(metrics) = &*METRICS {
        metrics.claims.with_label_values(&[of_kind(kind)]).inc();
    }
}

pub(crate) fn rescued(kind: &str) {
    if let Some(metrics) = &*METRICS {
        metrics.rescues.with_label_values(&[of_kind(kind)]).inc();
    }
}

pub(crate) fn finished(kind: &str, state: JobState) {
    if let Some(metrics) = &*METRICS {
        metrics.finished.with_label_values(&[of_kind(kind), state.as_str()]).inc();
    }
}

/// An attempt begins, this long after its job was claimed.
pub fn attempt_began(job: &job::Model, since_claim: Duration) {
    // a claim writes both with one reading of the clock, and only the first sets the second
    let first = job.started_at.filter(|started| job.heartbeat_at == Some(*started));
    if let (Some(metrics), Some(started)) = (&*METRICS, first) {
        let due = (started - job.run_at).to_std().unwrap_or_default();
        metrics.start_latency.with_label_values(&[of_kind(&job.kind)]).observe((due + since_claim).as_secs_f64());
    }
}

pub fn attempt_ran(kind: &str, took: Duration) {
    if let Some(metrics) = &*METRICS {
        metrics.attempt_duration.with_label_values(&[of_kind(kind)]).observe(took.as_secs_f64());
    }
}

pub fn attempt_recorded(kind: &str, outcome: &Outcome) {
    if let Some(metrics) = &*METRICS {
        metrics.attempts.with_label_values(&[of_kind(kind), outcome.word()]).inc();
    }
}

pub fn lease_lost(kind: &str) {
    if let Some(metrics) = &*METRICS {
        metrics.lease_losses.with_label_values(&[of_kind(kind)]).inc();
    }
}

/// A request was answered. `route` is the pattern that matched, never the path.
pub fn answered(route: &str, method: &str, status: u16, took: Duration) {
    const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = if METHODS.contains(&method) { method } else { OTHER };
    if let Some(metrics) = &*METRICS {
        metrics.http_requests.with_label_values(&[route, method, &status.to_string()]).inc();
        metrics.http_duration.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }
}

/// A write failed for want of a connection.
pub(crate) fn acquire_timed_out() {
    if let Some(metrics) = &*METRICS {
        metrics.acquire_timeouts.inc();
    }
}

/// The audit log was checked.
pub(crate) fn audit_verified(valid: bool) {
    if let Some(metrics) = &*METRICS {
        metrics.audit_verifications.with_label_values(&[if valid { "valid" } else { "broken" }]).inc();
    }
}

/// A call to a cloud is over. `operation` and `outcome` are each one of few.
pub(crate) fn provider_called(provider: ProviderKind, operation: &str, outcome: &str) {
    if let Some(metrics) = &*METRICS {
        metrics.provider_calls.with_label_values(&[provider.as_str(), operation, outcome]).inc();
    }
}

pub(crate) fn provider_slowed(provider: ProviderKind, operation: &str) {
    if let Some(metrics) = &*METRICS {
        metrics.provider_slowdowns.with_label_values(&[provider.as_str(), operation]).inc();
    }
}

pub(crate) fn provider_waited(provider: ProviderKind, operation: &str, long: Duration) {
    if let Some(metrics) = &*METRICS {
        metrics.provider_waits.with_label_values(&[provider.as_str(), operation]).inc_by(long.as_secs_f64());
    }
}

pub(crate) fn provider_rate(provider: ProviderKind, operation: &str, rate: f64) {
    if let Some(metrics) = &*METRICS {
        metrics.provider_rate.with_label_values(&[provider.as_str(), operation]).set(rate);
    }
}

/// Gauges that are read at the moment of a scrape.
pub struct Gauges(Registry);

impl Default for Gauges {
    fn default() -> Self {
        Self(Registry::new())
    }
}

impl Gauges {
    /// Adds a gauge with a value for each set of label values.
    ///
    /// # Errors
    /// When the name or a label is none of Prometheus's.
    pub fn add<const L: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; L],
        values: impl IntoIterator<Item = ([String; L], f64)>,
    ) -> prometheus::Result<()> {
        let gauge = prometheus::GaugeVec::new(Opts::new(name, help), &labels)?;
        for (of, value) in values {
            let one: GenericGauge<_> = gauge.with_label_values(&of);
            one.set(value);
        }
        self.0.register(Box::new(gauge))
    }
}

/// Whether a request came from the machine itself: to a listener that others cannot reach, from a loopback address, and not
/// through a proxy. What a header says never makes it local.
pub fn is_local(listen: IpAddr, peer: Option<IpAddr>, forwarded: bool) -> bool {
    let own = |address: IpAddr| address.to_canonical().is_loopback();
    own(listen) && peer.is_some_and(own) && !forwarded
}

/// The gauges of a pool of connections.
///
/// # Errors
/// See [`Gauges::add`].
pub fn pool(gauges: &Gauges, database: &Database) -> prometheus::Result<()> {
    let (size, idle) = database.pool();
    let sizes = [([], f64::from(size))];
    gauges.add("keywright_db_pool_connections", "Open connections to the database.", [], sizes)?;
    let idles = [([], idle as f64)];
    gauges.add("keywright_db_pool_idle_connections", "Open connections that nobody uses.", [], idles)
}

/// Everything, in Prometheus's text format, with what was read for this scrape.
///
/// # Errors
/// When a metric cannot be written.
pub fn text(gauges: &Gauges) -> prometheus::Result<String> {
    let mut families = METRICS.as_ref().map(|metrics| metrics.registry.gather()).unwrap_or_default();
    families.extend(gauges.0.gather());
    TextEncoder::new().encode_to_string(&families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_of_the_machine_itself_is_local() {
        let ip = |text: &str| text.parse().unwrap();
        assert!(is_local(ip("127.0.0.1"), Some(ip("127.8.9.1")), false));
        assert!(is_local(ip("::1"), Some(ip("::1")), false));
        assert!(is_local(ip("::ffff:127.0.0.1"), Some(ip("::ffff:127.0.0.1")), false));
        assert!(!is_local(ip("127.0.0.1"), Some(ip("127.0.0.1")), true), "a proxy passed it on");
        assert!(!is_local(ip("0.0.0.0"), Some(ip("127.0.0.1")), false), "others can reach it");
        assert!(!is_local(ip("10.0.0.1"), Some(ip("10.0.0.1")), false));
        assert!(!is_local(ip("127.0.0.1"), None, false));
    }

    #[test]
    fn labels_are_bounded_and_each_family_is_described() {
        answered("/api/jobs/{id}", "BREW", 418, Duration::from_millis(3));
        claimed("made.up");
        let gauges = Gauges::default();
        gauges.add("keywright_test", "For a \"test\".", ["kind"], [(["a\"b\\c".to_owned()], 1.5)]).unwrap();
        let text = text(&gauges).unwrap();
        for line in [
            "# TYPE keywright_http_requests_total counter",
            "keywright_http_requests_total{method=\"other\",route=\"/api/jobs/{id}\",status=\"418\"} 1",
            "keywright_job_claims_total{kind=\"other\"} 1",
            "keywright_test{kind=\"a\\\"b\\\\c\"} 1.5",
            "# HELP keywright_build_info The version that runs; always 1.",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is missing in\n{text}");
        }
    }
}

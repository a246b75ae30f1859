//! What processes tell about themselves: metrics that a scraper reads, log lines, and spans that a receiver is sent.

use keywright_tests::{
    app::{PATIENCE, eventually},
    collector::Collector,
    database::TestDatabase,
    faults::{
        checker::Allow,
        clients::{Facade, Said},
        cloud::Order,
        double::{Plan, Special, page},
        trial::Trial,
    },
    on_both_databases,
    process::{Process, Signal},
    scrape::Scrape,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

on_both_databases!(
    a_worker_counts_what_it_does,
    a_worker_tells_its_pace,
    a_worker_shows_metrics_to_others_only_when_told_to,
    spans_of_attempts_are_linked_to_the_request,
);

const FACE: &str = "the worker's own HTTP face is open";

fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Waits for the workers that are there; a heal would bring others.
async fn done(trial: &Trial) {
    eventually("all jobs end", async || (trial.open().await == Some(0)).then_some(())).await;
}

/// Where a worker's own face is.
fn face(worker: &Process) -> String {
    let bound = lines(worker, FACE).remove(0)["address"].as_str().unwrap().to_owned();
    format!("http://{}", bound.trim_start_matches("socket://"))
}

async fn scrape(url: &str) -> Scrape {
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{url}/metrics")).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(&answer.text().await.unwrap())
}

async fn a_worker_counts_what_it_does(test: TestDatabase) {
    let trial = Trial::on("metrics", &test.database).await;
    let observed = [("KEYWRIGHT_WORKER_LISTEN", "127.0.0.1:0"), ("KEYWRIGHT_LOG_FORMAT", "json")];
    // the first worker dies of the page
    let account = trial.account("one", Plan::once(Order::Abort, 1)).await;
    let mut first = trial.worker("first").await;
    let scan = trial.scan(account).await;
    first.ended(PATIENCE).await;
    let second = trial.worker_with("second", &observed).await;
    done(&trial).await;
    let url = face(&second);
    let told = eventually("everything is counted", async || {
        let told = scrape(&url).await;
        told.get("keywright_job_attempts_total", &[("kind", "discovery.scope"), ("outcome", "succeeded")])?;
        Some(told)
    })
    .await;
    let scope = [("kind", "discovery.scope")];
    assert_eq!(told.get("keywright_job_rescues_total", &scope), Some(1.0));
    assert_eq!(told.get("keywright_job_claims_total", &scope), Some(1.0));
    assert_eq!(
        told.get("keywright_jobs_finished_total", &[("kind", "discovery.scan"), ("state", "succeeded")]),
        Some(1.0)
    );
    assert_eq!(told.get("keywright_jobs_finished_total", &[("state", "failed")]), None);
    assert_eq!(told.get("keywright_job_attempt_duration_seconds_count", &scope), Some(1.0));
    // it was no first start
    assert_eq!(told.get("keywright_job_start_latency_seconds_count", &scope), None);
    assert_eq!(told.get("keywright_build_info", &[]), Some(1.0));
    assert!(told.get("keywright_db_pool_connections", &[]).unwrap() >= 1.0);
    assert!(told.get("process_resident_memory_bytes", &[]).unwrap() > 1e6);
    let id = scan.to_string();
    assert!(lines(&second, "job started").iter().all(|line| line["job"] != id.as_str()), "the first worker ran it");
    let (began, ended) = (lines(&second, "job started").remove(0), lines(&second, "job attempt ended").remove(0));
    for field in ["job", "kind", "attempt", "rescues"] {
        assert!(!began[field].is_null() && began[field] == ended[field], "{field}: {began} {ended}");
    }
    assert!(ended["outcome"] == "succeeded" && ended["ms"].is_u64(), "{ended}");
    // a failure
    let denied = trial.account("two", Plan::once(Order::Denied, 100)).await;
    trial.scan(denied).await;
    done(&trial).await;
    let told = eventually("the failure is counted", async || {
        let told = scrape(&url).await;
        told.get("keywright_job_attempts_total", &[("kind", "discovery.scope"), ("outcome", "failed")])?;
        Some(told)
    })
    .await;
    assert_eq!(
        told.get("keywright_jobs_finished_total", &[("kind", "discovery.scope"), ("state", "failed")]),
        Some(1.0)
    );
    assert_eq!(
        told.get("keywright_job_attempts_total", &[("kind", "discovery.scan"), ("outcome", "fanned_out")]),
        Some(1.0)
    );
    assert_eq!(told.get("keywright_job_start_latency_seconds_count", &scope), Some(1.0));
}

async fn a_worker_tells_its_pace(test: TestDatabase) {
    let trial = Trial::on("the pace in metrics", &test.database).await;
    let special = vec![Special { step: page(0, 1), order: Order::ThrottledFor(500), times: 1 }];
    let plan = Plan { regions: 1, pages: 3, secrets: 4, special, ..Plan::default() };
    let account = trial.account("detailed-1", plan).await;
    let observed = [("KEYWRIGHT_WORKER_LISTEN", "127.0.0.1:0"), ("KEYWRIGHT_LOG_FORMAT", "json")];
    let worker = trial.worker_with("first", &observed).await;
    trial.scan(account).await;
    done(&trial).await;
    let told = scrape(&face(&worker)).await;
    let calls = |operation: &str, outcome: &str| {
        let labels = [("provider", "aws"), ("operation", operation), ("outcome", outcome)];
        told.get("keywright_provider_calls_total", &labels)
    };
    let (list, look) = ("secretsmanager:ListSecrets", "secretsmanager:GetResourcePolicy");
    // the scopes and three pages, one of them twice; and a look at each asset
    assert_eq!((calls(list, "answered"), calls(list, "throttled")), (Some(4.0), Some(1.0)));
    assert_eq!((calls(look, "answered"), calls(look, "throttled")), (Some(12.0), None));
    let of = |name: &str, operation: &str| told.get(name, &[("provider", "aws"), ("operation", operation)]);
    assert_eq!(of("keywright_provider_slowdowns_total", list), Some(1.0));
    assert_eq!(of("keywright_provider_slowdowns_total", look), None);
    assert!(of("keywright_provider_waited_seconds_total", list).unwrap() >= 0.5);
    // of 100 and 50 calls a second that are published; the first was halved
    assert!((50.0..100.0).contains(&of("keywright_provider_rate", list).unwrap()));
    assert_eq!(of("keywright_provider_rate", look), Some(50.0));
    drop(worker);
    trial.judge(&Allow { repeats: true, ..Allow::NOTHING }).await;
}

async fn a_worker_shows_metrics_to_others_only_when_told_to(test: TestDatabase) {
    let trial = Trial::on("worker's metrics", &test.database).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (listen, open, forwarded, status) in [
        ("127.0.0.1:0", "false", false, 200),
        ("127.0.0.1:0", "false", true, 403),
        ("0.0.0.0:0", "false", false, 403),
        ("0.0.0.0:0", "true", true, 200),
    ] {
        let extra = [
            ("KEYWRIGHT_WORKER_LISTEN", listen),
            ("KEYWRIGHT_WORKER_METRICS_OPEN", open),
            ("KEYWRIGHT_LOG_FORMAT", "json"),
        ];
        let mut worker = trial.start_worker("one", &extra);
        worker.logged(FACE).await;
        let mut request = http.get(format!("{}/metrics", face(&worker).replace("0.0.0.0", "127.0.0.1")));
        if forwarded {
            request = request.header("X-Forwarded-For", "127.0.0.1");
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{listen} {open} {forwarded}");
    }
}

async fn spans_of_attempts_are_linked_to_the_request(test: TestDatabase) {
    let trial = Trial::on("traces", &test.database).await;
    let collector = Collector::start().await;
    let export = [("KEYWRIGHT_OTLP_ENDPOINT", collector.url.as_str())];
    let account = trial.account("one", Plan { regions: 1, pages: 1, ..Plan::default() }).await;
    let mut api = Facade::start(trial.db.url(), &export, trial.answers.clone()).await;
    let mut worker = trial.worker_with("one", &export).await;
    let said = api.client().scan(account, "queue", None).await;
    assert!(matches!(said, Said::Accepted(_)), "{said:?}");
    done(&trial).await;
    // what is left is sent at the end
    for process in [&mut worker, &mut api.process] {
        process.signal(Signal::Term);
        assert!(process.ended(PATIENCE).await.success(), "{}", process.log());
    }
    let spans = collector.spans();
    let asked = spans.iter().find(|span| span.name == "POST /api/assets/discovery/scan").expect("the request's span");
    assert_eq!(asked.kind, SpanKind::Server as i32);
    let attempts: Vec<_> = spans.iter().filter(|span| span.name.starts_with("job ")).collect();
    assert_eq!(attempts.len(), 2, "the scan and its part: {spans:?}");
    for attempt in attempts {
        assert_ne!(attempt.trace_id, asked.trace_id, "an attempt is no part of the request");
        assert!(attempt.parent_span_id.is_empty());
        let links: Vec<_> = attempt.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
        assert_eq!(links, [(&asked.trace_id, &asked.span_id)]);
    }
}

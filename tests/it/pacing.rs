//! The pace of calls to clouds: one budget for all workers, throttling that costs nothing but time, listings that go on at their
//! page, and what a scan tells of how fast it could have been.

use keywright_entities::{asset, asset_version, call_budget, job, types::JobState};
use keywright_jobs::{
    domain::{
        floor::{Calls, Made},
        inventory::ProviderKind,
        pacing::chunk,
    },
    pacing::{Account, Ask, Budgets, Pacer, Reply, Tally},
    provider::Target,
    setup::database::Database,
};
use keywright_tests::{
    app::{PATIENCE, eventually, job as read},
    database::TestDatabase,
    faults::{
        checker::Allow,
        cloud::{Order, SHARED_RATE, Step},
        dice::short_or_long,
        double::{Plan, Special, page},
        trial::Trial,
    },
    http::{Api, column},
    instance::{Instance, aws_environment},
    on_both_databases,
    stub::{PAGE, Stub},
};
use sea_orm::EntityTrait;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

on_both_databases!(
    processes_share_one_budget,
    two_workers_together_keep_the_rate_of_an_account,
    a_throttled_budget_is_lowered_for_all_and_across_restarts,
    throttling_costs_no_attempt,
    a_slow_scope_holds_up_no_other,
    a_minute_of_refusals_costs_time_and_nothing_else,
    a_kill_between_details_and_publication_leaves_every_asset_once,
    people_are_heeded_wherever_a_listing_waits,
    a_killed_listing_goes_on_at_its_page,
    a_scan_tells_how_fast_it_could_have_been,
);

/// 100 calls a second.
const HUNDRED: &str = "eu-west-1 kms:ListKeyRotations";

fn pacer(db: &Database, percent: u32) -> Pacer {
    let target = Target {
        provider: ProviderKind::Aws,
        external_id: "123456789012".to_owned(),
        regions: Vec::new(),
        settings: json!({}),
        auth_mode: "ambient".to_owned(),
    };
    Pacer::new(Budgets::new(db.clone(), percent), Account::of(&target), Tally::default())
}

/// Makes this many calls, which are answered at once, and tells when.
async fn calls(pacer: &Pacer, count: usize) -> Vec<Instant> {
    let call = pacer.call(HUNDRED);
    let mut made = Vec::new();
    while made.len() < count {
        match call.ask().await {
            Ask::Go(slot, permit) => {
                tokio::time::sleep_until(slot.into()).await;
                made.push(Instant::now());
                permit.ended(Instant::now(), Reply::Answered).await;
            }
            Ask::Full | Ask::Unknown => tokio::task::yield_now().await,
            Ask::Later(wait) => panic!("nobody has to wait for {wait:?}"),
        }
    }
    made
}

/// Up to any moment there were no more calls than the rate allows and chunks that were drawn.
fn keeps(rate: f64, chunks: u32, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    let first = seconds[0];
    for (before, at) in seconds.iter().enumerate() {
        let most = (at - first) * rate + f64::from(chunks * chunk(rate)) + 1.0;
        assert!(before as f64 <= most, "{before} calls before {:.3} s: {seconds:?}", at - first);
    }
}

async fn processes_share_one_budget(test: TestDatabase) {
    let (one, two) = (pacer(&test.database, 100), pacer(&test.another().await, 100));
    let began = Instant::now();
    let (one, two) = tokio::join!(calls(&one, 60), calls(&two, 60));
    let seconds = one.iter().chain(&two).map(|at| at.duration_since(began).as_secs_f64()).collect();
    // the burst, and a chunk of each
    keeps(100.0, 3, seconds);
    let rows = call_budget::Entity::find().all(test.database.reader()).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(!rows[0].budget.contains("123456789012"), "{rows:?}");
}

async fn two_workers_together_keep_the_rate_of_an_account(test: TestDatabase) {
    let trial = Trial::on("two_workers_together_keep_the_rate_of_an_account", &test.database).await;
    let plan = Plan { regions: 6, pages: 5, secrets: 1, ..Plan::default() };
    let account = trial.account("shared-1", plan).await;
    let workers = [trial.worker("first").await, trial.worker("second").await];
    let scan = trial.scan(account).await;
    eventually("the scan ends", async || read(&trial.db, scan).await.state.is_done().then_some(())).await;
    let journal = trial.double.journal();
    assert_eq!(journal.len(), 31, "each page once, and the scopes");
    keeps(SHARED_RATE, 3, journal.iter().map(|entry| entry.at).collect());
    drop(workers);
    trial.judge(&Allow::NOTHING).await;
}

async fn a_throttled_budget_is_lowered_for_all_and_across_restarts(test: TestDatabase) {
    let db = &test.database;
    let first = pacer(db, 50);
    let mut permits = Vec::new();
    let call = first.call(HUNDRED);
    while permits.len() < 3 {
        if let Ask::Go(_, permit) = call.ask().await {
            permits.push(permit);
        }
    }
    let sent = Instant::now();
    for permit in permits {
        permit.ended(sent, Reply::Throttled { retry_after: None }).await;
    }
    let row = || async { call_budget::Entity::find().one(db.reader()).await.unwrap().unwrap() };
    let lowered = row().await.rate;
    assert!((24.0..26.0).contains(&lowered), "half of the half, once for all three: {lowered}");
    // a new process begins where the old one was
    let second = pacer(&test.another().await, 50);
    let Ask::Go(_, permit) = second.call(HUNDRED).ask().await else { panic!("a slot is near") };
    permit.ended(Instant::now(), Reply::Throttled { retry_after: Some(Duration::from_secs(600)) }).await;
    assert!(row().await.rate < 13.5);
    // all are told to wait, the first as well
    let call = first.call(HUNDRED);
    let later = eventually("the first has spent what it drew", async || match call.ask().await {
        Ask::Later(wait) => Some(wait),
        _ => None,
    })
    .await;
    assert!(later > Duration::from_secs(500), "{later:?}");
}

async fn throttling_costs_no_attempt(test: TestDatabase) {
    let trial = Trial::on("throttling_costs_no_attempt", &test.database).await;
    let special = vec![Special { step: page(0, 1), order: Order::Throttled, times: 7 }];
    let account = trial.account("one", Plan { special, ..Plan::default() }).await;
    let worker = trial.worker("first").await;
    let scan = trial.scan(account).await;
    let waiting = eventually("a scope gives its slot back", async || {
        let children = job::children(trial.db.reader(), scan).await.unwrap();
        children.into_iter().find(|child| child.state == JobState::Waiting)
    })
    .await;
    assert_eq!(waiting.waiting_for.map(|what| what.as_str()), Some("quota"));
    eventually("the scan ends", async || read(&trial.db, scan).await.state.is_done().then_some(())).await;
    let children = job::children(trial.db.reader(), scan).await.unwrap();
    assert!(children.iter().all(|child| (child.state, child.attempt) == (JobState::Succeeded, 1)), "{children:?}");
    let journal = trial.double.journal();
    assert_eq!(journal.iter().filter(|entry| entry.ask.step == page(0, 0)).count(), 1, "it goes on at its page");
    assert_eq!(journal.iter().filter(|entry| entry.ask.step == page(0, 1)).count(), 8);
    drop(worker);
    trial.judge(&Allow { repeats: true, ..Allow::NOTHING }).await;
}

async fn a_slow_scope_holds_up_no_other(test: TestDatabase) {
    let trial = Trial::on("a_slow_scope_holds_up_no_other", &test.database).await;
    let special = vec![Special { step: page(0, 0), order: Order::Take(short_or_long(10_000, 45_000)), times: 1 }];
    let account = trial.account("one", Plan { regions: 4, pages: 10, special, ..Plan::default() }).await;
    let worker = trial.worker("first").await;
    let scan = trial.scan(account).await;
    let children = eventually("the others end", async || {
        let children = job::children(trial.db.reader(), scan).await.unwrap();
        (children.iter().filter(|child| child.state == JobState::Succeeded).count() == 3).then_some(children)
    })
    .await;
    let slow = children.iter().find(|child| child.scope_region.as_deref() == Some("region-0")).unwrap();
    assert_eq!(slow.state, JobState::Running);
    drop(worker);
    trial.judge(&Allow { repeats: true, ..Allow::losses(1) }).await;
}

async fn a_minute_of_refusals_costs_time_and_nothing_else(test: TestDatabase) {
    let trial = Trial::on("a_minute_of_refusals_costs_time_and_nothing_else", &test.database).await;
    let told = Special { step: Step::Scopes, order: Order::Take(0), times: 1 };
    let plan = Plan { regions: 4, pages: 3, secrets: 1, ..Plan::default() };
    let refusing = Plan { order: Some(Order::Throttled), special: vec![told], ..plan.clone() };
    let account = trial.account("shared-1", refusing).await;
    let worker = trial.worker("first").await;
    let scan = trial.scan(account).await;
    trial.double.asked(2).await;
    // how long the fault lasts
    tokio::time::sleep(short_or_long(Duration::from_secs(4), Duration::from_secs(60))).await;
    let refused = trial.double.count() - 1;
    trial.double.plan("shared-1", plan);
    eventually("the scan ends", async || read(&trial.db, scan).await.state.is_done().then_some(())).await;
    let ended = read(&trial.db, scan).await;
    assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1), "{ended:?}");
    let children = job::children(trial.db.reader(), scan).await.unwrap();
    let attempts: Vec<_> = children.iter().map(|child| (child.state, child.attempt, child.rescues)).collect();
    assert_eq!(attempts, [(JobState::Succeeded, 1, 0); 4]);
    let journal = trial.double.journal();
    assert!(refused >= 4, "each scope was refused: {refused}");
    keeps(SHARED_RATE, 3, journal.iter().map(|entry| entry.at).collect());
    drop(worker);
    trial.judge(&Allow { repeats: true, ..Allow::NOTHING }).await;
}

async fn a_kill_between_details_and_publication_leaves_every_asset_once(test: TestDatabase) {
    let trial = Trial::on("a_kill_between_details_and_publication", &test.database).await;
    let name = "detailed-1";
    let plan = Plan { regions: 1, pages: 2, secrets: 6, ..Plan::default() };
    // of the first page, all but the last look is answered
    let last = plan.names(name, &Plan::region(0), 0).pop().unwrap();
    let special = vec![Special { step: Step::Look { asset: last }, order: Order::Take(3_600_000), times: 1 }];
    let account = trial.account(name, Plan { special, ..plan }).await;
    let first = trial.worker("first").await;
    let scan = trial.scan(account).await;
    // the scopes, two pages, and a look at each of the first
    trial.double.asked(1 + 2 + 6).await;
    first.kill();
    let found = job::children(trial.db.reader(), scan).await.unwrap().remove(0);
    assert_eq!(found.counts, None, "nothing of the page was published: {found:?}");
    let second = trial.worker("second").await;
    eventually("the scan ends", async || read(&trial.db, scan).await.state.is_done().then_some(())).await;
    let child = job::children(trial.db.reader(), scan).await.unwrap().remove(0);
    assert_eq!((child.state, child.attempt, child.rescues), (JobState::Succeeded, 1, 1));
    let counts = child.counts.as_ref().unwrap();
    assert_eq!((&counts["found"], &counts["created"]), (&json!(12), &json!(12)));
    let versions = asset_version::Entity::find().all(trial.db.reader()).await.unwrap();
    assert_eq!(versions.len(), 12, "each once, in its first version");
    assert!(versions.iter().all(|version| version.version == 1 && version.valid_to.is_none()), "{versions:?}");
    let assets = asset::Entity::find().all(trial.db.reader()).await.unwrap();
    assert!(assets.len() == 12 && assets.iter().all(|asset| asset.detailed_at.is_some()), "{assets:?}");
    drop(second);
    trial.judge(&Allow::losses(1)).await;
}

/// Where a listing can be when somebody wants something of it.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// A call is under way; what is asked for holds from its answer on.
    Call,
    /// The account's rate is used up for half a minute.
    Budget,
    /// The provider said for how long not to ask.
    RetryAfter,
}

impl Wait {
    fn plan(self) -> Plan {
        match self {
            Self::Call => Plan { regions: 1, pages: 400, secrets: 1, ..Plan::default() },
            Self::Budget => Plan { regions: 4, pages: 100, secrets: 1, ..Plan::default() },
            Self::RetryAfter => Plan {
                regions: 1,
                pages: 2,
                secrets: 1,
                special: vec![Special { step: page(0, 1), order: Order::ThrottledFor(4_500), times: u32::MAX }],
                ..Plan::default()
            },
        }
    }

    fn account(self) -> &'static str {
        match self {
            Self::Call => "called",
            Self::Budget => "shared-1",
            Self::RetryAfter => "throttled",
        }
    }
}

async fn people_are_heeded_wherever_a_listing_waits(test: TestDatabase) {
    let api = Api::on(test).await;
    for wait in [Wait::Call, Wait::Budget, Wait::RetryAfter] {
        let trial = Trial::on("people_are_heeded_wherever_a_listing_waits", api.app.database()).await;
        let account = trial.account(wait.account(), wait.plan()).await;
        let worker = trial.worker_with("first", &[("KEYWRIGHT_LEASE_SECONDS", "8")]).await;
        if matches!(wait, Wait::Call) {
            trial.double.hold_from(3);
        }
        let id = trial.scan(account).await.to_string();
        trial.double.asked(3).await;
        let state = async |of: &str| -> Vec<String> {
            let parts = api.viewer().get(&format!("/api/jobs?parentId={of}")).await.ok(200);
            column(parts["data"].as_array().unwrap(), "state")
        };
        let ask = async |of: &str, what: &str| api.operator().post(&format!("/api/jobs/{of}/{what}"), json!({})).await;
        ask(&id, "pause").await.under_way();
        let mut since = Instant::now();
        if matches!(wait, Wait::Call) {
            api.heard(&id).await;
            trial.double.release();
            since = Instant::now();
        }
        within(wait, "pause", since, async || state(&id).await.iter().all(|state| state == "waiting")).await;
        let rested = trial.double.count();
        // nothing is asked for while it rests, and the same attempt goes on
        let parts = api.viewer().get(&format!("/api/jobs?parentId={id}")).await.ok(200);
        assert!(parts["data"].as_array().unwrap().iter().all(|part| part["rescues"] == 0), "{wait:?} {parts}");
        assert_eq!(trial.double.count(), rested, "{wait:?}");
        ask(&id, "resume").await.under_way();
        trial.double.asked(rested + 1).await;
        ask(&id, "cancel").await.under_way();
        within(wait, "cancel", Instant::now(), async || {
            api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200)["state"] == "canceled"
        })
        .await;
        // what it did not get is got by a retry, once the provider answers as usual
        trial.double.plan(wait.account(), Plan { regions: 1, pages: 2, secrets: 1, ..Plan::default() });
        let again = api.operator().post(&format!("/api/jobs/{id}/retry"), json!({"scope": "failed"})).await.under_way();
        let again = again["id"].as_str().unwrap().to_owned();
        let done = api.ended(&again).await;
        assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(1)), "{wait:?} {done}");
        drop(worker);
    }
}

/// Waits until it holds. The two seconds that are promised are asserted where nothing else runs.
async fn within(wait: Wait, what: &str, since: Instant, mut holds: impl AsyncFnMut() -> bool) {
    eventually(what, async || holds().await.then_some(())).await;
    let took = since.elapsed();
    assert!(took <= short_or_long(PATIENCE, Duration::from_secs(2)), "{wait:?}: {what} took {took:?}");
}

async fn a_killed_listing_goes_on_at_its_page(test: TestDatabase) {
    const PAGES: u32 = 1000;
    let trial = Trial::on("a_killed_listing_goes_on_at_its_page", &test.database).await;
    let account = trial.account("one", Plan { regions: 1, pages: PAGES, secrets: 1, ..Plan::default() }).await;
    // the first request is for the scopes
    trial.double.hold_from(501);
    let first = trial.worker("first").await;
    let scan = trial.scan(account).await;
    trial.double.asked(502).await;
    eventually("what came before is published", async || {
        let children = job::children(trial.db.reader(), scan).await.unwrap();
        (children[0].counts.as_ref()?["found"] == 500).then_some(())
    })
    .await;
    first.kill();
    let second = trial.worker("second").await;
    trial.double.asked(503).await;
    trial.double.release();
    eventually("the scan ends", async || read(&trial.db, scan).await.state.is_done().then_some(())).await;
    let child = job::children(trial.db.reader(), scan).await.unwrap().remove(0);
    assert_eq!((child.state, child.attempt, child.rescues), (JobState::Succeeded, 1, 1));
    assert_eq!(child.counts.as_ref().unwrap()["found"], PAGES);
    assert_eq!(trial.double.count(), u64::from(PAGES) + 2, "the scopes, each page, and one page twice");
    assert_eq!(made(&child), [u64::from(PAGES)], "calls of both attempts, each once");
    drop(second);
    trial.judge(&Allow::losses(1)).await;
}

/// The calls that the row of a job tells, by budget.
fn made(job: &job::Model) -> Vec<u64> {
    let calls: Calls = serde_json::from_value(job.calls.clone().unwrap()).unwrap();
    calls.all().values().map(|Made { calls, .. }| *calls).collect()
}

async fn a_scan_tells_how_fast_it_could_have_been(test: TestDatabase) {
    let stub = Stub::start(4 * PAGE + 3).await;
    let instance = Arc::new(Instance::start(&test, &aws_environment(stub.url())).await);
    let subscription =
        json!({"provider": "aws", "externalId": "123456789012", "name": "one", "regions": ["us-east-1"]});
    let subscription = instance.subscribe(&subscription).await;
    let scanning = tokio::spawn({
        let instance = Arc::clone(&instance);
        async move { instance.scan(&subscription).await }
    });
    stub.asked(PAGE, 1).await;
    let scans = instance.get("/api/assets/discovery/scans").await;
    assert_eq!(
        (&scans["data"][0]["providerFloorSeconds"], &scans["data"][0]["efficiency"]),
        (&json!(null), &json!(null))
    );
    stub.let_everything_through();
    let ended = scanning.await.unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let scan = instance.get(&format!("/api/assets/discovery/scans/{}", ended["id"].as_str().unwrap())).await;
    let number = |name: &str| scan[name].as_f64().unwrap_or_else(|| panic!("no {name} in {scan}"));
    let (floor, efficiency) = (number("providerFloorSeconds"), number("efficiency"));
    let time = |name: &str| chrono::DateTime::parse_from_rfc3339(scan[name].as_str().unwrap()).unwrap();
    let taken = (time("completedAt") - time("startedAt")).as_seconds_f64();
    // a policy of each secret at 50 a second, which is longer than five pages at 100
    let listed = job::children(test.database.reader(), ended["id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    let listed = listed.iter().find(|child| child.scope_kind.as_deref() == Some("aws.secretsmanager.secret")).unwrap();
    assert_eq!(made(listed), [43, 5]);
    assert!(floor >= 43.0 / 50.0, "{floor}");
    let expected = (floor / taken).min(1.0);
    assert!(efficiency > 0.0 && (efficiency - expected).abs() < 1e-3, "{efficiency} of {expected}");
}

//! Real processes, killed, frozen, stopped and cut off in the middle of a scan. The cloud's double holds the listing, so that it
//! really is in the middle. Three witnesses cannot agree by accident: what clients were answered, the double's own journal of
//! what it was asked for, and the database.

use super::freeze::freeze;
use keywright_entities::{
    asset_version, clock, job,
    types::{JobState, ProviderKind},
};
use keywright_jobs::setup::database::Database;
use keywright_tests::{
    app::{asset_names, eventually, job as read, scan, subscribe},
    database::TestDatabase,
    instance::{Instance, MASTER_KEY},
    on_both_databases,
    process::{Process, Signal},
    stub::{PAGE, Stub},
    wire::Wire,
};
use sea_orm::{EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const SECRETS: usize = 4 * PAGE + 3;
const PAGES: usize = 5;
/// What an operator's supervisor gives a worker to end in.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

on_both_databases!(
    another_worker_finishes_what_a_killed_one_began,
    a_worker_restarted_under_its_name_finishes_what_it_began,
    a_stopped_worker_gives_back_what_it_was_doing,
    a_frozen_worker_writes_nothing_when_it_thaws,
    a_killed_api_loses_nothing_that_it_answered,
);

/// A worker whose leases last a second.
async fn worker(url: &str, name: &str, stub: &Stub) -> Process {
    let environment = [
        ("DATABASE_URL", url),
        ("KEYWRIGHT_MASTER_KEY", MASTER_KEY),
        ("KEYWRIGHT_LEASE_SECONDS", "1"),
        ("KEYWRIGHT_WORKER_CONCURRENCY", "4"),
        ("KEYWRIGHT_WORKER_LABELS", name),
        ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "0"),
        ("AWS_ENDPOINT_URL", stub.url()),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-real-key"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let mut worker = Process::start("keywright-worker", &environment);
    worker.logged("worker ready").await;
    worker
}

async fn account(db: &Database, name: &str) -> Uuid {
    subscribe(db, ProviderKind::Aws, name, json!(["eu-west-1"]), json!({})).await
}

/// A scan whose listing has published its first page and waits for its second.
struct Midway {
    subscription: Uuid,
    scan: Uuid,
}

impl Midway {
    async fn reached(db: &Database, stub: &Stub) -> Self {
        let subscription = account(db, "123456789012").await;
        let scan = scan(db, None).await;
        stub.asked(PAGE, 1).await;
        eventually("the first page is published", async || {
            (asset_names(db, subscription).await.len() == PAGE).then_some(())
        })
        .await;
        Self { subscription, scan }
    }

    /// Waits for the end, which is a good one with every asset there once; returns the job of the listing.
    async fn succeeds(&self, db: &Database) -> job::Model {
        let ended = eventually("the scan ends", async || {
            let job = read(db, self.scan).await;
            job.state.is_done().then_some(job)
        })
        .await;
        assert_eq!((ended.state, ended.attempt, ended.rescues), (JobState::Succeeded, 1, 0), "{ended:?}");
        let names: Vec<String> = (0..SECRETS).map(|number| format!("secret-{number:04}")).collect();
        assert_eq!(asset_names(db, self.subscription).await, names);
        assert_eq!(ended.counts.unwrap()["found"], json!(SECRETS));
        assert_eq!(versions(db).await, SECRETS as u64, "no asset was written twice");
        listing(db, self.scan).await
    }
}

async fn versions(db: &Database) -> u64 {
    asset_version::Entity::find().count(db.reader()).await.unwrap()
}

async fn listing(db: &Database, scan: Uuid) -> job::Model {
    let children = job::children(db.reader(), scan).await.unwrap();
    children.into_iter().find(|child| child.scope_kind.as_deref() == Some("aws.secretsmanager.secret")).unwrap()
}

async fn another_worker_finishes_what_a_killed_one_began(test: TestDatabase) {
    let (db, stub) = (&test.database, Stub::start(SECRETS).await);
    let first = worker(test.url(), "first", &stub).await;
    let midway = Midway::reached(db, &stub).await;
    let _second = worker(test.url(), "second", &stub).await;
    first.kill();
    // asked for again by the one that took over
    stub.asked(PAGE, 2).await;
    stub.let_everything_through();
    let listing = midway.succeeds(db).await;
    assert_eq!((listing.attempt, listing.rescues), (1, 1));
    assert_eq!(stub.journal().len(), PAGES + 1, "what was published is not asked for again: {:?}", stub.journal());
}

async fn a_worker_restarted_under_its_name_finishes_what_it_began(test: TestDatabase) {
    let (db, stub) = (&test.database, Stub::start(SECRETS).await);
    let first = worker(test.url(), "same", &stub).await;
    let midway = Midway::reached(db, &stub).await;
    first.kill();
    stub.let_everything_through();
    let _again = worker(test.url(), "same", &stub).await;
    let listing = midway.succeeds(db).await;
    assert_eq!((listing.attempt, listing.rescues), (1, 1));
}

async fn a_stopped_worker_gives_back_what_it_was_doing(test: TestDatabase) {
    let (db, stub) = (&test.database, Stub::start(SECRETS).await);
    let mut first = worker(test.url(), "first", &stub).await;
    let midway = Midway::reached(db, &stub).await;
    first.signal(Signal::Term);
    first.logged("SIGTERM").await;
    // the page on its way is answered, but its secrets are not looked at closely any more: whoever goes on lists it again
    stub.let_through(1);
    let status = first.ended(STOPS_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{}", first.log());
    let back = listing(db, midway.scan).await;
    assert_eq!((back.state, back.attempt, back.rescues), (JobState::Queued, 0, 0));
    assert_eq!(asset_names(db, midway.subscription).await.len(), PAGE);
    stub.let_everything_through();
    let _second = worker(test.url(), "second", &stub).await;
    let listing = midway.succeeds(db).await;
    assert_eq!((listing.attempt, listing.rescues), (1, 0));
}

async fn a_frozen_worker_writes_nothing_when_it_thaws(test: TestDatabase) {
    let (db, stub) = (&test.database, Stub::start(SECRETS).await);
    let mut first = worker(test.url(), "first", &stub).await;
    let midway = Midway::reached(db, &stub).await;
    freeze(db, &first).await;
    let second = worker(test.url(), "second", &stub).await;
    stub.asked(PAGE, 2).await;
    stub.let_everything_through();
    let ended = midway.succeeds(db).await;
    assert_eq!((ended.attempt, ended.rescues), (1, 1));
    let asked = stub.journal().len();
    first.signal(Signal::Continue);
    first.logged("this attempt writes nothing more").await;
    assert_eq!(listing(db, midway.scan).await, ended);
    assert_eq!(versions(db).await, SECRETS as u64);
    assert_eq!(stub.journal().len(), asked, "nor does it ask for anything");
    second.kill();
    let again = Midway { scan: scan(db, None).await, ..midway };
    again.succeeds(db).await;
}

async fn a_killed_api_loses_nothing_that_it_answered(test: TestDatabase) {
    let instance = Instance::start(&test, &[]).await;
    instance.worker.signal(Signal::Stop);
    let subscription = json!({"provider": "local", "externalId": "here", "name": "here", "settings": {"local": {"paths": ["/dev/null"]}}});
    instance.subscribe(&subscription).await;
    let mut answered = Vec::new();
    for _ in 0..20 {
        let (status, job) = instance.post("/api/assets/discovery/scan", &json!({"onConflict": "queue"})).await;
        assert_eq!(status.as_u16(), 202, "{job}");
        answered.push(job["id"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    let Instance { api, .. } = instance;
    api.kill();
    for id in answered {
        assert_eq!(read(&test.database, id).await.kind, "discovery.scan");
    }
}

/// PostgreSQL only: what is away here is the way to the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_costs_no_rescue() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let (db, stub) = (&test.database, Stub::start(SECRETS).await);
    let (user, server) = test.url().split_once('@').unwrap();
    let (server, name) = server.split_once('/').unwrap();
    let wire = Wire::to(server).await;
    let url = format!("{user}@{}/{name}", wire.address());
    let mut workers = [worker(&url, "first", &stub).await, worker(&url, "second", &stub).await];
    const ACCOUNTS: usize = 3;
    for number in 0..ACCOUNTS {
        account(db, &format!("account-{number}")).await;
    }
    let scan = scan(db, None).await;
    stub.asked(PAGE, ACCOUNTS).await;
    eventually("only the held listings are left", async || {
        (versions(db).await == (ACCOUNTS * PAGE) as u64 && leases(db, ">").await == ACCOUNTS as u64).then_some(())
    })
    .await;
    wire.cut();
    eventually("every lease lapses", async || (leases(db, "<").await == ACCOUNTS as u64).then_some(())).await;
    for worker in &mut workers {
        worker.logged("leases could not be renewed").await;
    }
    wire.mend();
    eventually("their holders renew them", async || (leases(db, ">").await == ACCOUNTS as u64).then_some(())).await;
    stub.let_everything_through();
    let ended = eventually("the scan ends", async || {
        let job = read(db, scan).await;
        job.state.is_done().then_some(job)
    })
    .await;
    assert_eq!(ended.state, JobState::Succeeded);
    for child in job::children(db.reader(), scan).await.unwrap() {
        assert_eq!((child.attempt, child.rescues), (1, 0), "{child:?}");
    }
    assert_eq!(stub.journal().len(), ACCOUNTS * PAGES, "nothing is asked for twice");
    assert_eq!(versions(db).await, (ACCOUNTS * SECRETS) as u64);
}

/// How many leases end before or after now.
async fn leases(db: &Database, order: &str) -> u64 {
    let now = clock::sql(db.backend(), 0);
    let leases = job::Entity::find().filter(Expr::cust(format!("lease_until {order} {now}")));
    leases.count(db.reader()).await.unwrap()
}

//! Scans over the in-memory cloud, disturbed at chosen places.

use keywright_entities::{
    asset_version, clock, job,
    types::{JobState, WaitingFor},
};
use keywright_jobs::{
    domain::inventory::{ScopeId, Warning},
    queue::{claim, control},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings, asset_names, eventually, job as read},
    database::TestDatabase,
    on_both_databases,
};
use keywright_worker::{
    providers::memory::{Call, Operation, secrets_in},
    runner::Ended,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    workers_share_a_scan,
    a_denied_scope_makes_the_scan_partial,
    a_throttled_scope_waits_and_goes_on_where_it_was,
    a_stopped_worker_gives_its_jobs_back,
    an_idle_worker_stops_at_once,
    page_tokens_that_expired_meanwhile_publish_nothing_twice,
    a_canceled_scan_keeps_what_it_found,
    an_attempt_that_lost_its_job_publishes_nothing,
    what_is_gone_is_removed_by_a_listing_that_came_to_its_end,
);

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("secret-{number:04}")).collect()
}

/// A subscription to one region of this many secrets, on pages of ten.
async fn region(app: &TestApp, count: usize) -> (Uuid, ScopeId) {
    let scope = secrets_in("north");
    app.cloud.page_size(10);
    app.cloud.put_secrets("one", &scope, count);
    (app.subscribe("one").await, scope)
}

/// Whether this lists the page after the one that ends with this secret.
fn goes_on_after(call: &Call, name: &str) -> bool {
    matches!(&call.operation, Operation::List { page: Some(page), .. } if page.contains(name))
}

/// Lets a job that waits be due now.
async fn let_come(app: &TestApp, id: Uuid) {
    const DUE: &str = "UPDATE job SET due_at = {now} WHERE id = $1";
    let due = clock::statement(app.database().backend(), DUE, [id.into()]);
    app.database().reader().execute_raw(due).await.unwrap();
}

async fn only_child(app: &TestApp, scan: Uuid) -> job::Model {
    let children = job::children(app.database().reader(), scan).await.unwrap();
    assert_eq!(children.len(), 1, "{children:?}");
    children.into_iter().next().unwrap()
}

async fn workers_share_a_scan(test: TestDatabase) {
    let app = TestApp::on(test);
    app.cloud.page_size(10);
    for region in ["north", "south", "east", "west"] {
        app.cloud.put_secrets("one", &secrets_in(region), 35);
    }
    app.cloud.warn("one", &secrets_in("east"), Warning::new("east/x", "unreadable", "It could not be read."));
    let subscription = app.subscribe("one").await;
    let settings = || WorkerSettings { concurrency: 1, ..WorkerSettings::default() };
    let (first, second) = (app.worker(settings()).await, app.worker(settings()).await);
    let ended = app.ended(app.scan().await).await;
    assert_eq!((ended.state, ended.children_succeeded, ended.attempt), (JobState::Succeeded, 4, 1));
    let counts = json!({"found": 140, "created": 140, "changed": 0, "unchanged": 0, "removed": 0, "warnings": 1});
    assert_eq!(ended.counts, Some(counts));
    assert_eq!(asset_names(app.database(), subscription).await.len(), 140);
    assert_eq!(app.cloud.count(|call| call.lists("north")), 4, "each page is listed once");
    let again = app.ended(app.scan().await).await;
    let counts = json!({"found": 140, "created": 0, "changed": 0, "unchanged": 140, "removed": 0, "warnings": 1});
    assert_eq!(again.counts, Some(counts));
    assert_eq!((first.stop().await, second.stop().await), (Ended::Clean, Ended::Clean));
}

async fn a_denied_scope_makes_the_scan_partial(test: TestDatabase) {
    let app = TestApp::on(test);
    for region in ["north", "south"] {
        app.cloud.put_secrets("one", &secrets_in(region), 3);
    }
    app.cloud.deny("memory:List", |call| call.lists("south"));
    app.subscribe("one").await;
    app.subscribe("nobody").await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let ended = app.ended(app.scan().await).await;
    assert_eq!(ended.state, JobState::Partial);
    assert_eq!((ended.children_succeeded, ended.children_denied, ended.children_failed), (1, 1, 1));
    let children = job::children(app.database().reader(), ended.id).await.unwrap();
    let reason = |region: &str| {
        let child = children.iter().find(|child| child.scope_region.as_deref() == Some(region)).unwrap();
        (child.error_code.clone().unwrap_or_default(), child.error_permission.clone().unwrap_or_default())
    };
    assert_eq!(reason("south"), ("permission_denied".to_owned(), "memory:List".to_owned()));
    assert_eq!(reason("*"), ("not_authenticated".to_owned(), String::new()));
}

async fn a_throttled_scope_waits_and_goes_on_where_it_was(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, _) = region(&app, 35).await;
    let hour = Duration::from_secs(3600);
    app.cloud.throttle(1, hour, |call| goes_on_after(call, "secret-0019"));
    let _worker = app.worker(WorkerSettings::default()).await;
    let scan = app.scan().await;
    let waiting = eventually("the scope waits", async || {
        let children = job::children(app.database().reader(), scan).await.unwrap();
        children.into_iter().find(|child| child.state == JobState::Waiting)
    })
    .await;
    assert_eq!((waiting.attempt, waiting.waiting_for), (0, Some(WaitingFor::Quota)), "it costs no attempt");
    let now = clock::now(app.database().reader()).await.unwrap();
    assert!(waiting.due_at.unwrap() > now + chrono::Duration::minutes(59), "as long as the cloud asked for");
    assert_eq!(asset_names(app.database(), subscription).await, names(20), "what came before is there already");
    let_come(&app, waiting.id).await;
    let ended = app.ended(scan).await;
    assert_eq!(ended.state, JobState::Succeeded);
    assert_eq!(only_child(&app, scan).await.attempt, 1);
    assert_eq!(asset_names(app.database(), subscription).await, names(35));
    assert_eq!(app.cloud.count(|call| call.lists("north")), 5, "four pages, one of them asked for twice");
}

async fn a_stopped_worker_gives_its_jobs_back(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, _) = region(&app, 35).await;
    let hold = app.cloud.hold(|call| call.lists("north"));
    let worker = app.worker(WorkerSettings::default()).await;
    let scan = app.scan().await;
    app.cloud.reached(1, |call| call.lists("north")).await;
    // what waits for the cloud when the stop comes still publishes its answer, and asks for nothing more
    let (ended, ()) = tokio::join!(worker.stop(), async {
        app.cloud.heal();
        hold.release();
    });
    assert_eq!(ended, Ended::Clean);
    let child = only_child(&app, scan).await;
    if child.state != JobState::Succeeded {
        assert_eq!((child.state, child.attempt, child.rescues), (JobState::Queued, 0, 0));
    }
    let _second = app.worker(WorkerSettings::default()).await;
    assert_eq!(app.ended(scan).await.state, JobState::Succeeded);
    let child = only_child(&app, scan).await;
    assert_eq!((child.attempt, child.rescues), (1, 0));
    assert_eq!(asset_names(app.database(), subscription).await, names(35));
    assert_eq!(app.cloud.count(|call| call.lists("north")), 4, "no page is listed twice");
}

async fn an_idle_worker_stops_at_once(test: TestDatabase) {
    let app = TestApp::on(test);
    let worker = app.worker(WorkerSettings { grace: Duration::from_secs(3600), ..WorkerSettings::default() }).await;
    app.cloud.account("one");
    app.subscribe("one").await;
    assert_eq!(app.ended(app.scan().await).await.state, JobState::Succeeded);
    assert_eq!(worker.stop().await, Ended::Clean);
}

async fn page_tokens_that_expired_meanwhile_publish_nothing_twice(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, _) = region(&app, 35).await;
    let hour = Duration::from_secs(3600);
    app.cloud.throttle(1, hour, |call| goes_on_after(call, "secret-0019"));
    let _worker = app.worker(WorkerSettings::default()).await;
    let scan = app.scan().await;
    let waiting = eventually("the scope waits", async || {
        let children = job::children(app.database().reader(), scan).await.unwrap();
        children.into_iter().find(|child| child.state == JobState::Waiting)
    })
    .await;
    app.cloud.expire_pages();
    let_come(&app, waiting.id).await;
    let ended = app.ended(scan).await;
    assert_eq!(ended.state, JobState::Succeeded);
    let counts = json!({"found": 35, "created": 35, "changed": 0, "unchanged": 0, "removed": 0, "warnings": 0});
    assert_eq!(ended.counts, Some(counts));
    assert_eq!(asset_names(app.database(), subscription).await, names(35));
    assert_eq!(asset_version::Entity::find().count(app.database().reader()).await.unwrap(), 35);
}

async fn a_canceled_scan_keeps_what_it_found(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, _) = region(&app, 35).await;
    let hold = app.cloud.hold(|call| call.lists("north"));
    // its only slot is taken: the news must come all the same
    let _worker = app.worker(WorkerSettings { concurrency: 1, ..WorkerSettings::default() }).await;
    let scan = app.scan().await;
    app.cloud.reached(1, |call| call.lists("north")).await;
    let write = app.database().begin().await.unwrap();
    control::cancel(&*write, scan).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(read(app.database(), scan).await.state, JobState::Canceling);
    app.cloud.heal();
    hold.release();
    let ended = app.ended(scan).await;
    // the worker may have got further before it heard
    if ended.state != JobState::Succeeded {
        assert_eq!(ended.state, JobState::Canceled);
    }
    let found = asset_names(app.database(), subscription).await;
    assert!(found.len() >= 10 && found.len() % 10 == 0 || found.len() == 35, "whole pages: {found:?}");
    assert_eq!(app.cloud.count(|call| call.lists("north")), found.len().div_ceil(10), "what was read is published");
}

async fn an_attempt_that_lost_its_job_publishes_nothing(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, _) = region(&app, 35).await;
    let hold = app.cloud.hold(|call| call.lists("north"));
    let frozen = app.worker(WorkerSettings::default()).await;
    let scan = app.scan().await;
    app.cloud.reached(1, |call| call.lists("north")).await;
    let child = only_child(&app, scan).await;
    let taken = eventually("the job is taken back", async || {
        let past =
            format!("UPDATE job SET lease_until = {} WHERE id = $1", clock::sql(app.database().backend(), -60_000));
        let lapse = clock::statement(app.database().backend(), &past, [child.id.into()]);
        app.database().reader().execute_raw(lapse).await.unwrap();
        // a renewal may have come between
        (claim::rescue(app.database()).await.unwrap() > 0).then_some(())
    });
    taken.await;
    app.cloud.reached(2, |call| call.lists("north")).await;
    app.cloud.heal();
    hold.release();
    assert_eq!(app.ended(scan).await.state, JobState::Succeeded);
    let child = only_child(&app, scan).await;
    assert_eq!((child.attempt, child.rescues), (1, 1));
    assert_eq!(asset_names(app.database(), subscription).await, names(35));
    assert_eq!(frozen.stop().await, Ended::Clean);
    let versions = asset_version::Entity::find().filter(asset_version::Column::JobId.eq(child.id));
    assert_eq!(versions.count(app.database().reader()).await.unwrap(), 35, "each once");
    assert_eq!(read(app.database(), child.id).await, child, "nothing after the end");
}

async fn what_is_gone_is_removed_by_a_listing_that_came_to_its_end(test: TestDatabase) {
    let app = TestApp::on(test);
    let (subscription, scope) = region(&app, 25).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    app.ended(app.scan().await).await;
    assert!(app.cloud.remove("one", &scope, "memory:north:secret-0024"));
    app.cloud.deny("memory:List", |call| call.lists("north"));
    assert_eq!(app.ended(app.scan().await).await.state, JobState::Failed);
    assert_eq!(asset_names(app.database(), subscription).await, names(25), "a listing that failed removes nothing");
    app.cloud.heal();
    let ended = app.ended(app.scan().await).await;
    assert_eq!(ended.counts.unwrap()["removed"], 1);
    assert_eq!(asset_names(app.database(), subscription).await, names(24));
}

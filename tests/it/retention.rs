//! What has had its time is forgotten, what is open or young is not.

use keywright_entities::{audit_outbox, clock, job, scan, scan_warning};
use keywright_jobs::{
    domain::inventory::Warning,
    retention,
    setup::{database::Database, ids},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings},
    database::TestDatabase,
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait, PaginatorTrait};
use uuid::Uuid;

on_both_databases!(ended_jobs_go_with_all_that_is_theirs, what_a_dead_worker_left_is_found);

const DAYS: u32 = 30;

/// Lets the job and its children have ended this many days ago.
async fn age(db: &Database, id: Uuid, days: i64) {
    let then = clock::sql(db.backend(), -days * 24 * 3600 * 1000);
    let text =
        format!("UPDATE job SET completed_at = {then} WHERE completed_at IS NOT NULL AND (id = $1 OR parent_id = $1)");
    db.reader().execute_raw(clock::statement(db.backend(), &text, [id.into()])).await.unwrap();
}

async fn left(db: &Database) -> (u64, u64, u64) {
    let jobs = job::Entity::find().count(db.reader()).await.unwrap();
    let scans = scan::Entity::find().count(db.reader()).await.unwrap();
    (jobs, scans, scan_warning::Entity::find().count(db.reader()).await.unwrap())
}

/// Two scans of two scopes each, one of them with more warnings than one transaction deletes, and one that is open.
async fn scans(app: &TestApp) -> [Uuid; 3] {
    for region in ["north", "south"] {
        app.cloud.put_secrets("one", &secrets_in(region), 3);
    }
    app.subscribe("one").await;
    let worker = app.worker(WorkerSettings::default()).await;
    let (first, second) = (app.scan().await, app.scan().await);
    app.ended(first).await;
    app.ended(second).await;
    worker.stop().await;
    let child = job::children(app.database().reader(), first).await.unwrap().remove(0).id;
    let warnings = (0..1200).map(|n| {
        let Warning { path, code, detail } = Warning::new(format!("p{n}"), "unreadable", "It could not be read.");
        scan_warning::ActiveModel {
            id: Set(ids::new()),
            scan_id: Set(first),
            job_id: Set(child),
            path: Set(path),
            code: Set(code),
            detail: Set(detail),
        }
    });
    scan_warning::Entity::insert_many(warnings).exec_without_returning(app.database().reader()).await.unwrap();
    [first, second, app.scan().await]
}

async fn ended_jobs_go_with_all_that_is_theirs(test: TestDatabase) {
    let app = TestApp::on(test);
    let [first, second, open] = scans(&app).await;
    let db = app.database();
    age(db, first, 31).await;
    age(db, second, 29).await;
    let events = audit_outbox::Entity::find().count(db.reader()).await.unwrap();
    assert_eq!(left(db).await, (7, 3, 1200));
    retention::forget(db, 0).await.unwrap();
    assert_eq!(left(db).await, (7, 3, 1200), "0 days keep all");
    assert_eq!(retention::forget(db, DAYS).await.unwrap(), 3);
    assert_eq!(left(db).await, (4, 2, 0));
    assert!(job::by_id(db.reader(), first).await.unwrap().is_none());
    assert_eq!(job::children(db.reader(), second).await.unwrap().len(), 2);
    assert!(job::by_id(db.reader(), open).await.unwrap().is_some());
    assert_eq!(retention::forget(db, DAYS).await.unwrap(), 0);
    assert_eq!(audit_outbox::Entity::find().count(db.reader()).await.unwrap(), events);
}

async fn what_a_dead_worker_left_is_found(test: TestDatabase) {
    let app = TestApp::on(test);
    let [first, second, _] = scans(&app).await;
    let db = app.database();
    age(db, first, 31).await;
    age(db, second, 29).await;
    job::Entity::delete_by_id(first).exec(db.reader()).await.unwrap();
    scan::Entity::delete_by_id(first).exec(db.reader()).await.unwrap();
    assert_eq!(retention::forget(db, DAYS).await.unwrap(), 2);
    assert_eq!(left(db).await, (4, 2, 0));
}

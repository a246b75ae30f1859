//! What has had its time is forgotten, what is open or young is not.

use chrono::TimeDelta;
use keywright_entities::{
    audit_outbox, clock, job, refresh_token, scan, scan_warning, schedule, schedule_run, session,
    types::{CatchUp, RunOutcome},
};
use keywright_jobs::{
    domain::inventory::Warning,
    retention::{self, Retention},
    setup::{database::Database, ids},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings},
    database::TestDatabase,
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::json;
use uuid::Uuid;

on_both_databases!(
    ended_jobs_go_with_all_that_is_theirs,
    what_a_dead_worker_left_is_found,
    each_kind_has_its_days,
    sign_ins_go_a_week_after_their_end,
    runs_of_schedules_go_but_for_the_last,
);

const DAYS: u32 = 30;

fn days(days: u32) -> Retention {
    Retention { days, ..Retention::default() }
}

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
    retention::forget(db, &Retention::default()).await.unwrap();
    assert_eq!(left(db).await, (7, 3, 1200), "0 days keep all");
    assert_eq!(retention::forget(db, &days(DAYS)).await.unwrap(), 3);
    assert_eq!(left(db).await, (4, 2, 0));
    assert!(job::by_id(db.reader(), first).await.unwrap().is_none());
    assert_eq!(job::children(db.reader(), second).await.unwrap().len(), 2);
    assert!(job::by_id(db.reader(), open).await.unwrap().is_some());
    assert_eq!(retention::forget(db, &days(DAYS)).await.unwrap(), 0);
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
    assert_eq!(retention::forget(db, &days(DAYS)).await.unwrap(), 2);
    assert_eq!(left(db).await, (4, 2, 0));
}

async fn each_kind_has_its_days(test: TestDatabase) {
    let app = TestApp::on(test);
    let [first, second, _] = scans(&app).await;
    let db = app.database();
    age(db, first, 31).await;
    age(db, second, 91).await;
    let by_kind = |kind: &str, days| Retention { kinds: [(kind.to_owned(), days)].into(), ..self::days(DAYS) };
    assert_eq!(
        retention::forget(db, &by_kind("discovery.scan", 0)).await.unwrap(),
        0,
        "0 days keep all, with their parts"
    );
    assert_eq!(retention::forget(db, &by_kind("discovery.scan", 90)).await.unwrap(), 3);
    assert!(job::by_id(db.reader(), second).await.unwrap().is_none());
    assert_eq!(job::children(db.reader(), first).await.unwrap().len(), 2, "parts stay as long as their job");
    assert_eq!(retention::forget(db, &by_kind("discovery.scope", 1)).await.unwrap(), 3, "the scan's own days count");
    age(db, first, 8).await;
    assert_eq!(left(db).await, (1, 1, 0), "what is open stays");
}

/// A sign-in with this many refresh tokens, all of which ended this many days ago.
async fn sign_in(db: &Database, ended_days_ago: i64, tokens: usize) -> Uuid {
    let end = clock::now(db.reader()).await.unwrap() - TimeDelta::days(ended_days_ago);
    let row = session::ActiveModel {
        id: Set(ids::new()),
        user_id: Set(ids::new()),
        created_at: Set(end - TimeDelta::days(1)),
        last_used_at: Set(end),
        expires_at: Set(end),
        revoked_at: Set(None),
        user_agent: Set(None),
        address: Set(None),
        sso: Set(false),
    };
    let session = row.insert(db.reader()).await.unwrap().id;
    let tokens = (0..tokens).map(|_| refresh_token::ActiveModel {
        hash: Set(ids::new().to_string()),
        session_id: Set(session),
        created_at: Set(end - TimeDelta::days(1)),
        expires_at: Set(end),
        used_at: Set(None),
    });
    refresh_token::Entity::insert_many(tokens).exec_without_returning(db.reader()).await.unwrap();
    session
}

async fn sign_ins_go_a_week_after_their_end(test: TestDatabase) {
    let db = &test.database;
    sign_in(db, 8, 700).await;
    let (young, live) = (sign_in(db, 6, 2).await, sign_in(db, -1, 1).await);
    // however long jobs are kept
    assert_eq!(retention::forget(db, &Retention::default()).await.unwrap(), 701);
    let mut left: Vec<Uuid> =
        session::Entity::find().all(db.reader()).await.unwrap().iter().map(|row| row.id).collect();
    left.sort_unstable();
    let mut expected = [young, live];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(refresh_token::Entity::find().count(db.reader()).await.unwrap(), 3);
    assert_eq!(retention::forget(db, &Retention::default()).await.unwrap(), 0);
}

/// A schedule that fired as many days ago as these, the last of them being its last run.
async fn fired(db: &Database, days_ago: &[i64]) -> Uuid {
    let (id, now) = (ids::new(), clock::now(db.reader()).await.unwrap());
    let mut last = None;
    for days in days_ago {
        let at = now - TimeDelta::days(*days);
        let run = schedule_run::ActiveModel {
            id: Set(ids::new()),
            schedule_id: Set(id),
            due_at: Set(at),
            fired_at: Set(at),
            outcome: Set(RunOutcome::Missed),
            job_id: Set(None),
            reason_code: Set(None),
            reason_detail: Set(None),
        };
        last = Some(run.insert(db.reader()).await.unwrap().id);
    }
    let row = schedule::ActiveModel {
        id: Set(id),
        name: Set("test".to_owned()),
        cron: Set("0 0 1 1 *".to_owned()),
        time_zone: Set("UTC".to_owned()),
        kind: Set("discovery.scan".to_owned()),
        body: Set(json!({})),
        catch_up: Set(CatchUp::None),
        enabled: Set(false),
        owner_id: Set(ids::new()),
        next_fire_at: Set(None),
        blocked_at: Set(None),
        last_run_id: Set(last),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    row.insert(db.reader()).await.unwrap();
    id
}

async fn runs_of_schedules_go_but_for_the_last(test: TestDatabase) {
    let db = &test.database;
    let (old, young) = (fired(db, &[80, 70, 60]).await, fired(db, &[40, 31, 29]).await);
    assert_eq!(retention::forget(db, &Retention::default()).await.unwrap(), 0, "0 days keep all");
    assert_eq!(retention::forget(db, &days(DAYS)).await.unwrap(), 4);
    let runs = schedule_run::Entity::find().all(db.reader()).await.unwrap();
    let mut left: Vec<Uuid> = runs.iter().map(|run| run.schedule_id).collect();
    left.sort_unstable();
    let mut expected = [old, young];
    expected.sort_unstable();
    assert_eq!(left, expected, "the last of each");
    assert_eq!(retention::forget(db, &days(DAYS)).await.unwrap(), 0);
}

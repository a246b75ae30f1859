//! Schedules fire once per instant, whoever looks and whoever dies.

use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::{
    clock, job, schedule, schedule_run,
    types::{CatchUp, ProviderKind, Role, RunOutcome},
    user_account,
};
use keywright_jobs::{
    schedules,
    setup::{database::Database, ids},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings, eventually, subscribe},
    database::TestDatabase,
    instance::MASTER_KEY,
    on_both_databases,
    process::Process,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    sea_query::Expr,
};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases!(
    a_running_worker_fires_what_is_due,
    many_who_look_at_once_fire_once,
    what_was_missed_is_made_up_for,
    an_instant_that_fired_never_fires_again,
    one_that_cannot_be_read_stops_nobody,
    killed_workers_neither_lose_nor_repeat_an_instant,
);

async fn owner(db: &Database) -> Uuid {
    let now = clock::now(db.reader()).await.unwrap();
    let row = user_account::ActiveModel {
        id: Set(ids::new()),
        name: Set("ada".to_owned()),
        name_key: Set(ids::new().to_string()),
        password_hash: Set(None),
        password_generated: Set(false),
        role: Set(Role::Operator),
        disabled: Set(false),
        subscriptions: Set(None),
        sso_issuer: Set(None),
        sso_subject: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    row.insert(db.reader()).await.unwrap().id
}

/// A schedule of scans that is due since `ago`.
async fn put(db: &Database, cron: &str, catch_up: CatchUp, ago: TimeDelta) -> schedule::Model {
    let now = clock::micros(clock::now(db.reader()).await.unwrap());
    let row = schedule::ActiveModel {
        id: Set(ids::new()),
        name: Set("test".to_owned()),
        cron: Set(cron.to_owned()),
        time_zone: Set("UTC".to_owned()),
        kind: Set("discovery.scan".to_owned()),
        body: Set(json!({"onConflict": "queue"})),
        catch_up: Set(catch_up),
        enabled: Set(true),
        owner_id: Set(owner(db).await),
        next_fire_at: Set(Some(now - ago)),
        blocked_at: Set(None),
        last_run_id: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    row.insert(db.reader()).await.unwrap()
}

/// The runs of a schedule in order.
async fn runs(db: &Database, schedule: &schedule::Model) -> Vec<schedule_run::Model> {
    schedule_run::Entity::find()
        .filter(schedule_run::Column::ScheduleId.eq(schedule.id))
        .order_by_asc(schedule_run::Column::DueAt)
        .all(db.reader())
        .await
        .unwrap()
}

async fn jobs(db: &Database) -> u64 {
    job::Entity::find().filter(job::Column::ParentId.is_null()).count(db.reader()).await.unwrap()
}

async fn read(db: &Database, schedule: &schedule::Model) -> schedule::Model {
    schedule::Entity::find_by_id(schedule.id).one(db.reader()).await.unwrap().unwrap()
}

async fn a_running_worker_fires_what_is_due(test: TestDatabase) {
    let app = TestApp::on(test);
    app.subscribe("one").await;
    app.cloud.account("one");
    let db = app.database();
    let schedule = put(db, "0 0 1 1 *", CatchUp::Last, TimeDelta::seconds(-1)).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let run = eventually("the schedule fires", async || runs(db, &schedule).await.pop()).await;
    assert_eq!((run.outcome, Some(run.due_at)), (RunOutcome::Started, schedule.next_fire_at));
    assert!(run.fired_at >= run.due_at, "not before its time: {run:?}");
    let ended = app.ended(run.job_id.unwrap()).await;
    assert_eq!(ended.requested_by_id, Some(schedule.id.to_string()));
    let after = read(db, &schedule).await;
    assert_eq!((after.last_run_id, after.version), (Some(run.id), 1));
    assert!(after.next_fire_at.unwrap().to_string().contains("-01-01 00:00:00"), "{after:?}");
}

async fn many_who_look_at_once_fire_once(test: TestDatabase) {
    let db = &test.database;
    subscribe(db, ProviderKind::Aws, "one", json!([]), json!({})).await;
    let others = [test.another().await, test.another().await, test.another().await];
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(put(db, "0 0 1 1 *", CatchUp::All, TimeDelta::seconds(5)).await);
    }
    let looking = others.iter().chain([db]).map(|db| async move {
        for _ in 0..3 {
            schedules::fire_due(db).await.unwrap();
        }
    });
    futures::future::join_all(looking).await;
    assert_eq!(jobs(db).await, 10);
    for schedule in &all {
        assert_eq!(runs(db, schedule).await.len(), 1);
    }
}

async fn what_was_missed_is_made_up_for(test: TestDatabase) {
    let db = &test.database;
    subscribe(db, ProviderKind::Aws, "one", json!([]), json!({})).await;
    let drain = async || while schedules::fire_due(db).await.unwrap() > 0 {};
    // far from any full hour, whenever this runs
    let hours = TimeDelta::minutes(150);
    let mut made = Vec::new();
    for policy in [CatchUp::None, CatchUp::Last, CatchUp::All] {
        made.push(put(db, "0,30 * * * *", policy, hours).await);
    }
    let now = clock::now(db.reader()).await.unwrap();
    drain().await;
    let [none, last, all] = made.as_slice() else { panic!("three") };
    let latest = read(db, last).await.next_fire_at.unwrap() - TimeDelta::minutes(30);
    let fresh = now - latest <= TimeDelta::seconds(30);
    let outcomes =
        async |schedule| -> Vec<RunOutcome> { runs(db, schedule).await.iter().map(|run| run.outcome).collect() };
    assert_eq!(outcomes(none).await, [if fresh { RunOutcome::Started } else { RunOutcome::Missed }]);
    assert_eq!(outcomes(last).await, [RunOutcome::Started]);
    assert_eq!(runs(db, last).await[0].due_at, latest);
    let each: Vec<DateTime<Utc>> = runs(db, all).await.iter().map(|run| run.due_at).collect();
    assert_eq!(each.first().copied(), all.next_fire_at);
    assert_eq!(each.last().copied(), Some(latest));
    // the one that was stored, and every half hour since
    assert!(
        each.len() >= 6 && each.windows(2).skip(1).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(30)),
        "{each:?}"
    );
    assert!(outcomes(all).await.iter().all(|outcome| *outcome == RunOutcome::Started));
    for schedule in &made {
        assert!(read(db, schedule).await.next_fire_at.unwrap() > now);
    }
    // years of minutes cost no more than a hundred jobs
    let before = jobs(db).await;
    let minutely = put(db, "* * * * *", CatchUp::All, TimeDelta::days(3000)).await;
    drain().await;
    let caught_up = runs(db, &minutely).await;
    assert!((100..=102).contains(&caught_up.len()), "{}", caught_up.len());
    assert_eq!(jobs(db).await - before, caught_up.len() as u64);
}

async fn an_instant_that_fired_never_fires_again(test: TestDatabase) {
    let db = &test.database;
    subscribe(db, ProviderKind::Aws, "one", json!([]), json!({})).await;
    let schedule = put(db, "0 0 1 1 *", CatchUp::Last, TimeDelta::seconds(5)).await;
    for _ in 0..3 {
        assert_eq!(schedules::fire_due(db).await.unwrap(), 1);
        schedule::Entity::update_many()
            .col_expr(schedule::Column::NextFireAt, Expr::value(schedule.next_fire_at))
            .exec(db.reader())
            .await
            .unwrap();
    }
    assert_eq!((runs(db, &schedule).await.len(), jobs(db).await), (1, 1));
    // and the database itself would refuse it
    let mut run: schedule_run::ActiveModel = runs(db, &schedule).await.remove(0).into();
    run.id = Set(ids::new());
    assert!(run.insert(db.reader()).await.is_err());
}

async fn one_that_cannot_be_read_stops_nobody(test: TestDatabase) {
    let db = &test.database;
    subscribe(db, ProviderKind::Aws, "one", json!([]), json!({})).await;
    let broken = put(db, "every full moon", CatchUp::Last, TimeDelta::hours(2)).await;
    let stranger = put(db, "0 0 1 1 *", CatchUp::Last, TimeDelta::hours(1)).await;
    let body = put(db, "0 0 1 1 *", CatchUp::Last, TimeDelta::hours(1)).await;
    let good = put(db, "0 0 1 1 *", CatchUp::Last, TimeDelta::seconds(1)).await;
    let change = async |id: Uuid, column, value: Value| {
        let text = value.as_str().map_or_else(|| Expr::value(value.clone()), Expr::value);
        schedule::Entity::update_many()
            .col_expr(column, text)
            .filter(schedule::Column::Id.eq(id))
            .exec(db.reader())
            .await
            .unwrap();
    };
    change(stranger.id, schedule::Column::Kind, json!("of.a.newer.version")).await;
    change(body.id, schedule::Column::Body, json!({"colour": "blue"})).await;
    while schedules::fire_due(db).await.unwrap() > 0 {}
    assert_eq!((jobs(db).await, runs(db, &good).await.len()), (1, 1));
    assert_eq!(read(db, &broken).await.next_fire_at, None);
    assert!(read(db, &broken).await.blocked_at.is_some() && read(db, &stranger).await.blocked_at.is_some());
    assert!(read(db, &stranger).await.next_fire_at.is_some());
    let refused = runs(db, &body).await.remove(0);
    assert_eq!((refused.outcome, refused.reason_code.as_deref()), (RunOutcome::Refused, Some("validation_failed")));
}

/// Workers are killed at any moment while a hundred instants are made up for.
async fn killed_workers_neither_lose_nor_repeat_an_instant(test: TestDatabase) {
    let db = &test.database;
    // nothing that a worker could find: the jobs end at once
    let settings = json!({"local": {"paths": ["/dev/null"]}});
    subscribe(db, ProviderKind::Local, "here", json!([]), settings).await;
    let schedule = put(db, "* * * * *", CatchUp::All, TimeDelta::days(1)).await;
    let worker = || {
        let environment =
            [("DATABASE_URL", test.url()), ("KEYWRIGHT_MASTER_KEY", MASTER_KEY), ("KEYWRIGHT_LEASE_SECONDS", "1")];
        Process::start("keywright-worker", &environment)
    };
    for most in [5, 30, 60] {
        let (first, second) = (worker(), worker());
        eventually("some instants are made up for", async || (runs(db, &schedule).await.len() >= most).then_some(()))
            .await;
        first.kill();
        second.kill();
    }
    let _last = worker();
    eventually("all are made up for", async || {
        let now = clock::now(db.reader()).await.unwrap();
        (read(db, &schedule).await.next_fire_at.unwrap() > now).then_some(())
    })
    .await;
    let runs = runs(db, &schedule).await;
    // one a minute without a gap, each with a job of its own
    assert!(runs.len() >= 100, "{}", runs.len());
    assert!(runs.windows(2).skip(1).all(|pair| pair[1].due_at - pair[0].due_at == TimeDelta::minutes(1)), "{runs:?}");
    let started: std::collections::HashSet<Uuid> = runs.iter().filter_map(|run| run.job_id).collect();
    assert_eq!(started.len(), runs.len());
    assert_eq!(jobs(db).await, runs.len() as u64);
}

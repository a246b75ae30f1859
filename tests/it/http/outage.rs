//! Without its database the facade says so, and it goes on by itself once the database is back.

use keywright_jobs::setup::database::Database;
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::{TestDatabase, admin_url},
    http::{ASSETS, Answer, Api, Identified, SCAN},
    on_both_databases,
};
use sea_orm::ConnectionTrait;
use serde_json::json;

on_both_databases!(readiness_tells_of_the_schema_and_of_workers);

async fn readiness_tells_of_the_schema_and_of_workers(database: TestDatabase) {
    let api = Api::on(database).await;
    let alone = api.nobody().get("/ready").await.ok(200);
    assert_eq!(alone, json!({"ready": true, "degraded": true, "reasons": ["no live worker"]}));
    let worker = api.app.worker(WorkerSettings::default()).await;
    let ready = json!({"ready": true, "degraded": false, "reasons": []});
    eventually("the worker is seen", async || (api.nobody().get("/ready").await.ok(200) == ready).then_some(())).await;
    worker.stop().await;
    let db = api.app.database();
    let forget = "DELETE FROM seaql_migrations WHERE version = (SELECT max(version) FROM seaql_migrations)";
    db.reader().execute_unprepared(forget).await.unwrap();
    let problem = api.nobody().get("/ready").await.refused(503, "database_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("--migrate"), "{problem}");
    db.reader().execute_unprepared("DROP TABLE seaql_migrations").await.unwrap();
    api.nobody().get("/ready").await.refused(503, "database_unavailable");
    assert_eq!(api.nobody().get("/health").await.ok(200), json!({"status": "ok"}));
}

/// Takes the database away from all that are connected to it, or gives it back.
async fn allow(allowed: bool, name: &str) {
    let admin = Database::open(&admin_url().unwrap(), 1).await.unwrap();
    admin.reader().execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")).await.unwrap();
    if !allowed {
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        admin.reader().execute_unprepared(&end).await.unwrap();
    }
    admin.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_every_answer_is_503_until_it_is_back() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let api = Api::on(database).await;
    api.app.cloud.account("one");
    let body = json!({"provider": "aws", "externalId": "one", "name": "one"});
    let (admin, operator) = (api.admin(), api.operator());
    let id = api.subscribe("two").await;
    let path = format!("/api/subscriptions/{id}");
    allow(false, &name).await;
    let answers: [Answer; 7] = [
        api.viewer().get(ASSETS).await,
        admin.post("/api/subscriptions", body.clone()).await,
        admin.patch(&path, json!({"name": "x"})).await,
        operator.post(SCAN, json!({})).await,
        api.viewer().get("/api/jobs").await,
        api.nobody().post("/api/auth/login", json!({"username": "admin", "password": "x"})).await,
        api.nobody().get("/ready").await,
    ];
    for answer in answers {
        answer.refused(503, "database_unavailable");
    }
    // what needs no database is as always
    assert_eq!(api.nobody().get("/health").await.ok(200), json!({"status": "ok"}));
    api.nobody().get("/api/system/version").await.ok(200);
    api.nobody().get("/docs").await.text.clear();
    api.nobody().get("/api/nothing").await.refused(404, "not_found");
    allow(true, &name).await;
    eventually("the database is back", async || (api.nobody().get("/ready").await.status == 200).then_some(())).await;
    admin.post("/api/subscriptions", body).await.ok(201);
    // a wait is woken again by what another connection commits
    let job = operator.post(SCAN, json!({})).await.under_way().id();
    let (done, _worker) = tokio::join!(api.ended(&job), api.app.worker(WorkerSettings::default()));
    assert_eq!(done["done"], true);
}

/// Reads go on, and what writes is told to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_program_holds_the_sqlite_file_writes_are_503_and_leave_nothing() {
    let api = Api::on(TestDatabase::sqlite().await).await;
    let (admin, outside) = (api.admin(), api.app.another().await);
    // notes the use of the token, which is a write of its own
    admin.get("/api/auth/me").await.ok(200);
    let lock = outside.begin().await.unwrap();
    let ask = async |n: usize| {
        let name = format!("account-{n}");
        let body = json!({"provider": "aws", "externalId": name, "name": name});
        admin.post("/api/subscriptions", body).await
    };
    let answers = futures::future::join_all((0..5).map(ask)).await;
    assert_eq!(admin.get("/api/subscriptions").await.ok(200)["data"], json!([]));
    lock.rollback().await.unwrap();
    for answer in answers {
        assert!(answer.header("retry-after").is_some());
        answer.refused(503, "database_unavailable");
    }
    admin.post("/api/subscriptions", json!({"provider": "aws", "externalId": "x", "name": "x"})).await.ok(201);
    assert_eq!(admin.get("/api/subscriptions").await.ok(200)["data"].as_array().unwrap().len(), 1);
}

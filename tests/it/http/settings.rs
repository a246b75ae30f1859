//! Settings: read by all, changed by administrators, in force everywhere.

use chrono::TimeDelta;
use keywright_entities::{asset_version, job, settings};
use keywright_jobs::{
    retention::{self, Retention},
    setup::database::Database,
};
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::TestDatabase,
    http::{ASSETS, Answer, Api, Identified, SCAN},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

on_both_databases!(
    settings_are_merged_guarded_and_audited,
    what_makes_no_sense_is_refused_with_its_pointer,
    of_parallel_changes_of_one_version_one_is_made,
    thresholds_count_on_every_process,
    tags_that_tell_owners_count_from_the_next_scan_on,
    no_more_schedules_than_are_allowed,
    retention_goes_by_the_settings_where_the_environment_is_silent,
);

pub(super) const SETTINGS: &str = "/api/settings";

/// Changes them as they are now, as the administrator.
pub(super) async fn set(api: &Api, patch: Value) -> Answer {
    let etag = api.viewer().get(SETTINGS).await.header("etag").unwrap().to_owned();
    api.admin().with("If-Match", etag).patch(SETTINGS, patch).await
}

async fn settings_are_merged_guarded_and_audited(database: TestDatabase) {
    let api = Api::on(database).await;
    let first = api.viewer().get(SETTINGS).await;
    assert_eq!(first.header("etag"), Some("\"1\""));
    let defaults = first.ok(200);
    let expected = json!({
        "thresholds": {"warningDays": 30, "criticalDays": 7},
        "retention": {"jobsDays": null},
        "limits": {"schedules": null},
        "tags": {"ownerKeys": ["owner", "team", "contact"], "environmentKeys": ["environment", "env", "stage"]},
        "fourEyes": [],
        "updatedAt": null,
    });
    assert_eq!(defaults, expected);
    assert_eq!(api.viewer().with("If-None-Match", "\"1\"").get(SETTINGS).await.status, 304);
    let patch = json!({"thresholds": {"warningDays": 60}, "tags": {"ownerKeys": ["cost-centre"]}});
    api.operator().with("If-Match", "*").patch(SETTINGS, patch.clone()).await.refused(403, "permission_denied");
    api.admin().patch(SETTINGS, patch.clone()).await.refused(428, "precondition_required");
    api.admin().with("If-Match", "\"2\"").patch(SETTINGS, patch.clone()).await.refused(412, "precondition_failed");
    let changed = api.admin().with("If-Match", "\"1\"").patch(SETTINGS, patch.clone()).await;
    assert_eq!(changed.header("etag"), Some("\"2\""));
    let changed = changed.ok(200);
    assert_eq!(changed["thresholds"], json!({"warningDays": 60, "criticalDays": 7}));
    assert_eq!(changed["tags"]["ownerKeys"], json!(["cost-centre"]));
    assert_eq!(changed["tags"]["environmentKeys"], expected["tags"]["environmentKeys"]);
    assert!(changed["updatedAt"].is_string());
    assert_eq!(api.viewer().get(SETTINGS).await.ok(200), changed);
    // what changes nothing makes no version
    let same = api.admin().with("If-Match", "*").patch(SETTINGS, patch).await;
    assert_eq!(same.header("etag"), Some("\"2\""));
    let events = super::idempotency::events(api.app.database(), "settings.updated").await;
    assert_eq!(events, 1);
    // null sets back
    let back = set(&api, json!({"thresholds": {"warningDays": null}, "tags": null})).await.ok(200);
    assert_eq!((&back["thresholds"], &back["tags"]), (&expected["thresholds"], &expected["tags"]));
    let row = settings::row(api.app.database().reader()).await.unwrap();
    assert_eq!((row.version, row.content), (3, json!({"thresholds": {}})));
}

async fn what_makes_no_sense_is_refused_with_its_pointer(database: TestDatabase) {
    let api = Api::on(database).await;
    for (patch, code, pointers) in [
        (json!({"thresholds": {"criticalDays": 31}}), "validation_failed", vec!["/thresholds"]),
        (json!({"thresholds": {"warningDays": -1}}), "validation_failed", vec!["/thresholds/warningDays"]),
        (json!({"thresholds": {"warningDays": 1.5}}), "validation_failed", vec!["/thresholds/warningDays"]),
        (json!({"retention": {"jobsDays": 36501}}), "validation_failed", vec!["/retention/jobsDays"]),
        (json!({"limits": {"schedules": "many"}}), "validation_failed", vec!["/limits/schedules"]),
        (
            json!({"tags": {"ownerKeys": ["a", "", "b "]}}),
            "validation_failed",
            vec!["/tags/ownerKeys/1", "/tags/ownerKeys/2"],
        ),
        (json!({"tags": {"ownerKeys": ["a", "A"]}}), "validation_failed", vec!["/tags/ownerKeys/1"]),
        (json!({"tags": {"ownerKeys": ["a\0b"]}}), "validation_failed", vec!["/tags/ownerKeys/0"]),
        (json!({"fourEyes": ["everything"]}), "validation_failed", vec!["/fourEyes/0"]),
        (json!({"fourEyes": ["settings.update", "settings.update"]}), "validation_failed", vec!["/fourEyes"]),
        (json!({"threshold": {}}), "unknown_field", vec!["/threshold"]),
        (json!({"thresholds": {"days": 1}}), "unknown_field", vec!["/thresholds/days"]),
    ] {
        assert_eq!(set(&api, patch.clone()).await.pointers(code), pointers, "{patch}");
    }
    assert_eq!(settings::row(api.app.database().reader()).await.unwrap().version, 1);
}

async fn of_parallel_changes_of_one_version_one_is_made(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let admin = api.admin().with("If-Match", "\"1\"");
    let changes = (0..20).map(|number| {
        let admin = if number % 2 == 0 { admin.clone() } else { admin.clone().at(neighbour.address) };
        async move { admin.patch(SETTINGS, json!({"thresholds": {"warningDays": 40 + number}})).await.status }
    });
    let mut statuses = futures::future::join_all(changes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![412; 19]].concat());
    assert_eq!(settings::row(api.app.database().reader()).await.unwrap().version, 2);
}

async fn thresholds_count_on_every_process(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.subscribe("one").await;
    let north = secrets_in("north");
    let mut asset = secret(&north, "s");
    asset.expires_at = Some(api.now() + TimeDelta::days(40));
    api.app.cloud.put("one", &north, asset);
    let scan = api.scan(json!({})).await;
    let there = api.viewer().at(neighbour.address);
    let healthy = there.get(ASSETS).await.ok(200);
    assert_eq!(healthy["data"][0]["status"], "healthy");
    set(&api, json!({"thresholds": {"warningDays": 60}})).await.ok(200);
    // at once where it was changed
    let here = api.viewer();
    assert_eq!(here.get(ASSETS).await.ok(200)["data"][0]["status"], "warning");
    let id = healthy["data"][0].id();
    assert_eq!(here.get(&format!("{ASSETS}/{id}")).await.ok(200)["status"], "warning");
    assert_eq!(here.get(&format!("{ASSETS}?status=healthy")).await.ok(200)["data"], json!([]));
    let vaults = here.get("/api/assets/discovery/vaults").await.ok(200);
    assert_eq!(vaults["data"][0]["counts"]["warning"], 1);
    let results = here.get(&format!("/api/assets/discovery/scans/{}/results", scan.id())).await.ok(200);
    assert_eq!(results["data"][0]["asset"]["status"], "warning");
    eventually("the other process has it too", async || {
        (there.get(ASSETS).await.ok(200)["data"][0]["status"] == "warning").then_some(())
    })
    .await;
    set(&api, json!({"thresholds": {"criticalDays": 45}})).await.ok(200);
    assert_eq!(here.get(&format!("{ASSETS}?status=critical")).await.ok(200)["data"][0].id(), id);
}

async fn tags_that_tell_owners_count_from_the_next_scan_on(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.subscribe("one").await;
    let north = secrets_in("north");
    let mut asset = secret(&north, "s");
    for (key, value) in [("Team", "blue"), ("Squad", "red"), ("zone", "lab")] {
        asset.tags.insert(key.to_owned(), value.to_owned());
    }
    api.app.cloud.put("one", &north, asset);
    api.scan(json!({})).await;
    let shown = async || {
        let list = api.viewer().get(ASSETS).await.ok(200);
        (list["data"][0]["owner"].clone(), list["data"][0]["environment"].clone())
    };
    assert_eq!(shown().await, (json!("blue"), Value::Null));
    set(&api, json!({"tags": {"ownerKeys": ["squad", "team"], "environmentKeys": ["zone"]}})).await.ok(200);
    let again = api.scan(json!({})).await;
    assert_eq!(shown().await, (json!("red"), json!("lab")));
    assert_eq!(again["counts"]["unchanged"], 1);
    let versions = asset_version::Entity::find().count(api.app.database().reader()).await.unwrap();
    assert_eq!(versions, 1, "the asset itself has not changed");
    assert_eq!(api.viewer().get(&format!("{ASSETS}?owner=red")).await.ok(200)["data"][0]["name"], "s");
}

async fn no_more_schedules_than_are_allowed(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    set(&api, json!({"limits": {"schedules": 3}})).await.ok(200);
    let operator = api.operator();
    let asking = (0..12).map(|number| {
        let operator = if number % 2 == 0 { operator.clone() } else { operator.clone().at(neighbour.address) };
        let body = json!({"name": format!("s{number}"), "cron": "0 0 * * *", "kind": "discovery.scan"});
        async move { operator.post("/api/schedules", body).await.status }
    });
    let mut statuses = futures::future::join_all(asking).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201; 3], vec![409; 9]].concat());
    let body = json!({"name": "more", "cron": "0 0 * * *", "kind": "discovery.scan"});
    operator.post("/api/schedules", body.clone()).await.refused(409, "too_many_schedules");
    set(&api, json!({"limits": null})).await.ok(200);
    operator.post("/api/schedules", body).await.ok(201);
}

/// Runs a worker's forgetting until the condition holds.
async fn forgetting(db: &Database, days: u32, by_settings: bool, gone: impl AsyncFn() -> bool) {
    let stop = CancellationToken::new();
    let kept = Retention { days, by_settings, ..Retention::default() };
    let running = tokio::spawn(retention::run(db.clone(), kept, stop.clone()));
    eventually("it is forgotten", async || gone().await.then_some(())).await;
    stop.cancel();
    running.await.unwrap();
}

async fn retention_goes_by_the_settings_where_the_environment_is_silent(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let db = api.app.database().clone();
    let mut ids = Vec::new();
    for days in [5_i64, 15, 25] {
        let id = api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way().id();
        api.operator().post(&format!("/api/jobs/{id}/cancel"), Value::Null).await.ok(202);
        let id: uuid::Uuid = id.parse().unwrap();
        job::Entity::update_many()
            .col_expr(job::Column::CompletedAt, Expr::value(api.now() - TimeDelta::days(days)))
            .filter(job::Column::Id.eq(id))
            .exec(db.reader())
            .await
            .unwrap();
        ids.push(id);
    }
    let there = async |id| job::by_id(db.reader(), id).await.unwrap().is_some();
    set(&api, json!({"retention": {"jobsDays": 20}})).await.ok(200);
    forgetting(&db, 30, true, async || !there(ids[2]).await).await;
    assert!(there(ids[1]).await);
    // the environment goes before
    forgetting(&db, 10, false, async || !there(ids[1]).await).await;
    assert!(there(ids[0]).await);
}

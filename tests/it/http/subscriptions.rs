//! Subscriptions: their life, and what becomes of what was found in them.

use keywright_entities::{asset, asset_version, job, job_subscription, types::Change};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Identified, SCAN, column},
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter,
};
use serde_json::json;

on_both_databases!(
    they_are_made_read_changed_and_removed,
    a_patch_merges_and_what_cannot_be_is_refused,
    versions_guard_changes,
    of_two_changes_at_once_none_is_lost,
    removing_one_removes_its_assets_and_its_identity_is_free_again,
    one_that_is_being_scanned_stays,
    one_that_a_job_merely_mentions_can_go,
    a_region_taken_out_makes_its_assets_stale,
);

const PATH: &str = "/api/subscriptions";

async fn they_are_made_read_changed_and_removed(database: TestDatabase) {
    let api = Api::on(database).await;
    let body = json!({
        "provider": "local", "externalId": "laptop", "name": "Laptop", "enabled": false, "regions": [], "tags": {"team": "red"},
        "settings": {"local": {"paths": ["/etc/ssl/certs"], "endpoints": ["localhost:5432"], "worker": "here"}},
    });
    let made = api.admin().post(PATH, body.clone()).await;
    assert_eq!(made.header("etag"), Some("\"1\""));
    let made = made.ok(201);
    for member in ["provider", "externalId", "name", "enabled", "regions", "tags", "settings"] {
        assert_eq!(made[member], body[member], "{member}");
    }
    assert_eq!(made["auth"]["mode"], "ambient");
    for member in ["createdAt", "updatedAt"] {
        assert!(made[member].as_str().is_some_and(|at| at.ends_with("+00:00")), "{made}");
    }
    assert!(made.as_object().unwrap().contains_key("lastScanAt") && made["lastScanState"].is_null(), "{made}");
    let path = format!("{PATH}/{}", made.id());
    assert_eq!(api.viewer().get(&path).await.ok(200), made);
    api.admin().post(PATH, body).await.refused(409, "conflict");
    // the same identifier of another provider is another account
    let aws = json!({"provider": "aws", "externalId": "laptop", "name": "b"});
    api.admin().post(PATH, aws).await.ok(201);
    let rows = api.viewer().get(&format!("{PATH}?provider=aws&enabled=true&includeTotal=true")).await.ok(200);
    assert_eq!(
        (rows["meta"]["total"].as_u64(), column(rows["data"].as_array().unwrap(), "name")),
        (Some(1), vec!["b".to_owned()])
    );
    let rows = api.viewer().get(&format!("{PATH}?sort=-name")).await.ok(200);
    assert_eq!(column(rows["data"].as_array().unwrap(), "name"), ["b", "Laptop"].map(str::to_owned));
    api.admin().with("If-Match", "\"1\"").delete(&path).await.ok(204);
    api.viewer().get(&path).await.refused(404, "not_found");
    api.admin().with("If-Match", "\"1\"").delete(&path).await.refused(404, "not_found");
}

async fn a_patch_merges_and_what_cannot_be_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let body = json!({
        "provider": "aws", "externalId": "1", "name": "one", "regions": ["eu-west-1"], "tags": {"a": "1", "b": "2"},
        "settings": {"aws": {"profile": "p", "roleArn": "arn:aws:iam::1:role/r"}},
    });
    let made = api.admin().post(PATH, body).await.ok(201);
    let path = format!("{PATH}/{}", made.id());
    let patch = json!({"name": "two", "tags": {"a": null, "c": "3", "never": null}, "auth": {"mode": "profile"}});
    let patched = api.admin().patch(&path, patch).await.ok(200);
    assert_eq!(patched["tags"], json!({"b": "2", "c": "3"}));
    assert_eq!((&patched["name"], &patched["auth"]["mode"]), (&json!("two"), &json!("profile")));
    assert_eq!((&patched["regions"], &patched["settings"]), (&made["regions"], &made["settings"]));
    let patched =
        api.admin().patch(&path, json!({"settings": {"aws": {"endpoint": "https://x.example"}}})).await.ok(200);
    assert_eq!(patched["settings"]["aws"]["profile"], "p", "{patched}");
    assert_eq!(patched["settings"]["aws"]["endpoint"], "https://x.example");
    let cleared = json!({"settings": {"aws": {"endpoint": null, "roleArn": null}}, "regions": null, "tags": null});
    let patched = api.admin().patch(&path, cleared).await.ok(200);
    assert_eq!(patched["settings"], json!({"aws": {"profile": "p"}}), "null takes one setting away");
    assert_eq!((&patched["regions"], &patched["tags"]), (&json!([]), &json!({})));
    // without its profile the mode cannot stand
    let pointers = api.admin().patch(&path, json!({"settings": null})).await.pointers("validation_failed");
    assert_eq!(pointers, ["/settings/aws/profile"]);
    let patched = api.admin().patch(&path, json!({"settings": null, "auth": null})).await.ok(200);
    assert_eq!((&patched["settings"], &patched["auth"]["mode"]), (&json!({}), &json!("ambient")));
    api.admin().patch(&path, json!({})).await.ok(200);
    for (wrong, code, pointer) in [
        (json!({"provider": "local"}), "unknown_field", "/provider"),
        (json!({"externalId": "2"}), "unknown_field", "/externalId"),
        (json!({"name": null}), "validation_failed", "/name"),
        (json!({"name": ""}), "validation_failed", "/name"),
        (json!({"settings": {"local": {"paths": []}}}), "validation_failed", "/settings/local"),
        (json!({"settings": {"azure": {}}}), "unknown_field", "/settings/azure"),
        (json!({"settings": {"aws": {"secretAccessKey": "x"}}}), "unknown_field", "/settings/aws/secretAccessKey"),
        (json!({"auth": {"mode": "vault"}}), "validation_failed", "/auth/mode"),
        (json!({"auth": {"mode": "stored"}}), "validation_failed", "/auth/secretAccessKey"),
        (json!({"tags": {"a": 1}}), "validation_failed", "/tags/a"),
    ] {
        let pointers = api.admin().patch(&path, wrong.clone()).await.pointers(code);
        assert!(pointers.iter().any(|found| found == pointer), "{wrong}: {pointers:?}");
    }
    assert_eq!(api.viewer().get(&path).await.ok(200)["name"], "two");
    for (wrong, pointer) in [
        (json!({"provider": "aws", "externalId": "2", "name": "x", "settings": {"local": {}}}), "/settings/local"),
        (
            json!({"provider": "aws", "externalId": "2", "name": "x", "auth": {"mode": "assumeRole"}}),
            "/settings/aws/roleArn",
        ),
        (json!({"provider": "local", "externalId": "2", "name": "x", "auth": {"mode": "profile"}}), "/auth/mode"),
        (json!({"provider": "azure", "externalId": "2", "name": "x"}), "/provider"),
        (json!({"provider": "gcp", "externalId": "123456789012", "name": "x"}), "/externalId"),
        (
            json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "regions": ["global", "evil.com/"]}),
            "/regions/1",
        ),
        (
            json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "settings": {"gcp": {"impersonate": "me"}}}),
            "/settings/gcp/impersonate",
        ),
        // a public address is not enough where an access token is sent
        (
            json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "settings": {"gcp": {"endpoint": "https://1.1.1.1"}}}),
            "/settings/gcp/endpoint",
        ),
        (
            json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "settings": {"gcp": {"endpoint": "https://collector.example"}}}),
            "/settings/gcp/endpoint",
        ),
        (json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "auth": {"mode": "profile"}}), "/auth/mode"),
        (json!({"provider": "aws", "name": "x"}), "/externalId"),
        (json!({"provider": "ibm", "externalId": "2", "name": "x"}), "/provider"),
    ] {
        assert_eq!(api.admin().post(PATH, wrong.clone()).await.pointers("validation_failed"), [pointer], "{wrong}");
    }
}

async fn versions_guard_changes(database: TestDatabase) {
    let api = Api::on(database).await;
    let path = format!("{PATH}/{}", api.subscribe("one").await);
    let admin = api.admin();
    for matching in ["\"1\"", "\"9\", \"1\"", "W/\"1\"", "*"] {
        let answer = api.viewer().with("If-None-Match", matching).get(&path).await;
        assert_eq!(
            (answer.status, answer.header("etag"), answer.text.as_str()),
            (304, Some("\"1\""), ""),
            "{matching}"
        );
    }
    api.viewer().with("If-None-Match", "\"2\"").get(&path).await.ok(200);
    let changed = admin.clone().with("If-Match", "\"1\"").patch(&path, json!({"name": "a"})).await;
    assert_eq!(changed.header("etag"), Some("\"2\""));
    changed.ok(200);
    admin
        .clone()
        .with("If-Match", "\"1\"")
        .patch(&path, json!({"name": "b"}))
        .await
        .refused(412, "precondition_failed");
    admin.clone().with("If-Match", "1").patch(&path, json!({"name": "b"})).await.refused(412, "precondition_failed");
    // without it the last write wins
    admin.patch(&path, json!({"name": "c"})).await.ok(200);
    admin.delete(&path).await.refused(428, "precondition_required");
    admin.clone().with("If-Match", "\"2\"").delete(&path).await.refused(412, "precondition_failed");
    assert_eq!(api.viewer().get(&path).await.ok(200)["name"], "c");
    admin.clone().with("If-Match", "\"3\"").delete(&path).await.ok(204);
}

async fn of_two_changes_at_once_none_is_lost(database: TestDatabase) {
    let api = Api::on(database).await;
    let path = format!("{PATH}/{}", api.subscribe("one").await);
    let tagging = (0..12).map(|number| {
        let (api, path) = (&api, path.as_str());
        async move { api.admin().patch(path, json!({"tags": {format!("t{number}"): "x"}})).await.ok(200) }
    });
    futures::future::join_all(tagging).await;
    let now = api.viewer().get(&path).await;
    assert_eq!(now.header("etag"), Some("\"13\""));
    assert_eq!(now.ok(200)["tags"].as_object().unwrap().len(), 12);
    let guarded = (0..6).map(|number| {
        let admin = api.admin().with("If-Match", "\"13\"");
        let path = path.as_str();
        async move { admin.patch(path, json!({"name": format!("n{number}")})).await.status }
    });
    let mut statuses = futures::future::join_all(guarded).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412]);
}

async fn removing_one_removes_its_assets_and_its_identity_is_free_again(database: TestDatabase) {
    let api = Api::on(database).await;
    let (id, _worker) = (api.subscribe("one").await, api.app.worker(WorkerSettings::default()).await);
    api.app.cloud.put_secrets("one", &secrets_in("north"), 3);
    api.scan(json!({})).await;
    api.admin().with("If-Match", "*").delete(&format!("{PATH}/{id}")).await.ok(204);
    assert_eq!(api.walk(&format!("{ASSETS}?removed=false"), 10).await.len(), 0);
    let removed = api.walk(&format!("{ASSETS}?removed=true"), 10).await;
    assert!(removed.len() == 3 && removed.iter().all(|asset| asset["removedAt"].is_string()), "{removed:?}");
    let vaults = api.viewer().get("/api/assets/discovery/vaults").await.ok(200);
    assert_eq!(vaults["data"], json!([]), "the vaults go with their subscription");
    let db = api.app.database().reader();
    let history = asset_version::Entity::find().all(db).await.unwrap();
    let ends = history.iter().filter(|version| version.change == Change::Removed && version.valid_to.is_none());
    assert_eq!((ends.count(), history.len()), (3, 6));
    let again = api.subscribe("one").await;
    assert_ne!(again, id);
    let job = api.scan(json!({})).await;
    assert_eq!((&job["counts"]["created"], &job["counts"]["removed"]), (&json!(3), &json!(0)));
    let own = asset::Entity::find().filter(asset::Column::RemovedAt.is_null()).all(db).await.unwrap();
    assert!(own.len() == 3 && own.iter().all(|asset| asset.subscription_id.to_string() == again));
}

async fn one_that_is_being_scanned_stays(database: TestDatabase) {
    let api = Api::on(database).await;
    let id = api.subscribe("one").await;
    let path = format!("{PATH}/{id}");
    api.app.cloud.put_secrets("one", &secrets_in("north"), 3);
    // asked for, but begun by nobody
    let job = api.operator().post(SCAN, json!({})).await.under_way();
    let admin = api.admin().with("If-Match", "*");
    admin.delete(&path).await.refused(409, "conflict");
    let hold = api.app.cloud.hold(|call| call.lists("north"));
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.app.cloud.reached(1, |call| call.lists("north")).await;
    admin.delete(&path).await.refused(409, "conflict");
    hold.release();
    assert_eq!(api.ended(&job.id()).await["state"], "succeeded");
    let named = job_subscription::Entity::find().count(api.app.database().reader()).await.unwrap();
    assert_eq!(named, 0, "what ended is about nothing any more");
    admin.delete(&path).await.ok(204);
    // what ended knows nothing of the deletion, and another scan has nothing to look at
    api.operator().post(SCAN, json!({})).await.refused(400, "no_subscription");
}

async fn one_that_a_job_merely_mentions_can_go(database: TestDatabase) {
    let api = Api::on(database).await;
    let (mentioned, scanned) = (api.subscribe("one").await, api.subscribe("two").await);
    let job = api.operator().post(SCAN, json!({"subscriptions": [scanned]})).await.under_way();
    let db = api.app.database().reader();
    let row = job::by_id(db, job.id().parse().unwrap()).await.unwrap().unwrap();
    let mut payload = row.payload.clone();
    payload["note"] = json!(format!("not {mentioned}"));
    let mut row = row.into_active_model();
    row.payload = Set(payload);
    row.update(db).await.unwrap();
    let admin = api.admin().with("If-Match", "*");
    admin.delete(&format!("{PATH}/{scanned}")).await.refused(409, "conflict");
    admin.delete(&format!("{PATH}/{mentioned}")).await.ok(204);
}

async fn a_region_taken_out_makes_its_assets_stale(database: TestDatabase) {
    let api = Api::on(database).await;
    let (id, _worker) = (api.subscribe("one").await, api.app.worker(WorkerSettings::default()).await);
    for region in ["north", "south"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 2);
    }
    api.scan(json!({})).await;
    let stale = async || {
        let rows = api.walk(&format!("{ASSETS}?sort=name"), 10).await;
        let stale = rows.iter().filter(|row| row["stale"] == true);
        (rows.len(), column(&stale.cloned().collect::<Vec<_>>(), "region"))
    };
    assert_eq!(stale().await, (4, vec![]));
    api.admin().patch(&format!("{PATH}/{id}"), json!({"regions": ["south"]})).await.ok(200);
    assert_eq!(stale().await, (4, vec!["north".to_owned(); 2]));
    // the account itself has the region no more: a scan says the same and removes nothing
    api.app.cloud.drop_scope("one", &secrets_in("north"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(stale().await, (4, vec!["north".to_owned(); 2]));
    api.app.cloud.put_secrets("one", &secrets_in("north"), 1);
    let job = api.scan(json!({})).await;
    assert_eq!(job["counts"]["removed"], 1);
    assert_eq!(stale().await, (3, vec![]));
}

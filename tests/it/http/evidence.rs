//! Evidence packages over HTTP: asked for and polled, downloaded whole and in parts, and the older spelling.

use keywright_entities::audit_outbox;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{Answer, Api, Client, Identified, ORGANISATION},
    licence::{Issuer, Terms},
    on_both_databases,
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};

on_both_databases!(
    an_auditor_asks_polls_lists_and_downloads,
    ranges_and_validators_are_honoured,
    what_makes_no_sense_is_refused,
    the_same_package_is_joined_and_others_are_not,
    whoever_sees_less_gets_less_and_sees_fewer_packages,
    the_older_spelling_answers_with_the_report,
    another_store_is_told,
    packages_need_their_tier,
);

const EVIDENCE: &str = "/api/evidence";
const OLDER: &str = "/api/compliance/evidence-package";

async fn downloads(api: &Api) -> u64 {
    let told = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq("evidence.downloaded"));
    told.count(api.app.database().reader()).await.unwrap()
}

/// A package that is built; there must be a worker.
async fn built(auditor: &Client<'_>, body: Value) -> Value {
    let id = auditor.post(EVIDENCE, body).await.under_way().id();
    let package = auditor.get(&format!("{EVIDENCE}/{id}?wait=60")).await.ok(200);
    assert_eq!(package["state"], "succeeded", "{package}");
    package
}

async fn an_auditor_asks_polls_lists_and_downloads(database: TestDatabase) {
    let api = Api::on(database).await;
    let subscription = api.subscribe("one").await;
    let auditor = api.role("auditor");
    let asked = auditor.post(EVIDENCE, json!({"sample": {"seed": "2026-q4", "size": 5}})).await;
    let location = asked.header("location").unwrap().to_owned();
    let job = asked.under_way();
    assert_eq!((&job["kind"], location), (&json!("evidence.build"), format!("/api/jobs/{}", job.id())));
    let path = format!("{EVIDENCE}/{}", job.id());
    let package = auditor.get(&path).await.ok(200);
    assert_eq!((&package["state"], &package["href"], &package["size"]), (&json!("queued"), &Value::Null, &Value::Null));
    auditor.get(&format!("{path}/download")).await.refused(409, "evidence_not_ready");
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let package = auditor.get(&format!("{path}?wait=60")).await.ok(200);
    assert_eq!((&package["state"], &package["restricted"]), (&json!("succeeded"), &json!(false)));
    assert_eq!(package["subscriptions"], json!([subscription]));
    assert_eq!(package["request"]["sample"], json!({"seed": "2026-q4", "size": 5}));
    let populations = package["contents"]["populations"].as_array().unwrap();
    assert!(populations.contains(&json!({"name": "subscriptions", "rows": 1})), "{package}");
    let ended = auditor.get(&format!("/api/jobs/{}", job.id())).await.ok(200);
    assert_eq!((&ended["result"]["type"], &ended["result"]["href"]), (&json!("evidence"), &json!(path)));
    let file = auditor.get(package["href"].as_str().unwrap()).await;
    assert_eq!((file.status, file.header("content-type")), (200, Some("application/zip")));
    assert_eq!(file.header("content-length").unwrap(), package["size"].to_string());
    assert_eq!(file.header("etag").unwrap(), format!("\"{}\"", package["sha256"].as_str().unwrap()));
    assert!(file.header("content-disposition").unwrap().contains(".zip"));
    assert!(file.text.starts_with("PK") && file.text.contains("manifest.json"));
    assert_eq!(downloads(&api).await, 1);
    let list = auditor.get(EVIDENCE).await.ok(200);
    assert_eq!((list["data"].as_array().unwrap().len(), list["data"][0].id()), (1, job.id()));
    // whoever may not read evidence is told so, not that there is none
    for role in ["viewer", "operator"] {
        api.role(role).get(&path).await.refused(403, "permission_denied");
        api.role(role).get(&format!("{path}/download")).await.refused(403, "permission_denied");
    }
    auditor.get(&format!("{EVIDENCE}/01930000-0000-7000-8000-000000000000")).await.refused(404, "not_found");
}

async fn ranges_and_validators_are_honoured(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let auditor = api.role("auditor");
    let package = built(&auditor, json!({})).await;
    let (path, size) = (package["href"].as_str().unwrap().to_owned(), package["size"].as_u64().unwrap());
    let get = async |name: &'static str, value: String| auditor.clone().with(name, value).get(&path).await;
    let part = |answer: &Answer, range: &str, length: usize| {
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(range)), "{}", answer.text);
        assert_eq!(answer.header("content-length").unwrap(), length.to_string());
    };
    let first = get("Range", "bytes=0-3".to_owned()).await;
    part(&first, &format!("bytes 0-3/{size}"), 4);
    assert!(first.text.starts_with("PK"));
    part(&get("Range", "bytes=-22".to_owned()).await, &format!("bytes {}-{}/{size}", size - 22, size - 1), 22);
    part(&get("Range", format!("bytes={}-", size - 5)).await, &format!("bytes {}-{}/{size}", size - 5, size - 1), 5);
    part(&get("Range", format!("bytes=0-{}", size * 2)).await, &format!("bytes 0-{}/{size}", size - 1), size as usize);
    let beyond = get("Range", format!("bytes={size}-")).await;
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
    beyond.refused(416, "range_not_satisfiable");
    // what is no range of bytes, or several at once, is answered with the whole
    for whole in ["bytes=0-1,4-5", "lines=1-2", "nonsense"] {
        assert_eq!(get("Range", whole.to_owned()).await.status, 200, "{whole}");
    }
    let etag = format!("\"{}\"", package["sha256"].as_str().unwrap());
    assert_eq!(get("If-None-Match", etag.clone()).await.status, 304);
    let ranged = auditor.clone().with("Range", "bytes=0-3");
    assert_eq!(ranged.clone().with("If-Range", etag).get(&path).await.status, 206);
    assert_eq!(ranged.clone().with("If-Range", "\"other\"").get(&path).await.status, 200);
}

async fn what_makes_no_sense_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let auditor = api.role("auditor");
    for (body, pointer) in [
        (json!({"period": {"to": "2999-01-01T00:00:00+00:00"}}), "/period/to"),
        (json!({"period": {"from": "2026-01-02T00:00:00+00:00", "to": "2026-01-01T00:00:00+00:00"}}), "/period/from"),
        (json!({"period": {"from": "2000-01-01T00:00:00+00:00"}}), "/period/from"),
        (json!({"subscriptions": []}), "/subscriptions"),
        (json!({"subscriptions": ["01930000-0000-7000-8000-000000000000"]}), "/subscriptions/0"),
        (json!({"sample": {"size": 1001}}), "/sample/size"),
        (json!({"sample": {"seed": "a\nb"}}), "/sample/seed"),
        (json!({"include": {"policy": "yes"}}), "/include/policy"),
    ] {
        let refused = auditor.post(EVIDENCE, body.clone()).await.refused(400, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}");
    }
    auditor.post(EVIDENCE, json!({"includes": {}})).await.refused(400, "unknown_field");
    auditor.get(&format!("{OLDER}?format=docx")).await.refused(400, "validation_failed");
    auditor.get(&format!("{OLDER}?includeNothing=true")).await.refused(400, "unknown_parameter");
    assert_eq!(auditor.get(EVIDENCE).await.ok(200)["data"], json!([]));
}

async fn the_same_package_is_joined_and_others_are_not(database: TestDatabase) {
    let api = Api::on(database).await;
    let auditor = api.role("auditor");
    let first = auditor.post(EVIDENCE, json!({})).await.under_way().id();
    let again = auditor.post(EVIDENCE, json!({"include": {"cis": true}})).await;
    assert_eq!(again.header("keywright-deduplicated"), Some("true"));
    assert_eq!(again.under_way().id(), first);
    auditor.post(EVIDENCE, json!({"onConflict": "reject"})).await.refused(409, "conflict");
    let others = [
        auditor.post(EVIDENCE, json!({"onConflict": "queue"})).await,
        auditor.post(EVIDENCE, json!({"include": {"cis": false}})).await,
        auditor.post(EVIDENCE, json!({"sample": {"size": 1}})).await,
        // a package bears who asked for it
        api.admin().post(EVIDENCE, json!({})).await,
    ];
    for other in others {
        assert_ne!(other.under_way().id(), first);
    }
}

async fn whoever_sees_less_gets_less_and_sees_fewer_packages(database: TestDatabase) {
    let api = Api::on(database).await;
    let (own, other) = (api.subscribe("one").await, api.subscribe("two").await);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let body = json!({"name": "narrow", "role": "auditor", "subscriptions": [own]});
    let token = api.session().post("/api/tokens", body).await.ok(201)["token"].as_str().unwrap().to_owned();
    let narrow = api.bearing(&token);
    let whole = built(&api.role("auditor"), json!({})).await;
    let part = built(&narrow, json!({})).await;
    assert_eq!((&part["subscriptions"], &part["restricted"]), (&json!([own]), &json!(true)));
    narrow.post(EVIDENCE, json!({"subscriptions": [other]})).await.refused(400, "validation_failed");
    narrow.get(&format!("{EVIDENCE}/{}", whole.id())).await.refused(404, "not_found");
    narrow.get(&format!("{EVIDENCE}/{}/download", whole.id())).await.refused(404, "not_found");
    let seen = narrow.get(EVIDENCE).await.ok(200);
    assert_eq!((seen["data"].as_array().unwrap().len(), seen["data"][0].id()), (1, part.id()));
    // its own job is one that it may poll
    assert_eq!(narrow.get(&format!("/api/jobs/{}", part.id())).await.ok(200)["done"], true);
    narrow.get(&format!("/api/jobs/{}", whole.id())).await.refused(404, "not_found");
    let policy = part["contents"]["sections"][0].clone();
    assert_eq!(policy, json!({"name": "policy", "standing": "not_permitted"}));
    assert_eq!(api.role("auditor").get(EVIDENCE).await.ok(200)["data"].as_array().unwrap().len(), 2);
}

async fn the_older_spelling_answers_with_the_report(database: TestDatabase) {
    let api = Api::on(database).await;
    let auditor = api.role("auditor");
    let patient = auditor.clone().with("Prefer", "wait=0");
    let begun = patient.get(&format!("{OLDER}?format=pdf&includeCis=false")).await;
    let location = begun.header("location").unwrap().to_owned();
    let id = begun.ok(202).id();
    assert_eq!(location, format!("/api/jobs/{id}"));
    assert_eq!(patient.get(&format!("{OLDER}?includeCis=false")).await.ok(202).id(), id, "asked again it is the same");
    assert_ne!(patient.get(OLDER).await.ok(202).id(), id, "of other parameters it is another");
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let ready = auditor.clone().with("Prefer", "wait=60").get(&format!("{OLDER}?includeCis=false")).await;
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("application/pdf")), "{}", ready.text);
    assert!(ready.text.starts_with(&format!("%PDF of {id} with subscriptions.csv")), "{}", ready.text);
    assert_eq!(patient.get(&format!("{OLDER}?includeCis=false")).await.status, 200, "what is ready is not begun again");
    let package = auditor.get(&format!("{EVIDENCE}/{id}")).await.ok(200);
    assert_eq!(package["report"]["size"].to_string(), ready.header("content-length").unwrap());
    assert!(!ORGANISATION.is_empty());
    // a page of another site cannot make a browser begin one
    let session =
        api.nobody().post("/api/auth/login", json!({"username": "admin", "password": "correct-horse-battery"})).await;
    let cookies: Vec<&str> =
        session.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok()).collect();
    let cookie = cookies.iter().map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ");
    let browser = api.nobody().with("Cookie", cookie).with("Prefer", "wait=0");
    for site in ["cross-site", "same-site"] {
        browser.clone().with("Sec-Fetch-Site", site).get(OLDER).await.refused(403, "csrf_failed");
    }
    browser.get(OLDER).await.refused(403, "csrf_failed");
    let own = browser.clone().with("Sec-Fetch-Site", "same-origin").get(OLDER).await;
    assert!([200, 202].contains(&own.status), "{}", own.text);
}

async fn another_store_is_told(database: TestDatabase) {
    use keywright_entities::evidence_package;
    use sea_orm::sea_query::Expr;
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let auditor = api.role("auditor");
    let package = built(&auditor, json!({})).await;
    evidence_package::Entity::update_many()
        .col_expr(evidence_package::Column::Store, Expr::value("local:other"))
        .exec(api.app.database().reader())
        .await
        .unwrap();
    let told = auditor.get(package["href"].as_str().unwrap()).await.refused(409, "evidence_store_not_shared");
    assert!(told["detail"].as_str().unwrap().contains("KEYWRIGHT_DATA_DIR"), "{told}");
    assert_eq!(downloads(&api).await, 0);
}

async fn packages_need_their_tier(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let refused = api.role("auditor").post(EVIDENCE, json!({})).await.refused(403, "tier_required");
    assert_eq!(refused["requiredTier"], "PRO");
    api.role("auditor").get(OLDER).await.refused(403, "tier_required");
    assert_eq!(api.role("auditor").get(EVIDENCE).await.ok(200)["data"], json!([]), "what is there can be read");
}

//! What providers say that nobody expects: each is an asset, and the scan comes to its end.

use chrono::{DateTime, Utc};
use keywright_jobs::domain::inventory::{AssetType, CertificateFacts, Observed, ScopeId, Warning};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Identified, SCANS, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use serde_json::{Value, json};
use std::fmt::Write;

on_both_databases!(
    texts_of_a_hundred_kilobytes_are_kept,
    texts_with_nul_and_times_beyond_four_digits_are_kept_as_near_as_can_be,
    one_thing_named_twice_is_one_asset,
    one_certificate_in_two_places_is_two_assets,
    what_a_provider_could_not_read_is_told_and_what_was_there_stays,
);

/// Text that no compression shortens enough for an index.
fn noise(bytes: usize) -> String {
    let mut state = 7_u64;
    let mut text = String::new();
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(text, "{state:x}").unwrap();
    }
    text.truncate(bytes);
    text
}

async fn found(api: &Api) -> (Value, Vec<Value>) {
    let worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.scan(json!({})).await;
    worker.stop().await;
    (job, api.walk(&format!("{ASSETS}?sort=name"), 3).await)
}

async fn texts_of_a_hundred_kilobytes_are_kept(database: TestDatabase) {
    let api = Api::on(database).await;
    let (north, long) = (secrets_in("north"), noise(100_000));
    for number in 0..2 {
        let mut asset = secret(&north, &format!("{long}-{number}"));
        asset.vault = format!("{long}{number}");
        asset.tags = [("owner".to_owned(), long.clone()), (long.clone(), long.clone())].into();
        asset.attributes.insert("description".to_owned(), json!(long));
        asset.attributes.insert("nested".to_owned(), json!({"a": [long, {"b": long}]}));
        api.app.cloud.put("one", &north, asset);
    }
    api.app.cloud.warn("one", &north, Warning::new(long.clone(), "unreadable", long.clone()));
    api.subscribe("one").await;
    let (job, assets) = found(&api).await;
    assert_eq!(
        (&job["state"], &job["counts"]["found"], &job["counts"]["warnings"]),
        (&json!("succeeded"), &json!(2), &json!(1))
    );
    assert_eq!(assets.len(), 2);
    for asset in &assets {
        assert!(asset["name"].as_str().unwrap().starts_with(&long));
        assert_eq!(asset["attributes"]["nested"]["a"][1]["b"], json!(long));
        assert_eq!(asset["tags"]["owner"], json!(long));
    }
    assert_ne!(assets[0]["externalId"], assets[1]["externalId"]);
    assert_ne!(assets[0]["vault"], assets[1]["vault"]);
    let (again, _) = found(&api).await;
    assert_eq!(again["counts"]["unchanged"], 2);
    let scan = api.viewer().get(&format!("{SCANS}/{}", again.id())).await.ok(200);
    assert_eq!(scan["warnings"][0]["path"], json!(long));
}

async fn texts_with_nul_and_times_beyond_four_digits_are_kept_as_near_as_can_be(database: TestDatabase) {
    let api = Api::on(database).await;
    let north = secrets_in("north");
    let mut asset = secret(&north, "a\0b");
    asset.vault = "v\0".to_owned();
    asset.tags = [("k\0".to_owned(), "v\0".to_owned())].into();
    asset.attributes.insert("a\0".to_owned(), json!(["\0"]));
    asset.expires_at = Some(DateTime::<Utc>::MAX_UTC);
    asset.not_before = Some(DateTime::<Utc>::MIN_UTC);
    api.app.cloud.put("one", &north, asset);
    api.app.cloud.warn("one", &north, Warning::new("p\0", "unreadable", "d\0"));
    api.subscribe("one").await;
    let (job, assets) = found(&api).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let asset = &assets[0];
    assert_eq!((&asset["name"], &asset["vault"]), (&json!("a\u{fffd}b"), &json!("v\u{fffd}")));
    assert_eq!(asset["tags"], json!({"k\u{fffd}": "v\u{fffd}"}));
    assert_eq!(asset["attributes"], json!({"a\u{fffd}": ["\u{fffd}"]}));
    assert_eq!((&asset["expiresAt"], &asset["status"]), (&json!("9999-12-31T23:59:59+00:00"), &json!("healthy")));
    assert_eq!(asset["notBefore"], "0000-01-01T00:00:00+00:00");
}

async fn one_thing_named_twice_is_one_asset(database: TestDatabase) {
    let api = Api::on(database).await;
    let (north, cloud) = (secrets_in("north"), &api.app.cloud);
    cloud.page_size(3);
    // on one page, on two pages, and said differently the second time
    let twice = |value: &str| Observed {
        attributes: [("size".to_owned(), json!(value))].into_iter().collect(),
        relations: Vec::new(),
        ..secret(&north, "twice")
    };
    cloud.put_at("one", &north, "01", twice("1"));
    cloud.put_at("one", &north, "02", twice("1"));
    cloud.put_at("one", &north, "03", secret(&north, "between"));
    cloud.put_at("one", &north, "04", twice("1"));
    cloud.put_at("one", &north, "05", twice("2"));
    cloud.put_at("one", &north, "06", secret(&north, "more"));
    cloud.put_at("one", &north, "07", twice("3"));
    api.subscribe("one").await;
    for scan in 0..2 {
        let (job, assets) = found(&api).await;
        let counts = &job["counts"];
        assert_eq!((counts["found"].as_u64(), counts["changed"].as_u64()), (Some(3), Some(0)), "scan {scan}: {job}");
        assert_eq!(column(&assets, "name"), ["between", "more", "twice"]);
        let results =
            api.walk(&format!("{SCANS}/{}/results?change=created,changed,unchanged,removed", job.id()), 2).await;
        assert_eq!(results.len(), 3, "{results:?}");
    }
}

async fn one_certificate_in_two_places_is_two_assets(database: TestDatabase) {
    let api = Api::on(database).await;
    let facts = CertificateFacts {
        subject: Some("CN=example".to_owned()),
        issuer: None,
        serial: Some("01".to_owned()),
        sans: (0..3000).map(|number| format!("host-{number}.example")).collect(),
        key_algorithm: "RSA".to_owned(),
        key_bits: Some(2048),
        signature_algorithm: None,
        fingerprint_sha256: Some("ab".repeat(32)),
        self_signed: Some(true),
        is_ca: None,
    };
    for region in ["north", "south"] {
        let scope = ScopeId { region: region.to_owned(), kind: "memory.certificate".to_owned() };
        let certificate = Observed {
            asset_type: AssetType::Certificate,
            certificate: Some(facts.clone()),
            ..secret(&scope, "example")
        };
        api.app.cloud.put("one", &scope, Observed { external_id: "the-same".to_owned(), ..certificate.clone() });
        api.app.cloud.put("one", &scope, Observed { external_id: "another".to_owned(), ..certificate });
    }
    api.subscribe("one").await;
    let (job, assets) = found(&api).await;
    assert_eq!((job["counts"]["created"].as_u64(), assets.len()), (Some(4), 4));
    for asset in &assets {
        let certificate = &asset["certificate"];
        assert_eq!(certificate["fingerprintSha256"], json!("ab".repeat(32)));
        assert_eq!((&certificate["isCa"], &certificate["issuer"]), (&Value::Null, &Value::Null));
        assert_eq!(certificate["sans"].as_array().unwrap().len(), 3000);
    }
    assert_eq!(api.viewer().get(&format!("{ASSETS}/{}", assets[0].id())).await.ok(200), assets[0]);
}

async fn what_a_provider_could_not_read_is_told_and_what_was_there_stays(database: TestDatabase) {
    let api = Api::on(database).await;
    let (north, cloud) = (secrets_in("north"), &api.app.cloud);
    for id in ["/a", "/a#1", "/ab", "/b"] {
        cloud.put("one", &north, Observed { external_id: id.to_owned(), ..secret(&north, id) });
    }
    api.subscribe("one").await;
    found(&api).await;
    for id in ["/a", "/a#1", "/ab", "/b"] {
        cloud.remove("one", &north, id);
    }
    cloud.warn("one", &north, Warning::new("/a", "unreadable", "permission denied"));
    cloud.warn("one", &north, Warning::new("/b", "path_missing", "there is nothing"));
    let (job, assets) = found(&api).await;
    assert_eq!(column(&assets, "name"), ["/a", "/a#1"]);
    assert_eq!((&job["counts"]["removed"], &job["counts"]["warnings"]), (&json!(2), &json!(2)));
    let scan = api.viewer().get(&format!("{SCANS}/{}", job.id())).await.ok(200);
    let scopes = api.viewer().get(&format!("/api/jobs/{}/scopes", job.id())).await.ok(200);
    assert_eq!(scan["warnings"][0]["scope"], scopes["data"][0]["id"]);
    assert_eq!(column(scan["warnings"].as_array().unwrap(), "code"), ["unreadable", "path_missing"]);
}

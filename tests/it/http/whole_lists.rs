//! Lists as streams: lines of JSON, and tables.

use keywright_api::{limits::Rule, service::Surroundings};
use keywright_jobs::domain::inventory::{CertificateFacts, Observed};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Client, Identified, LOOPBACK, SCANS, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases!(
    a_stream_is_the_whole_list_in_its_order,
    what_is_wrong_is_told_before_the_first_row,
    cells_are_no_formulas,
    a_stream_costs_one_request_and_shows_what_the_caller_sees,
    who_loses_the_right_midway_gets_no_more,
);

const NDJSON: &str = "application/x-ndjson";

async fn scanned(api: &Api, assets: impl IntoIterator<Item = Observed>) -> Value {
    let north = secrets_in("north");
    api.app.cloud.scope("one", &north);
    for asset in assets {
        api.app.cloud.put("one", &north, asset);
    }
    api.subscribe("one").await;
    let worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.scan(json!({})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    worker.stop().await;
    job
}

fn named(name: &str) -> Observed {
    secret(&secrets_in("north"), name)
}

async fn lines(client: &Client<'_>, path: &str) -> Vec<Value> {
    let answer = client.clone().with("Accept", NDJSON).get(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(NDJSON)), "{}", answer.text);
    assert!(answer.text.is_empty() || answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn table(client: &Client<'_>, path: &str) -> Vec<String> {
    let answer = client.clone().with("Accept", "text/csv").get(path).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/csv; charset=utf-8")),
        "{}",
        answer.text
    );
    answer.text.split("\r\n").map(str::to_owned).collect()
}

async fn a_stream_is_the_whole_list_in_its_order(database: TestDatabase) {
    let api = Api::on(database).await;
    let job = scanned(&api, (0..1203).map(|number| named(&format!("s-{:04}", (number * 7) % 1203)))).await;
    let viewer = api.viewer();
    for query in ["sort=-name", "sort=name&q=s-1", "sort=name&limit=3&includeTotal=true"] {
        let pages = api.walk(&format!("{ASSETS}?{}", query.replace("&limit=3", "")), 500).await;
        assert_eq!(lines(&viewer, &format!("{ASSETS}?{query}")).await, pages, "{query}");
    }
    let now = api.walk(&format!("{ASSETS}?sort=lastSeenAt"), 500).await.pop().unwrap()["lastSeenAt"].clone();
    let past = lines(&viewer, &format!("{ASSETS}?sort=name&asOf={}", now.as_str().unwrap().replace('+', "%2B"))).await;
    assert_eq!((past.len(), past[1202]["name"].as_str()), (1203, Some("s-1202")));
    // from a row of the list on
    let page = viewer.get(&format!("{ASSETS}?sort=name&limit=500")).await.ok(200);
    let cursor = page["meta"]["nextCursor"].as_str().unwrap();
    assert_eq!(lines(&viewer, &format!("{ASSETS}?sort=name&cursor={cursor}")).await.len(), 703);
    assert_eq!(lines(&viewer, &format!("{ASSETS}?sort=name&offset=1200")).await.len(), 3);
    // an instant with an offset and enumerations with commas mean what they mean in pages
    let query = "status=unknown,expired&expiresBefore=2030-01-01T00:00:00+01:00&sort=name";
    assert_eq!(lines(&viewer, &format!("{ASSETS}?{query}")).await.len(), 0);
    assert_eq!(lines(&viewer, &format!("{ASSETS}?status=unknown,expired")).await.len(), 1203);
    let results = lines(&viewer, &format!("{SCANS}/{}/results", job.id())).await;
    assert_eq!((results.len(), &results[0]["change"]), (1203, &json!("created")));
    for list in ["/api/jobs", SCANS, "/api/subscriptions", "/api/assets/discovery/vaults", "/api/tokens"] {
        let pages = viewer.get(list).await.ok(200)["data"].as_array().unwrap().clone();
        assert_eq!(column(&lines(&viewer, list).await, "id"), column(&pages, "id"), "{list}");
    }
    let rows = table(&viewer, &format!("{ASSETS}?sort=name")).await;
    assert_eq!((rows.len(), rows[1204].as_str()), (1205, ""), "a head, each row, and nothing after the last");
    let head: Vec<&str> = rows[0].split(',').collect();
    let at =
        |name: &str| head.iter().position(|column| *column == name).unwrap_or_else(|| panic!("no {name}: {head:?}"));
    assert!(head.contains(&"certificate.fingerprintSha256"), "{head:?}");
    assert_eq!(rows[1].split(',').nth(at("name")), Some("s-0000"));
    // pages stay what is answered by default, and one object is no list
    for accept in ["application/json", "*/*", "text/csv;q=0.1, application/json"] {
        assert!(viewer.clone().with("Accept", accept).get(ASSETS).await.ok(200)["meta"].is_object(), "{accept}");
    }
    let one = viewer.clone().with("Accept", NDJSON).get(&format!("{ASSETS}/{}", page["data"][0].id())).await;
    assert_eq!(one.header("content-type"), Some("application/json; charset=utf-8"));
    let head = viewer.clone().with("Accept", NDJSON).send(Method::HEAD, ASSETS, None).await;
    assert_eq!((head.status, head.header("content-type"), head.text.as_str()), (200, Some(NDJSON), ""));
}

async fn what_is_wrong_is_told_before_the_first_row(database: TestDatabase) {
    let api = Api::on(database).await;
    for accept in [NDJSON, "text/csv"] {
        let viewer = api.viewer().with("Accept", accept);
        viewer.get(&format!("{ASSETS}?colour=red")).await.refused(400, "unknown_parameter");
        assert_eq!(viewer.get(&format!("{ASSETS}?sort=colour")).await.pointers("validation_failed"), ["/query/sort"]);
        assert_eq!(viewer.get(&format!("{ASSETS}?cursor=x")).await.pointers("validation_failed"), ["/query/cursor"]);
        assert_eq!(viewer.get(&format!("{ASSETS}?limit=501")).await.pointers("validation_failed"), ["/query/limit"]);
        api.nobody().with("Accept", accept).get(ASSETS).await.refused(401, "token_missing");
        viewer.get("/api/users").await.refused(403, "permission_denied");
    }
    assert_eq!(lines(&api.viewer(), ASSETS).await, [Value::Null; 0]);
    assert_eq!(table(&api.viewer(), ASSETS).await.len(), 2, "a head alone");
}

async fn cells_are_no_formulas(database: TestDatabase) {
    let api = Api::on(database).await;
    let certificate = CertificateFacts {
        subject: Some("@SUM(A1)".to_owned()),
        issuer: Some("CN=\"x\", O=y".to_owned()),
        serial: None,
        sans: vec!["a".to_owned(), "b".to_owned()],
        key_algorithm: "RSA".to_owned(),
        key_bits: Some(2048),
        signature_algorithm: None,
        fingerprint_sha256: None,
        self_signed: Some(true),
        is_ca: None,
    };
    let asset = Observed { certificate: Some(certificate), vault: "-1+1".to_owned(), ..named("=cmd|'/c calc'!A0") };
    scanned(&api, [asset]).await;
    let rows = table(&api.viewer(), ASSETS).await;
    for expected in [
        ",'=cmd|'/c calc'!A0,",
        ",'-1+1",
        ",'@SUM(A1),",
        ",\"CN=\"\"x\"\", O=y\",",
        ",\"[\"\"a\"\",\"\"b\"\"]\",",
        ",2048,",
        ",true,",
    ] {
        assert!(rows[1].contains(expected), "{expected} in {}", rows[1]);
    }
    // lines of JSON say what is
    assert_eq!(lines(&api.viewer(), ASSETS).await[0]["name"], "=cmd|'/c calc'!A0");
}

async fn a_stream_costs_one_request_and_shows_what_the_caller_sees(database: TestDatabase) {
    let limits = Surroundings { limits: vec![Rule::per_hour(1000)], ..Surroundings::default() };
    let api = Api::surrounded(database, LOOPBACK, limits).await;
    scanned(&api, (0..1203).map(|number| named(&format!("s-{number:04}")))).await;
    let two = api.subscribe("two").await;
    let south = secrets_in("south");
    api.app.cloud.put("two", &south, secret(&south, "d"));
    let worker = api.app.worker(WorkerSettings::default()).await;
    api.scan(json!({"subscriptions": [two]})).await;
    worker.stop().await;
    let restricted = json!({"name": "narrow", "role": "viewer", "subscriptions": [two]});
    let token = api.admin().post("/api/tokens", restricted).await.ok(201)["token"].as_str().unwrap().to_owned();
    assert_eq!(column(&lines(&api.bearing(&token), ASSETS).await, "name"), ["d"]);
    let left = async || {
        let answer = api.role("auditor").get("/api/auth/me").await;
        answer.header("x-ratelimit-remaining").unwrap().parse::<i64>().unwrap()
    };
    let before = left().await;
    assert_eq!(lines(&api.role("auditor"), ASSETS).await.len(), 1204, "three pages");
    assert_eq!(before - left().await, 2, "the stream, and the question after it");
}

async fn who_loses_the_right_midway_gets_no_more(database: TestDatabase) {
    let api = Api::on(database).await;
    // more than what lies in buffers between the two ends
    let wide = "x".repeat(20_000);
    let assets = (0..2100).map(|number| {
        let mut asset = named(&format!("s-{number:04}"));
        asset.attributes.insert("wide".to_owned(), json!(wide));
        asset
    });
    scanned(&api, assets).await;
    for accept in [NDJSON, "text/csv"] {
        let made = api.admin().post("/api/tokens", json!({"name": "short", "role": "viewer"})).await.ok(201);
        let client = api.bearing(made["token"].as_str().unwrap()).with("Accept", accept);
        let mut answer = client.open(ASSETS).await;
        assert_eq!(answer.status(), 200);
        let mut text = answer.chunk().await.unwrap().unwrap().to_vec();
        api.admin().delete(&format!("/api/tokens/{}", made.id())).await.ok(204);
        let broken = loop {
            match answer.chunk().await {
                Ok(Some(more)) => text.extend(more),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken, "nobody takes it for the whole list");
        if accept == NDJSON {
            let text = String::from_utf8(text).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let (last, rows) = lines.split_last().unwrap();
            assert_eq!((&last["code"], &last["status"]), (&json!("token_revoked"), &json!(401)));
            assert!(last["requestId"].is_string() && last["instance"] == ASSETS, "{last}");
            assert!(rows.len() < 2100 && rows.iter().all(|row| row["name"].is_string()), "{}", rows.len());
        }
    }
}

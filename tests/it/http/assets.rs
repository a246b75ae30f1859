//! The inventory as clients list it: filters, sorts, pages.

use chrono::{DateTime, TimeDelta, Utc};
use keywright_jobs::domain::inventory::{AssetType, Observed, ScopeId};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Identified, SCAN, SCANS, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_both_databases!(
    a_client_does_the_main_job_from_login_to_the_last_page,
    pages_by_cursor_hold_every_asset_once_and_cursors_are_good_for_their_list_only,
    every_documented_sort_is_total_in_both_directions,
    status_bounds_follow_the_clock,
    filters_narrow_and_repeated_ones_widen,
    words_are_found_by_their_beginnings_and_wildcards_are_plain_characters,
    removed_assets_are_hidden_unless_asked_for,
    instants_survive_from_before_1970_to_the_year_9999,
);

async fn a_client_does_the_main_job_from_login_to_the_last_page(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let north = secrets_in("north");
    for number in 0..23 {
        let mut asset = secret(&north, &format!("s-{number:02}"));
        asset.expires_at = (number % 2 == 0).then(|| api.now() - TimeDelta::days(number + 1));
        api.app.cloud.put("123456789012", &north, asset);
    }
    let login = json!({"username": "admin", "password": keywright_tests::http::ADMIN_PASSWORD});
    let session = api.nobody().post("/api/auth/login", login).await.ok(200);
    assert_eq!((session["token_type"].as_str(), session["expires_in"].is_i64()), (Some("Bearer"), true));
    let me = api.bearing(session["access_token"].as_str().unwrap());
    let body = json!({"provider": "aws", "externalId": "123456789012", "name": "production"});
    let made = me.post("/api/subscriptions", body).await;
    let location = made.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/api/subscriptions/{}", made.ok(201).id()));
    me.get(&location).await.ok(200);
    let started = me.post(SCAN, json!({})).await;
    assert_eq!(started.header("retry-after"), Some("2"));
    let job = started.under_way();
    let done = me.get(&format!("/api/jobs/{}?wait=60", job.id())).await.ok(200);
    assert_eq!((done["state"].as_str(), done["counts"]["found"].as_u64()), (Some("succeeded"), Some(23)));
    let expired = me.get(&format!("{ASSETS}?status=expired&includeTotal=true")).await.ok(200);
    assert_eq!(expired["meta"]["total"], 12);
    assert!(expired["data"].as_array().unwrap().iter().all(|asset| asset["status"] == "expired"));
    let names: BTreeSet<String> =
        column(&api.walk(&format!("{ASSETS}?sort=name"), 10).await, "name").into_iter().collect();
    assert_eq!(names, (0..23).map(|number| format!("s-{number:02}")).collect());
    let vaults = me.get("/api/assets/discovery/vaults").await.ok(200);
    let counts = json!({"total": 23, "healthy": 0, "warning": 0, "critical": 0, "expired": 12, "unknown": 11});
    assert_eq!(vaults["data"][0]["counts"], counts);
    let scans = me.get(SCANS).await.ok(200);
    assert_eq!(scans["data"][0]["id"], job["id"]);
    let subscription = me.get(&location).await.ok(200);
    assert_eq!(
        (&subscription["lastScanState"], &subscription["lastScanAt"]),
        (&json!("succeeded"), &done["completedAt"])
    );
}

/// A worker, and a subscription whose region `north` has been scanned with these assets.
async fn scanned(api: &Api, assets: impl IntoIterator<Item = Observed>) -> String {
    let north = secrets_in("north");
    api.app.cloud.scope("one", &north);
    for asset in assets {
        api.app.cloud.put("one", &north, asset);
    }
    let id = api.subscribe("one").await;
    let worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.scan(json!({})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    worker.stop().await;
    id
}

fn named(name: &str) -> Observed {
    secret(&secrets_in("north"), name)
}

async fn names(api: &Api, query: &str) -> Vec<String> {
    column(&api.walk(&format!("{ASSETS}?sort=name&{query}"), 500).await, "name")
}

async fn pages_by_cursor_hold_every_asset_once_and_cursors_are_good_for_their_list_only(database: TestDatabase) {
    let api = Api::on(database).await;
    scanned(&api, (0..35).map(|number| named(&format!("s-{number:02}")))).await;
    for limit in [1, 7, 10, 35, 36] {
        let ids: Vec<String> = column(&api.walk(&format!("{ASSETS}?removed=false"), limit).await, "id");
        assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (35, 35), "limit {limit}");
    }
    let viewer = api.viewer();
    let first = viewer.get(&format!("{ASSETS}?limit=10&type=secret")).await.ok(200);
    let cursor = first["meta"]["nextCursor"].as_str().unwrap().to_owned();
    // another page size is the same list, and so are the same filters in another order
    viewer.get(&format!("{ASSETS}?limit=3&includeTotal=true&type=secret&cursor={cursor}")).await.ok(200);
    for other in ["type=key", "type=secret&status=unknown", "type=secret&sort=name", "removed=any", ""] {
        let answer = viewer.get(&format!("{ASSETS}?{other}&cursor={cursor}")).await;
        assert_eq!(answer.pointers("validation_failed"), ["/query/cursor"], "{other}");
    }
    let elsewhere = viewer.get(&format!("/api/jobs?cursor={cursor}")).await;
    assert_eq!(elsewhere.pointers("validation_failed"), ["/query/cursor"]);
    let mut tampered = cursor.clone();
    let last = tampered.pop().unwrap();
    tampered.push(if last == 'A' { 'B' } else { 'A' });
    for wrong in [tampered.as_str(), &cursor[1..], "x", "%20", &"A".repeat(4000)] {
        viewer.get(&format!("{ASSETS}?type=secret&cursor={wrong}")).await.refused(400, "validation_failed");
    }
    let page = viewer.get(&format!("{ASSETS}?offset=30&limit=10&sort=name&includeTotal=true")).await.ok(200);
    assert_eq!(column(page["data"].as_array().unwrap(), "name"), ["s-30", "s-31", "s-32", "s-33", "s-34"]);
    assert_eq!(page["meta"], json!({"limit": 10, "hasMore": false, "nextCursor": null, "total": 35}));
    assert_eq!(viewer.get(&format!("{ASSETS}?offset=10000")).await.ok(200)["data"], json!([]));
    for wrong in
        ["offset=10001", "offset=-1", "limit=0", "limit=501", "limit=x", "limit=+1", "includeTotal=1", "limit="]
    {
        viewer.get(&format!("{ASSETS}?{wrong}")).await.refused(400, "validation_failed");
    }
    viewer.get(&format!("{ASSETS}?offset=1&type=secret&cursor={cursor}")).await.refused(400, "validation_failed");
}

async fn every_documented_sort_is_total_in_both_directions(database: TestDatabase) {
    let api = Api::on(database).await;
    let day = |number: i64| (number % 3 != 0).then(|| api.now() + TimeDelta::days(number % 5));
    let assets = (0..17).map(|number| Observed {
        created_at: day(number),
        expires_at: day(number + 1),
        last_rotated_at: day(number + 2),
        last_changed_at: day(number + 3),
        vault: format!("v{}", number % 2),
        ..named(&format!("Name-{}", (number * 7) % 17))
    });
    scanned(&api, assets).await;
    let text = |row: &Value, key: &str| row[key].as_str().map(|text| text.to_lowercase());
    for key in
        ["firstSeenAt", "lastSeenAt", "createdAt", "expiresAt", "lastRotatedAt", "lastChangedAt", "name", "vault"]
    {
        for direction in ["", "-"] {
            let rows = api.walk(&format!("{ASSETS}?sort={direction}{key}"), 4).await;
            let ids: BTreeSet<String> = column(&rows, "id").into_iter().collect();
            assert_eq!((rows.len(), ids.len()), (17, 17), "{direction}{key}");
            let values: Vec<Option<String>> = rows.iter().map(|row| text(row, key)).collect();
            let (dated, absent): (Vec<_>, Vec<_>) = values.iter().cloned().partition(Option::is_some);
            let mut expected = dated.clone();
            expected.sort();
            if direction == "-" {
                expected.reverse();
            }
            // what has no value comes last in both directions
            expected.extend(absent);
            assert_eq!(values, expected, "{direction}{key}");
        }
    }
    let rows = api.walk(&format!("{ASSETS}?sort=vault,-expiresAt,name"), 3).await;
    assert_eq!(column(&rows, "id").into_iter().collect::<BTreeSet<_>>().len(), 17);
    for wrong in ["colour", "name,name", "name,-name", "", "-", "--name", "name,", "id", "expires_at"] {
        let answer = api.viewer().get(&format!("{ASSETS}?sort={wrong}")).await;
        assert_eq!(answer.pointers("validation_failed"), ["/query/sort"], "{wrong}");
    }
}

async fn status_bounds_follow_the_clock(database: TestDatabase) {
    let api = Api::on(database).await;
    let start = api.now();
    let assets = [("day-1", 1), ("day-8", 8), ("day-30", 30)].map(|(name, days)| Observed {
        expires_at: Some(start + TimeDelta::days(days) - TimeDelta::hours(1)),
        ..named(name)
    });
    scanned(&api, assets.into_iter().chain([named("none")])).await;
    let stand = async |status: &str| names(&api, &format!("status={status}")).await;
    assert_eq!(stand("critical").await, ["day-1"]);
    assert_eq!(stand("warning").await, ["day-30", "day-8"]);
    assert_eq!(stand("unknown").await, ["none"]);
    assert_eq!((stand("expired").await.len(), stand("healthy").await.len()), (0, 0));
    assert_eq!(stand("critical,unknown").await, ["day-1", "none"]);
    assert_eq!(names(&api, "status=critical&status=unknown").await, ["day-1", "none"]);
    api.pass(TimeDelta::days(1));
    assert_eq!(stand("expired").await, ["day-1"]);
    assert_eq!(stand("critical").await, ["day-8"]);
    api.pass(TimeDelta::days(-30));
    assert_eq!(stand("healthy").await, ["day-30", "day-8"]);
    api.viewer().get(&format!("{ASSETS}?status=expired,late")).await.refused(400, "validation_failed");
}

async fn filters_narrow_and_repeated_ones_widen(database: TestDatabase) {
    let api = Api::on(database).await;
    let at = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap());
    let tagged = |name: &str, tags: &[(&str, &str)]| Observed {
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..named(name)
    };
    let one = scanned(
        &api,
        [
            Observed {
                expires_at: at("2030-01-01T00:00:00Z"),
                vault: "left".to_owned(),
                ..tagged("a", &[("Owner", "ann"), ("env", "prod"), ("aws:stack:name", "x:y")])
            },
            Observed {
                expires_at: at("2031-01-01T00:00:00Z"),
                asset_type: AssetType::Key,
                ..tagged("b", &[("owner", "bob"), ("a.b", "c:d")])
            },
            Observed {
                asset_type: AssetType::Certificate,
                ..tagged(
                    "c",
                    &[("env", "prod"), ("quo\"te", "1"), ("$x", "2"), ("", "3"), ("it's", "4"), ("back\\slash", "5")],
                )
            },
        ],
    )
    .await;
    let south = ScopeId { region: "south".to_owned(), kind: "memory.secret".to_owned() };
    api.app.cloud.put("two", &south, secret(&south, "d"));
    let two = api.subscribe("two").await;
    let worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.scan(json!({"subscriptions": [two]})).await;
    worker.stop().await;
    let none: [&str; 0] = [];
    for (query, expected) in [
        ("type=key".to_owned(), &["b"][..]),
        ("type=key,certificate".to_owned(), &["b", "c"]),
        ("type=key&type=secret".to_owned(), &["a", "b", "d"]),
        ("vault=left".to_owned(), &["a"]),
        ("vault=left&vault=memory".to_owned(), &["a", "b", "c", "d"]),
        ("vault=left,memory".to_owned(), &none),
        (format!("subscription={two}"), &["d"]),
        (format!("subscription={one}&subscription={two}"), &["a", "b", "c", "d"]),
        ("provider=aws".to_owned(), &["a", "b", "c", "d"]),
        ("provider=local,gcp".to_owned(), &none),
        ("region=south".to_owned(), &["d"]),
        ("region=south&type=key".to_owned(), &none),
        ("owner=ann".to_owned(), &["a"]),
        ("owner=ann&owner=bob".to_owned(), &["a", "b"]),
        ("owner=ANN".to_owned(), &none),
        ("tag=env:prod".to_owned(), &["a", "c"]),
        ("tag=env:prod&tag=Owner:ann".to_owned(), &["a"]),
        ("tag=env:pro".to_owned(), &none),
        ("tag=a.b:c:d".to_owned(), &["b"]),
        ("tag=aws:stack:name:x:y".to_owned(), &["a"]),
        ("tag=aws:stack:name:x".to_owned(), &none),
        ("tag=quo%22te:1".to_owned(), &["c"]),
        ("tag=$x:2".to_owned(), &["c"]),
        ("tag=:3".to_owned(), &["c"]),
        ("tag=it's:4".to_owned(), &["c"]),
        ("tag=back%5Cslash:5".to_owned(), &["c"]),
        ("tag=%25:%25".to_owned(), &none),
        (format!("seenBy={}", job.id()), &["d"]),
        ("expiresBefore=2030-01-01T00:00:00Z".to_owned(), &none),
        ("expiresBefore=2030-01-01T00:00:00.000001Z".to_owned(), &["a"]),
        ("expiresBefore=2030-01-01T00:30:00%2B00:00".to_owned(), &["a"]),
        ("expiresBefore=2030-01-01T00:30:00+00:00".to_owned(), &["a"]),
        ("expiresBefore=2030-01-01T00:30:00%2B01:00".to_owned(), &none),
        ("expiresBefore=2029-12-31T23:30:00-01:00".to_owned(), &["a"]),
        ("expiresAfter=2030-01-01T00:00:00Z".to_owned(), &["b"]),
        ("expiresAfter=2029-12-31t23:59:59.999999z&expiresBefore=2030-06-01T00:00:00z".to_owned(), &["a"]),
    ] {
        assert_eq!(names(&api, &query).await, expected, "{query}");
    }
    for wrong in [
        "tag=env",
        "expiresBefore=2030-01-01",
        "expiresBefore=soon",
        "expiresAfter=2030-01-01T00:00:00",
        "type=",
        "type=SECRET",
        "subscription=x",
        "seenBy=1",
        "removed=yes",
        "removed=",
        "q=",
        "provider=aws,",
        "expiresBefore=2030-13-01T00:00:00Z",
    ] {
        api.viewer().get(&format!("{ASSETS}?{wrong}")).await.refused(400, "validation_failed");
    }
}

async fn words_are_found_by_their_beginnings_and_wildcards_are_plain_characters(database: TestDatabase) {
    let api = Api::on(database).await;
    let assets =
        ["prod/Database-Main", "100%_sure", "back\\slash", "snake_case", "ÄRGER über", "dot.ted:colon", "it's"];
    scanned(&api, assets.map(named)).await;
    for (word, expected) in [
        ("prod", Some("prod/Database-Main")),
        ("PROD", Some("prod/Database-Main")),
        ("data", Some("prod/Database-Main")),
        ("mAiN", Some("prod/Database-Main")),
        ("prod/data", Some("prod/Database-Main")),
        ("abase", None),
        ("100%25", Some("100%_sure")),
        ("1%25", None),
        ("%25", None),
        ("_", None),
        ("sure", Some("100%_sure")),
        ("10_", None),
        ("back%5C", Some("back\\slash")),
        ("back%5Cs", Some("back\\slash")),
        ("case", Some("snake_case")),
        ("snake_c", Some("snake_case")),
        ("snakexc", None),
        ("%C3%A4rger", Some("ÄRGER über")),
        ("%C3%9Cber", Some("ÄRGER über")),
        ("ted", Some("dot.ted:colon")),
        ("colon", Some("dot.ted:colon")),
        ("it's", Some("it's")),
        ("zzz", None),
    ] {
        let found = names(&api, &format!("q={word}")).await;
        // `_sure` is a word that an underscore begins, and what begins with a separator is found by it
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{word}");
    }
}

async fn removed_assets_are_hidden_unless_asked_for(database: TestDatabase) {
    let api = Api::on(database).await;
    scanned(&api, ["kept", "gone"].map(named)).await;
    let gone = api.walk(&format!("{ASSETS}?q=gone"), 5).await[0].id();
    assert!(api.app.cloud.remove("one", &secrets_in("north"), "memory:north:gone"));
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let second = api.scan(json!({})).await;
    assert_eq!(second["counts"]["removed"], 1);
    assert_eq!(names(&api, "").await, ["kept"]);
    assert_eq!(names(&api, "removed=false").await, ["kept"]);
    assert_eq!(names(&api, "removed=true").await, ["gone"]);
    assert_eq!(names(&api, "removed=any").await, ["gone", "kept"]);
    assert_eq!(names(&api, &format!("seenBy={}&removed=any", second.id())).await, ["kept"]);
    let asset = api.viewer().get(&format!("{ASSETS}/{gone}")).await.ok(200);
    assert!(asset["removedAt"].is_string(), "{asset}");
    let vaults = api.viewer().get("/api/assets/discovery/vaults").await.ok(200);
    assert_eq!(vaults["data"][0]["counts"]["total"], 1);
}

async fn instants_survive_from_before_1970_to_the_year_9999(database: TestDatabase) {
    let api = Api::on(database).await;
    let instants = [
        "0001-01-01T00:00:00+00:00",
        "1899-12-31T23:59:59+00:00",
        "1969-12-31T23:59:59.999999+00:00",
        "1970-01-01T00:00:00+00:00",
        "2026-05-20T10:30:00+00:00",
        "2026-05-20T10:30:00.000001+00:00",
        "2026-05-20T10:30:00.100000+00:00",
        "2038-01-19T03:14:08+00:00",
        "9999-12-31T23:59:59.999999+00:00",
    ];
    let assets = instants.iter().enumerate().rev().map(|(number, instant)| Observed {
        expires_at: Some(instant.parse().unwrap()),
        created_at: Some(instant.parse().unwrap()),
        ..named(&format!("n{number}"))
    });
    scanned(&api, assets).await;
    for limit in [1, 2, 50] {
        let rows = api.walk(&format!("{ASSETS}?sort=expiresAt"), limit).await;
        assert_eq!(column(&rows, "expiresAt"), instants, "limit {limit}");
        assert_eq!(column(&rows, "createdAt"), instants);
    }
    assert_eq!(names(&api, "expiresBefore=1970-01-01T00:00:00Z").await, ["n0", "n1", "n2"]);
    assert_eq!(names(&api, "expiresAfter=2026-05-20T10:30:00Z").await, ["n5", "n6", "n7", "n8"]);
}

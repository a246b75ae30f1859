//! What became of assets: versions, and the inventory as it was at any past instant.

use chrono::{DateTime, TimeDelta, Utc};
use keywright_jobs::domain::inventory::{Observed, Related, Relation};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Identified, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Operation, secret, secrets_in};
use serde_json::{Value, json};

on_both_databases!(
    four_scans_have_their_history_and_every_instant_its_inventory,
    what_was_half_listed_or_denied_has_no_history,
    filters_and_sorts_of_a_past_inventory,
    what_does_not_go_with_a_past_instant_is_refused,
    a_deleted_subscription_leaves_its_past,
);

const NEVER: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";

fn named(name: &str) -> Observed {
    secret(&secrets_in("north"), name)
}

fn put(api: &Api, asset: Observed) {
    api.app.cloud.put("one", &secrets_in("north"), asset);
}

fn sized(name: &str, size: u32) -> Observed {
    let mut asset = named(name);
    asset.attributes.insert("size".to_owned(), json!(size));
    asset
}

async fn scan(api: &Api) -> Value {
    api.scan(json!({})).await
}

/// An instant as a query takes it.
fn at(instant: &Value) -> String {
    instant.as_str().unwrap().replace('+', "%2B")
}

async fn id_of(api: &Api, name: &str) -> String {
    let found = api.viewer().get(&format!("{ASSETS}?q={name}&removed=any")).await.ok(200);
    found["data"][0].id()
}

async fn history(api: &Api, name: &str) -> Vec<Value> {
    let id = id_of(api, name).await;
    let one_by_one = api.walk(&format!("{ASSETS}/{id}/history?"), 1).await;
    assert_eq!(one_by_one, api.walk(&format!("{ASSETS}/{id}/history?"), 500).await, "pages cut nothing off");
    one_by_one
}

async fn as_of(api: &Api, instant: &Value, query: &str) -> Vec<String> {
    let mut names = column(&api.walk(&format!("{ASSETS}?asOf={}{query}", at(instant)), 2).await, "name");
    names.sort();
    names
}

async fn four_scans_have_their_history_and_every_instant_its_inventory(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.subscribe("one").await;
    let before = json!((api.now() - TimeDelta::days(1)).to_rfc3339());
    for name in ["changing", "leaving", "staying"] {
        put(&api, sized(name, 1));
    }
    let first = scan(&api).await;
    let soon: DateTime<Utc> = "2031-02-03T04:05:06.5Z".parse().unwrap();
    let mut changed = Observed { expires_at: Some(soon), ..sized("changing", 2) };
    changed.tags.insert("a/b".to_owned(), "c".to_owned());
    changed.relations.push(Related { relation: Relation::EncryptedBy, to: "key-1".to_owned() });
    put(&api, changed);
    put(&api, sized("appearing", 1));
    api.app.cloud.remove("one", &secrets_in("north"), "memory:north:leaving");
    let second = scan(&api).await;
    put(&api, sized("leaving", 7));
    let third = scan(&api).await;
    api.app.cloud.remove("one", &secrets_in("north"), "memory:north:changing");
    let fourth = scan(&api).await;

    let changing = history(&api, "changing").await;
    let told = |versions: &[Value]| {
        let told = versions.iter().map(|version| {
            (
                version["version"].as_i64().unwrap(),
                version["change"].as_str().unwrap().to_owned(),
                version["scan"].clone(),
            )
        });
        told.collect::<Vec<_>>()
    };
    let of = |number, change: &str, scan: &Value| (number, change.to_owned(), scan["id"].clone());
    assert_eq!(told(&changing), [of(3, "removed", &fourth), of(2, "changed", &second), of(1, "created", &first)]);
    assert_eq!(changing[0]["validTo"], Value::Null);
    for (later, earlier) in changing.iter().zip(&changing[1..]) {
        assert_eq!(later["validFrom"], earlier["validTo"]);
    }
    assert_eq!((&changing[0]["changes"], &changing[2]["changes"]), (&json!([]), &json!([])));
    let change =
        |pointer: &str, before: Value, after: Value| json!({"pointer": pointer, "before": before, "after": after});
    assert_eq!(
        changing[1]["changes"],
        json!([
            change("/attributes/size", json!(1), json!(2)),
            change("/expiresAt", Value::Null, json!("2031-02-03T04:05:06.500000+00:00")),
            change("/relations", json!([]), json!([{"relation": "encrypted_by", "to": "key-1"}])),
            change("/tags/a~1b", Value::Null, json!("c")),
        ])
    );
    let leaving = history(&api, "leaving").await;
    assert_eq!(told(&leaving), [of(3, "created", &third), of(2, "removed", &second), of(1, "created", &first)]);
    assert_eq!(leaving[0]["changes"], json!([change("/attributes/size", json!(1), json!(7))]), "against what had gone");
    assert_eq!(told(&history(&api, "staying").await), [of(1, "created", &first)]);
    assert_eq!(told(&history(&api, "appearing").await), [of(1, "created", &second)]);

    // a version holds from its beginning to just before its end
    let began = |versions: &[Value], version: usize| versions[versions.len() - version]["validFrom"].clone();
    assert_eq!(as_of(&api, &before, "").await, [""; 0]);
    assert_eq!(as_of(&api, &began(&leaving, 1), "").await, ["changing", "leaving", "staying"]);
    assert_eq!(as_of(&api, &began(&leaving, 2), "").await, ["appearing", "changing", "staying"]);
    assert_eq!(as_of(&api, &began(&leaving, 2), "&removed=true").await, ["leaving"]);
    assert_eq!(as_of(&api, &began(&leaving, 3), "").await, ["appearing", "changing", "leaving", "staying"]);
    assert_eq!(as_of(&api, &began(&changing, 3), "").await, ["appearing", "leaving", "staying"]);
    assert_eq!(
        as_of(&api, &began(&changing, 3), "&removed=any").await,
        ["appearing", "changing", "leaving", "staying"]
    );

    let id = id_of(&api, "changing").await;
    let then = async |instant: &Value| api.viewer().get(&format!("{ASSETS}/{id}?asOf={}", at(instant))).await.ok(200);
    let one = then(&began(&changing, 1)).await;
    assert_eq!(
        (&one["attributes"]["size"], &one["expiresAt"], &one["removedAt"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
    assert_eq!((&one["status"], &one["tags"]), (&json!("unknown"), &json!({})));
    let two = then(&began(&changing, 2)).await;
    assert_eq!((&two["attributes"]["size"], &two["status"]), (&json!(2), &json!("healthy")));
    assert_eq!(two["lastSeenAt"], began(&changing, 2), "nothing of what came later");
    let three = then(&began(&changing, 3)).await;
    assert_eq!((&three["attributes"]["size"], &three["removedAt"]), (&json!(2), &began(&changing, 3)));
    api.viewer().get(&format!("{ASSETS}/{id}?asOf={}", at(&before))).await.refused(404, "not_found");
    api.viewer().get(&format!("{ASSETS}/{NEVER}?asOf={}", at(&before))).await.refused(404, "not_found");
    api.viewer().get(&format!("{ASSETS}/{NEVER}/history")).await.refused(404, "not_found");
}

async fn what_was_half_listed_or_denied_has_no_history(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.app.cloud.page_size(2);
    api.subscribe("one").await;
    for name in ["a", "b", "c", "d"] {
        put(&api, named(name));
    }
    scan(&api).await;
    // the second page is denied, and what the first page tells is published
    api.app.cloud.remove("one", &secrets_in("north"), "memory:north:d");
    put(&api, sized("a", 2));
    api.app.cloud.deny("memory:List", |call| matches!(&call.operation, Operation::List { page: Some(_), .. }));
    assert_eq!(scan(&api).await["counts"]["removed"], 0);
    let versions = async |name: &str| history(&api, name).await.len();
    assert_eq!((versions("a").await, versions("c").await, versions("d").await), (2, 1, 1));
    api.app.cloud.heal();
    api.app.cloud.deny("memory:List", |call| matches!(&call.operation, Operation::List { .. }));
    scan(&api).await;
    assert_eq!((versions("a").await, versions("d").await), (2, 1));
    let now = json!(api.viewer().get(&format!("{ASSETS}/{}", id_of(&api, "a").await)).await.ok(200)["lastSeenAt"]);
    assert_eq!(as_of(&api, &now, "").await, ["a", "b", "c", "d"]);
    api.app.cloud.heal();
    scan(&api).await;
    assert_eq!((versions("d").await, versions("c").await), (2, 1));
}

async fn filters_and_sorts_of_a_past_inventory(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let one = api.subscribe("one").await;
    let two = api.subscribe("two").await;
    let instants = [
        Some("0001-01-01T00:00:00Z"),
        Some("1969-12-31T23:59:59.999999Z"),
        Some("2030-01-01T00:00:00Z"),
        Some("2030-01-01T00:00:00.500Z"),
        Some("9999-12-31T23:59:59.999999Z"),
        None,
    ];
    for (number, instant) in instants.iter().enumerate().rev() {
        let mut asset = Observed {
            expires_at: instant.map(|instant| instant.parse().unwrap()),
            vault: format!("v{}", number % 2),
            ..named(&format!("n{number}"))
        };
        asset.tags.insert("aws:x:y".to_owned(), format!("v:{number}"));
        put(&api, asset);
    }
    let south = secrets_in("south");
    api.app.cloud.put("two", &south, secret(&south, "s"));
    scan(&api).await;
    let then =
        api.viewer().get(&format!("{ASSETS}?sort=-lastSeenAt&limit=1")).await.ok(200)["data"][0]["lastSeenAt"].clone();
    for number in 0..6 {
        // nothing is left of it
        put(&api, Observed { vault: "later".to_owned(), ..named(&format!("n{number}")) });
    }
    api.app.cloud.remove("two", &south, "memory:south:s");
    scan(&api).await;
    let all = ["n0", "n1", "n2", "n3", "n4", "n5", "s"];
    for (query, expected) in [
        (String::new(), &all[..]),
        ("&vault=v0".to_owned(), &["n0", "n2", "n4"]),
        ("&vault=later".to_owned(), &[]),
        ("&status=unknown".to_owned(), &["n5", "s"]),
        ("&status=expired".to_owned(), &["n0", "n1"]),
        ("&status=healthy,expired".to_owned(), &["n0", "n1", "n2", "n3", "n4"]),
        ("&expiresBefore=2030-01-01T00:00:00Z".to_owned(), &["n0", "n1"]),
        ("&expiresBefore=2030-01-01T00:00:00.000001Z".to_owned(), &["n0", "n1", "n2"]),
        ("&expiresAfter=2030-01-01T00:00:00.499999Z".to_owned(), &["n3", "n4"]),
        ("&expiresAfter=1969-12-31T23:59:59Z&expiresBefore=1970-01-01T00:00:00Z".to_owned(), &["n1"]),
        ("&tag=aws:x:y:v:3".to_owned(), &["n3"]),
        (format!("&subscription={two}"), &["s"]),
        (format!("&subscription={one}&region=south"), &[]),
        ("&region=south".to_owned(), &["s"]),
        ("&type=secret&provider=aws".to_owned(), &all[..]),
        ("&type=key".to_owned(), &[]),
        ("&provider=gcp".to_owned(), &[]),
        ("&removed=true".to_owned(), &[]),
    ] {
        assert_eq!(as_of(&api, &then, &query).await, expected, "{query}");
    }
    let sorted = async |sort: &str, limit: usize| {
        column(&api.walk(&format!("{ASSETS}?asOf={}&region=north&sort={sort}", at(&then)), limit).await, "name")
    };
    for limit in [1, 2, 50] {
        assert_eq!(sorted("expiresAt", limit).await, ["n0", "n1", "n2", "n3", "n4", "n5"]);
        assert_eq!(sorted("-expiresAt", limit).await, ["n4", "n3", "n2", "n1", "n0", "n5"]);
        assert_eq!(sorted("vault,-name", limit).await, ["n4", "n2", "n0", "n5", "n3", "n1"]);
        assert_eq!(sorted("createdAt", limit).await.len(), 6);
    }
    let total = api.viewer().get(&format!("{ASSETS}?asOf={}&includeTotal=true&limit=1", at(&then))).await.ok(200);
    assert_eq!(total["meta"]["total"], 7);
}

async fn what_does_not_go_with_a_past_instant_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let viewer = api.viewer();
    let past = "asOf=2020-01-01T00:00:00Z";
    let refused = viewer.get(&format!("{ASSETS}?{past}&owner=ann&q=x&seenBy={NEVER}")).await;
    assert_eq!(refused.pointers("validation_failed"), ["/query/owner", "/query/q", "/query/seenBy"]);
    for sort in ["firstSeenAt", "lastSeenAt", "colour", "id,id"] {
        let refused = viewer.get(&format!("{ASSETS}?{past}&sort={sort}")).await;
        assert_eq!(refused.pointers("validation_failed"), ["/query/sort"], "{sort}");
    }
    for wrong in ["asOf=yesterday", "asOf=2020-01-01", "asOf=", "asOf=2999-01-01T00:00:00Z"] {
        let refused = viewer.get(&format!("{ASSETS}?{wrong}")).await;
        assert_eq!(refused.pointers("validation_failed"), ["/query/asOf"], "{wrong}");
        let refused = viewer.get(&format!("{ASSETS}/{NEVER}?{wrong}")).await;
        assert_eq!(refused.pointers("validation_failed"), ["/query/asOf"], "{wrong}");
    }
    for early in ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999-05:00"] {
        assert_eq!(viewer.get(&format!("{ASSETS}?asOf={early}")).await.ok(200)["data"], json!([]));
    }
    viewer.get(&format!("{ASSETS}?{past}&tag=nocolon")).await.refused(400, "validation_failed");
    viewer.get(&format!("{ASSETS}/{NEVER}/history?sort=version")).await.refused(400, "unknown_parameter");
}

async fn a_deleted_subscription_leaves_its_past(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let one = api.subscribe("one").await;
    put(&api, named("a"));
    scan(&api).await;
    let asset = api.viewer().get(&format!("{ASSETS}?limit=1")).await.ok(200)["data"][0].clone();
    api.admin().with("If-Match", "*").delete(&format!("/api/subscriptions/{one}")).await.ok(204);
    let versions = history(&api, "a").await;
    assert_eq!(column(&versions, "change"), ["removed", "created"]);
    assert_eq!(versions[0]["scan"], Value::Null);
    assert_eq!(as_of(&api, &asset["lastSeenAt"], "&provider=aws").await, ["a"]);
    assert_eq!(as_of(&api, &versions[0]["validFrom"], "").await, [""; 0]);
}

//! What assets hang together with, and certificates that are in several places.

use keywright_entities::asset_relation;
use keywright_jobs::domain::inventory::{AssetType, CertificateFacts, Observed, Related, Relation, ScopeId};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Client, Identified, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use sea_orm::EntityTrait;
use serde_json::{Value, json};

on_both_databases!(
    relations_are_seen_from_both_ends_as_far_as_the_caller_sees,
    relations_follow_their_assets,
    one_certificate_in_several_places_is_a_group,
    what_is_asked_wrongly_is_refused,
);

const DUPLICATES: &str = "/api/assets/discovery/duplicates";
const NEVER: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";

fn named(name: &str, relations: &[(Relation, &str)]) -> Observed {
    let relations = relations.iter().map(|(relation, to)| Related { relation: *relation, to: (*to).to_owned() });
    Observed { relations: relations.collect(), ..secret(&secrets_in("north"), name) }
}

fn put(api: &Api, account: &str, asset: Observed) {
    api.app.cloud.put(account, &secrets_in("north"), asset);
}

async fn id_of(api: &Api, name: &str) -> String {
    api.viewer().get(&format!("{ASSETS}?q={name}&removed=any")).await.ok(200)["data"][0].id()
}

/// Direction, relation, identifier and the name of the other end.
async fn relations(client: &Client<'_>, asset: &str, query: &str) -> Vec<Value> {
    let page = client.get(&format!("{ASSETS}/{asset}/relations?{query}")).await.ok(200);
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| json!([row["direction"], row["relation"], row["externalId"], row["asset"]["name"]])).collect()
}

async fn narrow(api: &Api, subscription: &str) -> String {
    let body = json!({"name": "narrow", "role": "viewer", "subscriptions": [subscription]});
    api.admin().post("/api/tokens", body).await.ok(201)["token"].as_str().unwrap().to_owned()
}

async fn relations_are_seen_from_both_ends_as_far_as_the_caller_sees(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    let key = "memory:north:key";
    let twice = [(Relation::EncryptedBy, key), (Relation::EncryptedBy, key), (Relation::UsedBy, "arn:elsewhere")];
    put(&api, "one", named("secret", &twice));
    put(&api, "two", named("key", &[(Relation::NamedBy, "alias/k"), (Relation::BelongsTo, key)]));
    api.scan(json!({})).await;
    let (secret, key_id) = (id_of(&api, "secret").await, id_of(&api, "key").await);
    let out = |relation: &str, to: &str, name: Value| json!(["outgoing", relation, to, name]);
    let of_secret = [out("encrypted_by", key, json!("key")), out("used_by", "arn:elsewhere", Value::Null)];
    assert_eq!(relations(&api.viewer(), &secret, "").await, of_secret);
    let of_key = [
        // a relation to itself is told once
        out("belongs_to", key, json!("key")),
        json!(["incoming", "encrypted_by", "memory:north:secret", "secret"]),
        out("named_by", "alias/k", Value::Null),
    ];
    assert_eq!(relations(&api.viewer(), &key_id, "").await, of_key);
    assert_eq!(relations(&api.viewer(), &key_id, "direction=incoming").await, of_key[1..2]);
    assert_eq!(relations(&api.viewer(), &key_id, "direction=outgoing").await.len(), 2);
    let path = format!("{ASSETS}/{key_id}/relations?");
    assert_eq!(api.walk(&path, 1).await, api.walk(&path, 500).await);
    let other = &api.walk(&format!("{ASSETS}/{secret}/relations?"), 500).await[0]["asset"];
    assert_eq!((&other["id"], &other["subscription"], &other["type"]), (&json!(key_id), &json!(two), &json!("secret")));
    // who sees one end only
    let (sees_one, sees_two) = (narrow(&api, &one).await, narrow(&api, &two).await);
    let of_secret = [out("encrypted_by", key, Value::Null), out("used_by", "arn:elsewhere", Value::Null)];
    assert_eq!(relations(&api.bearing(&sees_one), &secret, "").await, of_secret);
    assert_eq!(relations(&api.bearing(&sees_two), &key_id, "direction=incoming").await, [Value::Null; 0]);
    api.bearing(&sees_two).get(&format!("{ASSETS}/{secret}/relations")).await.refused(404, "not_found");
}

async fn relations_follow_their_assets(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.subscribe("one").await;
    let database = api.app.another().await;
    let stored = async || asset_relation::Entity::find().all(database.reader()).await.unwrap();
    put(&api, "one", named("a", &[(Relation::EncryptedBy, "k1"), (Relation::EncryptedBy, "k2")]));
    put(&api, "one", named("b", &[(Relation::EncryptedBy, "k1")]));
    api.scan(json!({})).await;
    let first = stored().await;
    assert_eq!(first.len(), 3);
    api.scan(json!({})).await;
    assert_eq!(stored().await, first, "what has not changed is not written");
    put(&api, "one", named("a", &[(Relation::EncryptedBy, "k2"), (Relation::UsedBy, &"x".repeat(5000))]));
    api.scan(json!({})).await;
    let a = id_of(&api, "a").await;
    let now = relations(&api.viewer(), &a, "").await;
    assert_eq!((now.len(), &now[0][2], stored().await.len()), (2, &json!("k2"), 3));
    api.app.cloud.remove("one", &secrets_in("north"), "memory:north:a");
    api.scan(json!({})).await;
    assert_eq!((relations(&api.viewer(), &a, "").await.len(), stored().await.len()), (0, 1));
    put(&api, "one", named("a", &[(Relation::EncryptedBy, "k3")]));
    api.scan(json!({})).await;
    assert_eq!(relations(&api.viewer(), &a, "").await, [json!(["outgoing", "encrypted_by", "k3", null])]);
    let subscription = api.viewer().get("/api/subscriptions").await.ok(200)["data"][0].id();
    api.admin().with("If-Match", "*").delete(&format!("/api/subscriptions/{subscription}")).await.ok(204);
    assert_eq!(stored().await.len(), 0);
}

fn certificate(scope: &ScopeId, name: &str, fingerprint: Option<&str>) -> Observed {
    let facts = CertificateFacts {
        subject: None,
        issuer: None,
        serial: None,
        sans: Vec::new(),
        key_algorithm: "EC".to_owned(),
        key_bits: None,
        signature_algorithm: None,
        fingerprint_sha256: fingerprint.map(str::to_owned),
        self_signed: None,
        is_ca: None,
    };
    Observed { asset_type: AssetType::Certificate, certificate: Some(facts), ..secret(scope, name) }
}

async fn one_certificate_in_several_places_is_a_group(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    let north = secrets_in("north");
    for (account, name, fingerprint) in [
        ("one", "a1", Some("aa")),
        ("one", "a2", Some("AA")),
        ("two", "a3", Some("aa")),
        ("one", "b1", Some("bb")),
        ("two", "b2", Some("bb")),
        ("one", "c1", Some("cc")),
        ("one", "n1", None),
        ("two", "n2", None),
    ] {
        api.app.cloud.put(account, &north, certificate(&north, name, fingerprint));
    }
    api.scan(json!({})).await;
    let groups = async |client: &Client<'_>| {
        let page = client.get(&format!("{DUPLICATES}?includeTotal=true")).await.ok(200);
        let rows = page["data"].as_array().unwrap();
        assert_eq!(page["meta"]["total"], rows.len());
        let told = rows.iter().map(|group| {
            let mut names = column(group["assets"].as_array().unwrap(), "name");
            names.sort();
            assert_eq!(group["count"], names.len());
            (group["fingerprintSha256"].as_str().unwrap().to_owned(), names.join(" "))
        });
        told.collect::<Vec<_>>()
    };
    let of = |fingerprint: &str, names: &str| (fingerprint.to_owned(), names.to_owned());
    assert_eq!(groups(&api.viewer()).await, [of("aa", "a1 a2 a3"), of("bb", "b1 b2")]);
    assert_eq!(api.walk(&format!("{DUPLICATES}?"), 1).await.len(), 2);
    let (sees_one, sees_two) = (narrow(&api, &one).await, narrow(&api, &two).await);
    assert_eq!(groups(&api.bearing(&sees_one)).await, [of("aa", "a1 a2")]);
    assert_eq!(groups(&api.bearing(&sees_two)).await, []);
    for (query, expected) in
        [("fingerprintSha256=AA", 3), ("fingerprintSha256=bb&fingerprintSha256=cc", 3), ("fingerprintSha256=dd", 0)]
    {
        assert_eq!(api.walk(&format!("{ASSETS}?{query}"), 500).await.len(), expected, "{query}");
    }
    let then =
        api.viewer().get(&format!("{ASSETS}?sort=-lastSeenAt&limit=1")).await.ok(200)["data"][0]["lastSeenAt"].clone();
    // one is renewed, one goes
    api.app.cloud.put("two", &north, certificate(&north, "b2", Some("dd")));
    api.app.cloud.remove("one", &north, "memory:north:a1");
    api.scan(json!({})).await;
    assert_eq!(groups(&api.viewer()).await, [of("aa", "a2 a3")]);
    let then = then.as_str().unwrap().replace('+', "%2B");
    assert_eq!(api.walk(&format!("{ASSETS}?fingerprintSha256=aa&asOf={then}"), 500).await.len(), 3);
}

async fn what_is_asked_wrongly_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let viewer = api.viewer();
    viewer.get(&format!("{ASSETS}/{NEVER}/relations")).await.refused(404, "not_found");
    viewer.get(&format!("{ASSETS}/x/relations")).await.refused(404, "not_found");
    viewer.get(&format!("{ASSETS}/{NEVER}/relations?direction=up")).await.refused(400, "validation_failed");
    viewer.get(&format!("{ASSETS}/{NEVER}/relations?sort=target")).await.refused(400, "unknown_parameter");
    viewer.get(&format!("{DUPLICATES}?subscription={NEVER}")).await.refused(400, "unknown_parameter");
    assert_eq!(viewer.get(DUPLICATES).await.ok(200)["data"], json!([]));
}

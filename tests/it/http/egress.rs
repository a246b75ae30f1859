//! Addresses that users enter and that lead inside are refused, and it is noted who entered them.

use keywright_api::service::Surroundings;
use keywright_entities::{audit_outbox, types::Outcome};
use keywright_jobs::egress::EgressGuard;
use keywright_tests::{
    database::TestDatabase,
    http::{Api, Identified, LOOPBACK},
    on_both_databases,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};

on_both_databases!(addresses_that_lead_inside_are_not_saved, what_the_operator_allows_is_saved,);

/// However it is spelled.
const INSIDE: &[&str] = &[
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "2852039166",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
];

fn aws(endpoint: &str) -> Value {
    json!({"provider": "aws", "externalId": endpoint, "name": "x", "settings": {"aws": {"endpoint": endpoint}}})
}

async fn refusals(api: &Api) -> Vec<audit_outbox::Model> {
    let events = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq("egress.refused"));
    events.all(api.app.database().reader()).await.unwrap()
}

async fn addresses_that_lead_inside_are_not_saved(database: TestDatabase) {
    let api = Api::on(database).await;
    for host in INSIDE {
        let made = api.admin().post("/api/subscriptions", aws(&format!("http://{host}:8080"))).await;
        assert_eq!(made.pointers("validation_failed"), ["/settings/aws/endpoint"], "{host}");
        let endpoints = ["example.com:443".to_owned(), format!("{host}:5432")];
        let local = json!({"provider": "local", "externalId": host, "name": "x", "settings": {"local": {"endpoints": endpoints}}});
        let made = api.admin().post("/api/subscriptions", local).await;
        assert_eq!(made.pointers("validation_failed"), ["/settings/local/endpoints/1"], "{host}");
    }
    assert_eq!(api.viewer().get("/api/subscriptions").await.ok(200)["data"], json!([]));
    let events = refusals(&api).await;
    assert_eq!(events.len(), 2 * INSIDE.len());
    assert!(
        events.iter().all(|event| event.outcome == Outcome::Denied && event.actor_name.as_deref() == Some("admin"))
    );
    assert!(events.iter().all(|event| event.request_id.is_some()));
    for host in ["example.com", "1.1.1.1", "[2606:4700:4700::1111]", "localhost"] {
        api.admin().post("/api/subscriptions", aws(&format!("https://{host}"))).await.ok(201);
    }
    let id = api.subscribe("one").await;
    let patch = json!({"settings": {"aws": {"endpoint": "http://169.254.169.254/"}}});
    let patched = api.admin().patch(&format!("/api/subscriptions/{id}"), patch).await;
    assert_eq!(patched.pointers("validation_failed"), ["/settings/aws/endpoint"]);
    assert_eq!(refusals(&api).await.iter().filter(|event| event.subject_id.as_deref() == Some(&id)).count(), 1);
}

async fn what_the_operator_allows_is_saved(database: TestDatabase) {
    let allowed = ["10.0.0.0/8".parse().unwrap(), "127.0.0.1:8080".parse().unwrap()];
    let surroundings = Surroundings { egress: EgressGuard::new(&allowed), ..Surroundings::default() };
    let api = Api::surrounded(database, LOOPBACK, surroundings).await;
    for endpoint in ["http://10.1.2.3", "http://[::ffff:10.1.2.3]", "http://127.0.0.1:8080"] {
        api.admin().post("/api/subscriptions", aws(endpoint)).await.ok(201).id();
    }
    for endpoint in ["http://127.0.0.1:8081", "http://192.168.0.1"] {
        api.admin().post("/api/subscriptions", aws(endpoint)).await.refused(400, "validation_failed");
    }
}

//! Tiers: what the licence gates, and that nothing makes it last longer or hold more.

use chrono::TimeDelta;
use keywright_jobs::{
    domain::licence::{Limit, Tier},
    licence::Refused,
    setup::clock::Clock,
};
use keywright_tests::{
    database::TestDatabase,
    http::{Api, Identified, SCAN},
    licence::{Issuer, Terms},
    on_both_databases,
    people::{disable, person},
    process::Process,
};
use serde_json::{Value, json};
use std::time::Duration;

on_both_databases!(
    without_a_key_nothing_is_gated,
    a_limit_holds_under_parallel_requests_to_two_processes,
    after_its_end_work_goes_on_and_nothing_is_added,
    a_clock_that_is_set_back_prolongs_nothing,
    a_renewed_licence_needs_no_restart,
    rotations_by_hand_are_counted_by_the_month,
    disabled_users_do_not_count,
    one_more_user_is_one_too_many_however_they_come_about,
    a_wrong_licence_stops_the_start,
);

const LICENCE: &str = "/api/system/license";
const SUBSCRIPTIONS: &str = "/api/subscriptions";

fn subscription(number: usize) -> Value {
    json!({"provider": "aws", "externalId": format!("a{number}"), "name": format!("a{number}")})
}

async fn subscribe(api: &Api, count: usize) {
    for number in 0..count {
        api.admin().post(SUBSCRIPTIONS, subscription(number)).await.ok(201);
    }
}

/// A licence of this tier, good for a day.
fn a_day(issuer: &Issuer, tier: &str) -> Terms {
    let now = Clock::system().now().timestamp();
    issuer.issue(&json!({"tier": tier, "sub": "Example Ltd", "iat": now - 60, "exp": now + 24 * 3600}))
}

async fn without_a_key_nothing_is_gated(database: TestDatabase) {
    let api = Api::on(database).await;
    subscribe(&api, 25).await;
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!((&licence["tier"], &licence["licensed"]), (&json!("ENTERPRISE"), &json!(false)));
    assert_eq!((&licence["state"], &licence["problem"]), (&json!("ungated"), &Value::Null));
    assert_eq!(licence["limits"]["subscriptions"], json!({"limit": null, "used": 25}));
    api.nobody().get(LICENCE).await.refused(401, "token_missing");
}

async fn a_limit_holds_under_parallel_requests_to_two_processes(database: TestDatabase) {
    let issuer = Issuer::default();
    // a key and no licence: the lowest tier
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let neighbour = api.neighbour().await;
    let admin = api.admin();
    let asking = (0..20).map(|number| {
        let admin = if number % 2 == 0 { admin.clone() } else { admin.clone().at(neighbour.address) };
        async move { admin.post(SUBSCRIPTIONS, subscription(number)).await }
    });
    let answers = futures::future::join_all(asking).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 4);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.refused(403, "limit_reached")["requiredTier"], "PRO");
    }
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!((&licence["tier"], &licence["state"]), (&json!("STARTER"), &json!("missing")));
    assert_eq!(licence["limits"]["subscriptions"], json!({"limit": 4, "used": 4}));
    assert_eq!(licence["limits"]["users"], json!({"limit": 1, "used": 1}));
    // what is removed makes room
    let listed = api.viewer().get(SUBSCRIPTIONS).await.ok(200);
    let path = format!("{SUBSCRIPTIONS}/{}", listed["data"][0].id());
    admin.clone().with("If-Match", "*").delete(&path).await.ok(204);
    admin.post(SUBSCRIPTIONS, subscription(20)).await.ok(201);
    admin.post(SUBSCRIPTIONS, subscription(21)).await.refused(403, "limit_reached");
}

async fn after_its_end_work_goes_on_and_nothing_is_added(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, a_day(&issuer, "PRO")).await;
    subscribe(&api, 6).await;
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!((&licence["tier"], &licence["licensed"]), (&json!("PRO"), &json!(true)));
    assert_eq!(licence["licensee"], "Example Ltd");
    let open = api.operator().post(SCAN, json!({})).await.under_way();
    // the database's clock and that of the tokens' lifetimes are another matter
    api.pass(TimeDelta::hours(25));
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!((&licence["tier"], &licence["licensed"]), (&json!("STARTER"), &json!(false)));
    assert_eq!((&licence["state"], &licence["licensedTier"]), (&json!("expired"), &json!("PRO")));
    api.admin().post(SUBSCRIPTIONS, subscription(7)).await.refused(403, "limit_reached");
    assert!(matches!(
        api.licence().require(Tier::Pro),
        Err(Refused::Tier { required: Tier::Pro, in_force: Tier::Starter })
    ));
    // what is there goes on: reads, changes, scans of all of it
    let listed = api.viewer().get(SUBSCRIPTIONS).await.ok(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 6);
    let path = format!("{SUBSCRIPTIONS}/{}", listed["data"][5].id());
    api.admin().patch(&path, json!({"name": "renamed"})).await.ok(200);
    assert_eq!(api.viewer().get(&format!("/api/jobs/{}", open.id())).await.ok(200)["state"], "queued");
    api.operator().post(SCAN, json!({"mode": "force"})).await.under_way();
}

async fn a_clock_that_is_set_back_prolongs_nothing(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, a_day(&issuer, "PRO")).await;
    subscribe(&api, 4).await;
    api.pass(TimeDelta::hours(25));
    api.licence().look().await;
    api.pass(TimeDelta::hours(-25));
    let refused = async |address| {
        let licence = api.viewer().at(address).get(LICENCE).await.ok(200);
        assert_eq!((&licence["tier"], &licence["state"]), (&json!("STARTER"), &json!("expired")));
        api.admin().at(address).post(SUBSCRIPTIONS, subscription(9)).await.refused(403, "limit_reached");
    };
    refused(api.address).await;
    // nor does a restart, or another process
    let neighbour = api.neighbour().await;
    refused(neighbour.address).await;
    // a new licence is judged by itself: an instance whose clock once stood wrong is not lost
    a_day(&issuer, "ENTERPRISE");
    api.licence().look().await;
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!((&licence["tier"], &licence["state"]), (&json!("ENTERPRISE"), &json!("valid")));
}

async fn a_renewed_licence_needs_no_restart(database: TestDatabase) {
    let issuer = Issuer::default();
    let terms = a_day(&issuer, "STARTER");
    let file = terms.file.clone().unwrap();
    let api = Api::licensed(database, terms).await;
    subscribe(&api, 4).await;
    api.admin().post(SUBSCRIPTIONS, subscription(4)).await.refused(403, "limit_reached");
    let now = Clock::system().now().timestamp();
    issuer.issue(&json!({"tier": "PRO", "exp": now + 3600, "limits": {"subscriptions": 22, "users": 1}}));
    api.licence().look().await;
    api.admin().post(SUBSCRIPTIONS, subscription(4)).await.ok(201);
    let licence = api.viewer().get(LICENCE).await.ok(200);
    assert_eq!(licence["limits"]["subscriptions"], json!({"limit": 22, "used": 5}));
    assert_eq!(licence["limits"]["users"]["limit"], Value::Null, "a licence takes nothing from its tier");
    // what is no licence changes nothing but what is told
    let other = Issuer::default().sign(&json!({"tier": "ENTERPRISE"}));
    for wrong in [other.as_str(), "", "a.b.c"] {
        std::fs::write(&file, wrong).unwrap();
        api.licence().look().await;
        let licence = api.viewer().get(LICENCE).await.ok(200);
        assert_eq!((&licence["tier"], &licence["state"]), (&json!("PRO"), &json!("valid")));
        assert!(licence["problem"].as_str().unwrap().contains("KEYWRIGHT_LICENCE_FILE"), "{licence}");
    }
    std::fs::remove_file(&file).unwrap();
    api.licence().look().await;
    assert!(api.viewer().get(LICENCE).await.ok(200)["problem"].as_str().unwrap().contains("cannot be read"));
    a_day(&issuer, "PRO");
    api.licence().look().await;
    assert_eq!(api.viewer().get(LICENCE).await.ok(200)["problem"], Value::Null);
}

async fn rotations_by_hand_are_counted_by_the_month(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let neighbour = api.neighbour().await;
    let (here, there) = (api.app.another().await, api.app.another().await);
    let month = async || {
        let spending = (0..20).map(|number| {
            let (licence, database) =
                if number % 2 == 0 { (api.licence(), &here) } else { (&*neighbour.licence, &there) };
            async move {
                let write = database.begin().await.unwrap();
                match licence.admit(&write, Limit::ManualRotations).await {
                    Ok(()) => {
                        write.commit().await.unwrap();
                        true
                    }
                    Err(Refused::Limit { most: 3, required: Some(Tier::Pro), .. }) => {
                        write.rollback().await.unwrap();
                        false
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        });
        futures::future::join_all(spending).await.into_iter().filter(|spent| *spent).count()
    };
    assert_eq!(month().await, 3);
    let used = api.viewer().get(LICENCE).await.ok(200)["limits"]["manualRotations"].clone();
    assert_eq!(used, json!({"limit": 3, "used": 3}));
    api.pass(TimeDelta::days(31));
    assert_eq!(month().await, 3);
}

async fn disabled_users_do_not_count(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let db = api.app.database();
    person(&api, "bob", "operator").await;
    let full = async || {
        let write = db.begin().await.unwrap();
        let full = matches!(api.licence().admit(&write, Limit::Users).await, Err(Refused::Limit { most: 1, .. }));
        write.rollback().await.unwrap();
        full
    };
    assert!(full().await);
    disable(&api, "bob").await;
    assert!(full().await, "the administrator is there");
    disable(&api, "admin").await;
    assert!(!full().await);
}

async fn one_more_user_is_one_too_many_however_they_come_about(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let user = |name: &str, enabled| json!({"name": name, "role": "viewer", "enabled": enabled});
    let refused = api.admin().post("/api/users", user("bob", true)).await.refused(403, "limit_reached");
    assert_eq!(refused["requiredTier"], "PRO");
    // who is disabled does not count, until enabled
    let made = api.admin().post("/api/users", user("bob", false)).await.ok(201);
    let path = format!("/api/users/{}", made.id());
    api.admin().patch(&path, json!({"enabled": true})).await.refused(403, "limit_reached");
    api.admin().patch(&path, json!({"role": "operator"})).await.ok(200);
    assert_eq!(api.viewer().get(LICENCE).await.ok(200)["limits"]["users"], json!({"limit": 1, "used": 1}));
    let admins = api.admin().get("/api/users?enabled=true").await.ok(200);
    let own = format!("/api/users/{}", admins["data"][0].id());
    api.admin().patch(&own, json!({"enabled": true})).await.ok(200);
}

async fn a_wrong_licence_stops_the_start(database: TestDatabase) {
    let (issuer, other) = (Issuer::default(), Issuer::default());
    let terms = a_day(&other, "PRO");
    let path = terms.file.unwrap().display().to_string();
    let run = async |arguments: &[&str], key: &str, file: &str| {
        let environment = [
            ("DATABASE_URL", database.url()),
            ("KEYWRIGHT_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
            ("KEYWRIGHT_LICENCE_PUBLIC_KEY", key),
            ("KEYWRIGHT_LICENCE_FILE", file),
        ];
        let mut api = Process::start_with("keywright-api", arguments, &environment);
        let status = api.ended(Duration::from_secs(60)).await;
        (status.code(), api.log())
    };
    for arguments in [&[][..], &["--check-config"][..]] {
        for (file, reason) in [(path.as_str(), "is not signed"), ("/nowhere/licence.jwt", "cannot be read")] {
            let (code, log) = run(arguments, issuer.public_key(), file).await;
            assert_eq!(code, Some(2), "{log}");
            assert!(log.contains("KEYWRIGHT_LICENCE_FILE") && log.contains(reason), "{log}");
        }
    }
    let (code, log) = run(&["--check-config"], other.public_key(), &path).await;
    assert_eq!(code, Some(0), "{log}");
}

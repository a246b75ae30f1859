//! Guessing passwords, floods of logins, passwords that must be changed, and what of it is in the audit log.

use keywright_api::auth::throttle;
use keywright_entities::{audit_outbox, clock, login_failures, user_account};
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Api, Identified},
    instance::Instance,
    on_both_databases,
};
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter,
    sea_query::{Expr, ExprTrait},
};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

on_both_databases!(
    wrong_passwords_hold_up_who_sends_them_and_nobody_else,
    many_guesses_at_once_are_answered_no_more_than_one_after_the_other,
    a_hard_lock_holds_for_everybody_until_an_administrator_helps,
    a_password_that_was_made_must_be_changed_first,
    the_present_password_cannot_be_guessed_by_a_session,
    denials_are_counted_or_told,
);

const PASSWORD: &str = "seven-quiet-lanterns";

/// Logs in from this address of the machine; what came back and after how many seconds to try again.
async fn from(address: [u8; 4], server: SocketAddr, name: &str, password: &str) -> (u16, Option<u32>) {
    let client = reqwest::Client::builder().no_proxy().local_address(IpAddr::from(address)).build().unwrap();
    let body = json!({"username": name, "password": password});
    let answer = client.post(format!("http://{server}/api/auth/login")).json(&body).send().await.unwrap();
    let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    (answer.status().as_u16(), after)
}

const ATTACKER: [u8; 4] = [127, 0, 0, 66];
const USER: [u8; 4] = [127, 0, 0, 1];

/// How long each delay is, in seconds, the longest last.
async fn delays(api: &Api) -> Vec<i64> {
    let rows = login_failures::Entity::find().all(api.app.database().reader()).await.unwrap();
    let delays = rows.iter().map(|row| (row.blocked_until - row.last_at).num_seconds());
    let mut delays: Vec<i64> = delays.filter(|seconds| *seconds > 0).collect();
    delays.sort_unstable();
    delays
}

/// Makes all delays so long that none ends before it is looked at.
async fn stretch_delays(api: &Api) {
    let far = clock::now(api.app.database().reader()).await.unwrap() + chrono::TimeDelta::hours(1);
    let update = login_failures::Entity::update_many()
        .col_expr(login_failures::Column::BlockedUntil, Expr::value(far))
        .filter(Expr::col(login_failures::Column::BlockedUntil).gt(Expr::col(login_failures::Column::LastAt)));
    update.exec(api.app.database().reader()).await.unwrap();
}

/// Lets the time of all delays pass.
async fn pass_delays(api: &Api) {
    let update = login_failures::Entity::update_many()
        .col_expr(login_failures::Column::BlockedUntil, Expr::col(login_failures::Column::LastAt));
    update.exec(api.app.database().reader()).await.unwrap();
}

async fn wrong_passwords_hold_up_who_sends_them_and_nobody_else(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    for name in ["admin", "nobody-of-this-name"] {
        for attempt in 0..5 {
            let server = if attempt % 2 == 0 { api.address } else { neighbour.address };
            assert_eq!(from(ATTACKER, server, name, "wrong").await, (401, None), "{name} {attempt}");
        }
        assert_eq!(delays(&api).await, [1], "{name}");
        stretch_delays(&api).await;
        // also for the right one, at both
        for server in [api.address, neighbour.address] {
            let (status, after) = from(ATTACKER, server, name, ADMIN_PASSWORD).await;
            assert!(
                status == 429 && after.is_some_and(|seconds| (3000..=3600).contains(&seconds)),
                "{status} {after:?}"
            );
        }
        assert_eq!(from(USER, api.address, "admin", ADMIN_PASSWORD).await.0, 200, "its user comes from elsewhere");
        pass_delays(&api).await;
    }
    for wait in [2, 4, 8] {
        assert_eq!(from(ATTACKER, api.address, "ADMIN", "wrong").await.0, 401);
        assert_eq!(delays(&api).await, [wait]);
        pass_delays(&api).await;
    }
    // over many accounts the address itself is held up
    for number in 0..(50 - 5 - 8) {
        assert_eq!(from(ATTACKER, api.address, &format!("user-{number}"), "wrong").await.0, 401, "{number}");
    }
    assert_eq!(delays(&api).await, [1]);
    stretch_delays(&api).await;
    assert_eq!(from(ATTACKER, api.address, "somebody-new", "wrong").await.0, 429);
    assert_eq!(from(USER, api.address, "admin", ADMIN_PASSWORD).await.0, 200);
    // who gets it right begins anew
    pass_delays(&api).await;
    assert_eq!(from(ATTACKER, api.address, "admin", ADMIN_PASSWORD).await.0, 200);
    assert_eq!(from(ATTACKER, api.address, "admin", "wrong").await.0, 401);
    let ids = login_failures::Entity::find().all(api.app.database().reader()).await.unwrap();
    assert!(ids.iter().all(|row| row.id.len() == 64), "names that nobody has may be passwords: {ids:?}");
}

async fn many_guesses_at_once_are_answered_no_more_than_one_after_the_other(database: TestDatabase) {
    let api = Api::on(database).await;
    let guesses = (0..30).map(|number| {
        let guess = format!("guess-{number}");
        async move { from(ATTACKER, api.address, "admin", &guess).await.0 }
    });
    let statuses = futures::future::join_all(guesses).await;
    let told = statuses.iter().filter(|status| **status == 401).count();
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    // on each thread that hashes one may be answered while another is counted
    assert!((5..=5 + 8).contains(&told), "{told} guesses were answered");
}

async fn a_hard_lock_holds_for_everybody_until_an_administrator_helps(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let user = json!({"name": "ada", "role": "viewer", "password": PASSWORD});
    let user = api.admin().post("/api/users", user).await.ok(201).id();
    let limits = keywright_jobs::setup::config::LoginLimits { lock_after: 3, ..Default::default() };
    let locking = throttle::Throttle::new(limits, b"key");
    let id = user.parse().unwrap();
    let attempt = locking.login("ada", Some(id), &Default::default());
    for _ in 0..2 {
        locking.failed(api.app.database().reader(), &attempt).await.unwrap();
    }
    locking.admit(api.app.database().reader(), &attempt).await.unwrap();
    locking.failed(api.app.database().reader(), &attempt).await.unwrap();
    let elsewhere = keywright_api::auth::Client { address: Some("192.0.2.1".to_owned()), user_agent: None };
    let elsewhere = locking.login("ada", Some(id), &elsewhere);
    locking.admit(api.app.database().reader(), &elsewhere).await.unwrap_err();
    api.admin().at(neighbour.address).patch(&format!("/api/users/{user}"), json!({"password": null})).await.ok(200);
    locking.admit(api.app.database().reader(), &elsewhere).await.unwrap();
}

async fn a_password_that_was_made_must_be_changed_first(database: TestDatabase) {
    let api = Api::on(database).await;
    let made = api.admin().post("/api/users", json!({"name": "ada", "role": "admin"})).await.ok(201);
    let password = made["password"].as_str().unwrap();
    let login = json!({"username": "ada", "password": password});
    let session = api.nobody().post("/api/auth/login", login).await.ok(200);
    let ada = api.bearing(session["access_token"].as_str().unwrap());
    for path in ["/api/users", "/api/subscriptions", "/api/auth/sessions", "/api/tokens", "/api/jobs"] {
        ada.get(path).await.refused(403, "password_change_required");
    }
    ada.post("/api/tokens", json!({"name": "x", "role": "admin"})).await.refused(403, "password_change_required");
    let admin = ada.patch(&format!("/api/users/{}", made.id()), json!({"role": "viewer"})).await;
    admin.refused(403, "password_change_required");
    assert_eq!(ada.get("/api/auth/me").await.ok(200)["passwordChangeRequired"], true);
    let refresh = json!({"refresh_token": session["refresh_token"]});
    let again = api.nobody().post("/api/auth/refresh", refresh).await.ok(200);
    assert_eq!(again["password_change_required"], true);
    let ada = api.bearing(again["access_token"].as_str().unwrap());
    let change = |new: &str| json!({"currentPassword": password, "newPassword": new});
    for (new, pointer) in
        [(password, "/newPassword"), ("password123456", "/newPassword"), ("adaadaadaada", "/newPassword")]
    {
        assert_eq!(ada.post("/api/auth/password", change(new)).await.pointers("validation_failed"), [pointer]);
    }
    ada.post("/api/auth/password", change(PASSWORD)).await.ok(204);
    ada.get("/api/users").await.ok(200);
}

async fn the_present_password_cannot_be_guessed_by_a_session(database: TestDatabase) {
    let api = Api::on(database).await;
    let change = |current: &str| json!({"currentPassword": current, "newPassword": PASSWORD});
    for _ in 0..5 {
        let wrong = api.session().post("/api/auth/password", change("wrong")).await;
        assert_eq!(wrong.pointers("validation_failed"), ["/currentPassword"]);
    }
    stretch_delays(&api).await;
    api.session().post("/api/auth/password", change(ADMIN_PASSWORD)).await.refused(429, "rate_limited");
    pass_delays(&api).await;
    api.session().post("/api/auth/password", change(ADMIN_PASSWORD)).await.ok(204);
}

/// In processes, which write what they counted when they end.
async fn denials_are_counted_or_told(database: TestDatabase) {
    let (mut process, url) = Instance::another_api(&database).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = |name: &str, password: &str| {
        client.post(format!("{url}/api/auth/login")).json(&json!({"username": name, "password": password})).send()
    };
    let session: Value = login("admin", ADMIN_PASSWORD).await.unwrap().json().await.unwrap();
    let token = json!({"name": "x", "role": "viewer"});
    let bearer = session["access_token"].as_str().unwrap();
    let token = client.post(format!("{url}/api/tokens")).bearer_auth(bearer).json(&token).send().await.unwrap();
    let token: Value = token.json().await.unwrap();
    for _ in 0..40 {
        client.get(format!("{url}/api/auth/me")).bearer_auth("garbage").send().await.unwrap();
        client.get(format!("{url}/api/jobs")).send().await.unwrap();
    }
    for _ in 0..3 {
        login("admin", "wrong").await.unwrap();
        login("hunter2-as-a-name", "wrong").await.unwrap();
    }
    client.get(format!("{url}/api/users")).bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap();
    process.signal(keywright_tests::process::Signal::Term);
    eventually("the process ends", async || process.has_ended().then_some(())).await;

    let db = database.database.reader();
    let of = async |kind: &str| {
        let events = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq(kind));
        events.all(db).await.unwrap()
    };
    let admin = user_account::by_name(db, "admin").await.unwrap().unwrap().id.to_string();
    let counted = |events: &[audit_outbox::Model], code: &str, subject: Option<&str>| -> (usize, u64) {
        let events =
            events.iter().filter(|event| event.details["code"] == code && event.subject_id.as_deref() == subject);
        let counts: Vec<u64> = events.map(|event| event.details["count"].as_u64().unwrap()).collect();
        (counts.len(), counts.iter().sum())
    };
    let denied = of("access.denied").await;
    for code in ["token_invalid", "token_missing"] {
        let (rows, sum) = counted(&denied, code, None);
        // the minute may have changed while they were sent
        assert!(sum == 40 && rows <= 2, "{code}: {rows} rows of {sum}");
    }
    let failed = of("auth.login_failed").await;
    assert_eq!(counted(&failed, "login_failed", Some(&admin)).1, 3);
    assert_eq!(counted(&failed, "login_failed", None).1, 3);
    assert!(!format!("{failed:?}").contains("hunter2"));
    let told: Vec<_> = denied.iter().filter(|event| event.details["code"] == "permission_denied").collect();
    let [told] = told.as_slice() else { panic!("{denied:?}") };
    assert_eq!((told.actor_id.as_deref(), told.subject_id.as_deref()), (token["id"].as_str(), Some("listUsers")));
}

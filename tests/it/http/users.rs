//! Users: added, changed, disabled, removed; somebody who administers always stays.

use keywright_entities::audit_outbox;
use keywright_tests::{
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Answer, Api, Client, Identified},
    on_both_databases,
};
use reqwest::Method;
use sea_orm::{EntityTrait, QueryOrder};
use serde_json::{Value, json};

on_both_databases!(
    a_user_is_added_changed_and_removed,
    what_cannot_be_a_user_is_refused,
    disabling_ends_sessions_and_tokens_for_good,
    a_lower_role_counts_at_once_at_every_process,
    a_password_that_an_admin_sets_or_has_made_ends_the_sessions,
    the_last_administrator_stays_one,
    of_twenty_who_take_the_last_administrators_away_together_not_all_succeed,
    sessions_of_others_are_listed_and_ended_by_an_administrator,
    nobody_rises_through_a_narrow_token,
    a_user_is_made_once_however_often_it_is_sent,
);

const PATH: &str = "/api/users";
const PASSWORD: &str = "seven-quiet-lanterns";

/// Adds a user with [`PASSWORD`].
async fn add(api: &Api, name: &str, role: &str) -> Value {
    api.admin().post(PATH, json!({"name": name, "role": role, "password": PASSWORD})).await.ok(201)
}

async fn log_in(api: &Api, name: &str, password: &str) -> Answer {
    api.nobody().post("/api/auth/login", json!({"username": name, "password": password})).await
}

async fn signed_in<'a>(api: &'a Api, name: &str) -> Client<'a> {
    let session = log_in(api, name, PASSWORD).await.ok(200);
    api.bearing(session["access_token"].as_str().unwrap())
}

async fn event_types(api: &Api) -> Vec<String> {
    let events = audit_outbox::Entity::find().order_by_asc(audit_outbox::Column::Id);
    let events = events.all(api.app.database().reader()).await.unwrap();
    events.into_iter().map(|event| event.event_type).collect()
}

async fn a_user_is_added_changed_and_removed(database: TestDatabase) {
    let api = Api::on(database).await;
    let made = api.admin().post(PATH, json!({"name": "Ada", "role": "operator"})).await;
    let location = made.header("location").unwrap().to_owned();
    assert_eq!(made.header("etag"), Some("\"1\""));
    let made = made.ok(201);
    assert_eq!(location, format!("{PATH}/{}", made.id()));
    assert_eq!((&made["passwordChangeRequired"], &made["enabled"]), (&json!(true), &json!(true)));
    let password = made["password"].as_str().unwrap();
    let session = log_in(&api, "ADA", password).await.ok(200);
    assert_eq!(session["password_change_required"], true);
    let shown = api.admin().get(&location).await.ok(200);
    assert_eq!(
        (&shown["password"], &shown["name"], &shown["subscriptions"]),
        (&Value::Null, &json!("Ada"), &Value::Null)
    );
    api.admin().with("If-None-Match", "\"1\"").get(&location).await.ok(304);

    let renamed = api.admin().with("If-Match", "\"1\"").patch(&location, json!({"name": "Ada L"})).await;
    assert_eq!(renamed.header("etag"), Some("\"2\""));
    assert_eq!(renamed.ok(200)["name"], "Ada L");
    api.admin()
        .with("If-Match", "\"1\"")
        .patch(&location, json!({"role": "viewer"}))
        .await
        .refused(412, "precondition_failed");
    log_in(&api, "ada", password).await.refused(401, "login_failed");
    log_in(&api, "ada l", password).await.ok(200);

    let list = api.admin().get("/api/users?role=operator&enabled=true&includeTotal=true&sort=-name").await.ok(200);
    assert_eq!((&list["meta"]["total"], &list["data"][0]["id"]), (&json!(1), &made["id"]));
    assert_eq!(api.admin().get("/api/users?limit=1").await.ok(200)["data"][0]["name"], "admin");

    api.admin().delete(&location).await.refused(428, "precondition_required");
    api.admin().with("If-Match", "\"1\"").delete(&location).await.refused(412, "precondition_failed");
    api.admin().with("If-Match", "\"2\"").delete(&location).await.ok(204);
    api.admin().get(&location).await.refused(404, "not_found");
    api.admin().with("If-Match", "*").delete(&location).await.refused(404, "not_found");
    let bearer = api.bearing(session["access_token"].as_str().unwrap());
    bearer.get("/api/auth/me").await.refused(401, "token_revoked");
    let events = event_types(&api).await;
    for event in ["user.created", "user.updated", "user.deleted"] {
        assert!(events.contains(&event.to_owned()), "{events:?}");
    }
    // the name is free again, for somebody else
    assert_ne!(add(&api, "Ada L", "viewer").await.id(), made.id());
}

async fn what_cannot_be_a_user_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    add(&api, "ada", "viewer").await;
    for taken in ["ada", "ADA", "Admin"] {
        api.admin().post(PATH, json!({"name": taken, "role": "viewer"})).await.refused(409, "conflict");
    }
    for (body, pointer) in [
        (json!({"name": " ada2", "role": "viewer"}), "/name"),
        (json!({"name": "a\u{0}b", "role": "viewer"}), "/name"),
        (json!({"name": "", "role": "viewer"}), "/name"),
        (json!({"name": "é".repeat(201), "role": "viewer"}), "/name"),
        (json!({"name": "bob", "role": "root"}), "/role"),
        (json!({"name": "bob", "role": "viewer", "password": "short"}), "/password"),
        (json!({"name": "bob", "role": "viewer", "password": "password123456"}), "/password"),
        (json!({"name": "bobthebuilder", "role": "viewer", "password": "BobTheBuilder1"}), "/password"),
        (json!({"name": "bob", "role": "viewer", "password": "x".repeat(1025)}), "/password"),
        (
            json!({"name": "bob", "role": "viewer", "subscriptions": ["0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99"]}),
            "/subscriptions/0",
        ),
        (json!({"name": "bob", "role": "admin", "subscriptions": []}), "/subscriptions"),
    ] {
        assert_eq!(api.admin().post(PATH, body.clone()).await.pointers("validation_failed"), [pointer], "{body}");
    }
    let long = json!({"name": "é".repeat(200), "role": "viewer", "password": "x".repeat(900) + &"ü1".repeat(50)});
    api.admin().post(PATH, long).await.ok(201);
}

async fn disabling_ends_sessions_and_tokens_for_good(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let ada = add(&api, "ada", "operator").await;
    let path = format!("{PATH}/{}", ada.id());
    let session = log_in(&api, "ada", PASSWORD).await.ok(200);
    let bearer = api.bearing(session["access_token"].as_str().unwrap());
    let token = bearer.post("/api/tokens", json!({"name": "x", "role": "viewer"})).await.ok(201);
    let program = api.bearing(token["token"].as_str().unwrap());
    for client in [&bearer, &program] {
        client.clone().at(neighbour.address).get("/api/auth/me").await.ok(200);
    }
    assert_eq!(api.admin().patch(&path, json!({"enabled": false})).await.ok(200)["enabled"], false);
    let over = async || {
        for client in [&bearer, &program] {
            for at in [api.address, neighbour.address] {
                client.clone().at(at).get("/api/auth/me").await.refused(401, "token_revoked");
            }
        }
        let refresh = json!({"refresh_token": session["refresh_token"]});
        api.nobody().post("/api/auth/refresh", refresh).await.refused(401, "token_revoked");
    };
    over().await;
    log_in(&api, "ada", PASSWORD).await.refused(401, "login_failed");
    // what ended does not come back
    api.admin().patch(&path, json!({"enabled": true})).await.ok(200);
    over().await;
    log_in(&api, "ada", PASSWORD).await.ok(200);
}

async fn a_lower_role_counts_at_once_at_every_process(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let ada = add(&api, "ada", "admin").await;
    let session = signed_in(&api, "ada").await;
    let token = session.post("/api/tokens", json!({"name": "x", "role": "admin"})).await.ok(201);
    let program = api.bearing(token["token"].as_str().unwrap());
    for client in [&session, &program] {
        client.clone().at(neighbour.address).get(PATH).await.ok(200);
    }
    api.admin().patch(&format!("{PATH}/{}", ada.id()), json!({"role": "viewer"})).await.ok(200);
    for client in [&session, &program] {
        for at in [api.address, neighbour.address] {
            client.clone().at(at).get(PATH).await.refused(403, "permission_denied");
            client.clone().at(at).get("/api/subscriptions").await.ok(200);
        }
    }
}

async fn a_password_that_an_admin_sets_or_has_made_ends_the_sessions(database: TestDatabase) {
    let api = Api::on(database).await;
    let ada = add(&api, "ada", "viewer").await;
    let path = format!("{PATH}/{}", ada.id());
    let session = signed_in(&api, "ada").await;
    let made = api.admin().patch(&path, json!({"password": null})).await.ok(200);
    assert_eq!(made["passwordChangeRequired"], true);
    session.get("/api/auth/me").await.refused(401, "token_revoked");
    log_in(&api, "ada", PASSWORD).await.refused(401, "login_failed");
    let generated = made["password"].as_str().unwrap();
    assert_eq!(log_in(&api, "ada", generated).await.ok(200)["password_change_required"], true);
    let set = api.admin().patch(&path, json!({"password": "nine-loud-lanterns"})).await.ok(200);
    assert_eq!((&set["password"], &set["passwordChangeRequired"]), (&Value::Null, &json!(false)));
    log_in(&api, "ada", "nine-loud-lanterns").await.ok(200);
    assert_eq!(
        api.admin().patch(&path, json!({"password": "admin123456789"})).await.pointers("validation_failed"),
        ["/password"]
    );
    // one's own needs the present one
    let me = api.session().get("/api/auth/me").await.ok(200).id();
    let own = api.admin().patch(&format!("{PATH}/{me}"), json!({"password": "nine-loud-lanterns"})).await;
    assert_eq!(own.pointers("validation_failed"), ["/password"]);
    log_in(&api, "admin", ADMIN_PASSWORD).await.ok(200);
    let text = format!("{:?}", audit_outbox::Entity::find().all(api.app.database().reader()).await.unwrap());
    for secret in [generated, "nine-loud-lanterns", PASSWORD, "argon2"] {
        assert!(!text.contains(secret), "{secret} is in the audit log");
    }
}

async fn the_last_administrator_stays_one(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = format!("{PATH}/{}", api.session().get("/api/auth/me").await.ok(200).id());
    for change in [json!({"role": "operator"}), json!({"enabled": false}), json!({"role": "viewer", "enabled": false})]
    {
        api.admin().patch(&admin, change).await.refused(409, "last_admin");
    }
    api.admin().with("If-Match", "*").delete(&admin).await.refused(409, "last_admin");
    assert_eq!(api.admin().patch(&admin, json!({"name": "root"})).await.ok(200)["name"], "root");
    // one who is disabled does not count
    let other = add(&api, "other", "admin").await;
    api.admin().patch(&format!("{PATH}/{}", other.id()), json!({"enabled": false})).await.ok(200);
    api.admin().patch(&admin, json!({"role": "viewer"})).await.refused(409, "last_admin");
    api.admin().patch(&format!("{PATH}/{}", other.id()), json!({"enabled": true})).await.ok(200);
    api.admin().patch(&admin, json!({"role": "viewer"})).await.ok(200);
    api.admin().get(PATH).await.refused(403, "permission_denied");
}

/// Ten administrators: each is disabled or lowered or removed by twenty at once, at two processes.
async fn of_twenty_who_take_the_last_administrators_away_together_not_all_succeed(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let me = api.session().get("/api/auth/me").await.ok(200).id();
    let mut ids = vec![me];
    for number in 0..9 {
        let body = json!({"name": format!("admin-{number}"), "role": "admin", "password": PASSWORD});
        ids.push(api.admin().post(PATH, body).await.ok(201).id());
    }
    let tasks = (0..20).map(|number| {
        let (path, api) = (format!("{PATH}/{}", ids[number % 10]), &api);
        let at = if number % 2 == 0 { api.address } else { neighbour.address };
        async move {
            let client = api.admin().with("If-Match", "*").at(at);
            match number % 3 {
                0 => client.patch(&path, json!({"role": "viewer"})).await,
                1 => client.patch(&path, json!({"enabled": false})).await,
                _ => client.send(Method::DELETE, &path, None).await,
            }
        }
    });
    for answer in futures::future::join_all(tasks).await {
        // whoever asks may be the one who was taken away meanwhile
        assert!([200, 204, 401, 403, 404, 409].contains(&answer.status), "{}: {}", answer.status, answer.text);
    }
    use keywright_entities::user_account;
    let left = user_account::admins_locked(api.app.database().reader()).await.unwrap();
    assert!(!left.is_empty(), "nobody can administer any more");
}

async fn sessions_of_others_are_listed_and_ended_by_an_administrator(database: TestDatabase) {
    let api = Api::on(database).await;
    let ada = add(&api, "ada", "viewer").await;
    let (one, two) = (signed_in(&api, "ada").await, signed_in(&api, "ada").await);
    let path = format!("/api/auth/sessions?user={}", ada.id());
    let list = api.admin().get(&path).await.ok(200);
    let rows = list["data"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["user"] == ada["id"] && row["current"] == false), "{list}");
    let id = one.get("/api/auth/me").await.ok(200)["credentialId"].as_str().unwrap().to_owned();
    let session = format!("/api/auth/sessions/{id}");
    assert_eq!(api.admin().get(&session).await.ok(200)["user"], ada["id"]);
    api.operator().get(&session).await.refused(404, "not_found");
    api.admin().delete(&session).await.ok(204);
    one.get("/api/auth/me").await.refused(401, "token_revoked");
    two.get("/api/auth/me").await.ok(200);
    api.admin().delete(&path).await.ok(204);
    two.get("/api/auth/me").await.refused(401, "token_revoked");
    api.session().get("/api/auth/me").await.ok(200);
    // others may not
    let bob = add(&api, "bob", "operator").await;
    let bob = (bob, signed_in(&api, "bob").await);
    bob.1.get(&path).await.refused(403, "permission_denied");
    bob.1.delete(&path).await.refused(403, "permission_denied");
    bob.1.get(&format!("/api/auth/sessions?user={}", bob.0.id())).await.ok(200);
}

/// A token that may manage users but not everything hands out no more than it has.
async fn nobody_rises_through_a_narrow_token(database: TestDatabase) {
    let api = Api::on(database).await;
    let narrow = json!({"name": "narrow", "role": "admin", "permissions": ["users:manage", "account:self"]});
    let narrow = api.admin().post("/api/tokens", narrow).await.ok(201);
    assert_eq!(narrow["permissions"], json!(["users:manage", "account:self"]));
    let narrow = api.bearing(narrow["token"].as_str().unwrap());
    narrow.get(PATH).await.ok(200);
    narrow.get("/api/subscriptions").await.refused(403, "permission_denied");
    narrow.post(PATH, json!({"name": "eve", "role": "admin"})).await.refused(403, "permission_denied");
    narrow.post(PATH, json!({"name": "eve", "role": "viewer"})).await.refused(403, "permission_denied");
    let other = add(&api, "other", "admin").await;
    let path = format!("{PATH}/{}", other.id());
    narrow.patch(&path, json!({"password": null})).await.refused(403, "permission_denied");
    narrow.clone().with("If-Match", "*").delete(&path).await.refused(403, "permission_denied");
    for wide in [json!({"name": "x", "role": "admin"}), json!({"name": "x", "role": "viewer"})] {
        narrow.post("/api/tokens", wide).await.refused(403, "permission_denied");
    }
    narrow.post("/api/tokens", json!({"name": "x", "role": "viewer", "permissions": ["account:self"]})).await.ok(201);
    let foreign = json!({"name": "x", "role": "viewer", "permissions": ["inventory:read", "users:manage"]});
    assert_eq!(api.admin().post("/api/tokens", foreign).await.pointers("validation_failed"), ["/permissions/1"]);
    let unknown = json!({"name": "x", "role": "viewer", "permissions": ["everything"]});
    assert_eq!(api.admin().post("/api/tokens", unknown).await.pointers("validation_failed"), ["/permissions/0"]);
}

async fn a_user_is_made_once_however_often_it_is_sent(database: TestDatabase) {
    let api = Api::on(database).await;
    let client = api.admin().with("Idempotency-Key", "ada");
    let body = json!({"name": "ada", "role": "viewer"});
    let first = client.post(PATH, body.clone()).await.ok(201);
    let again = client.post(PATH, body).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let again = again.ok(201);
    assert_eq!((&again["id"], &again["password"]), (&first["id"], &Value::Null));
    assert!(first["password"].is_string());
}

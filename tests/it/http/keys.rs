//! Signing keys change while several processes serve.

use keywright_api::auth::signing_keys::{self, When};
use keywright_entities::{clock, signing_key};
use keywright_jobs::setup::{config::MasterKeySource, sealing::Sealing};
use keywright_tests::{
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Api},
    instance::MASTER_KEY,
    on_both_databases,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::json;
use std::collections::BTreeSet;

on_both_databases!(
    tokens_of_both_keys_are_good_everywhere_after_a_change,
    a_key_that_became_known_is_good_nowhere,
    of_several_who_change_it_at_once_one_does,
);

async fn sealing(api: &Api) -> Sealing {
    Sealing::start(api.app.database(), &MasterKeySource::Given(MASTER_KEY.into())).await.unwrap()
}

async fn access_token(api: &Api) -> String {
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = api.nobody().post("/api/auth/login", login).await.ok(200);
    session["access_token"].as_str().unwrap().to_owned()
}

async fn published(api: &Api) -> BTreeSet<String> {
    let keys = api.nobody().get("/api/auth/jwks.json").await.ok(200);
    let keys = keys["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn tokens_of_both_keys_are_good_everywhere_after_a_change(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let (db, old) = (api.app.database(), access_token(&api).await);
    assert_eq!(published(&api).await.len(), 1);
    let young = When::OlderThan(chrono::TimeDelta::days(30));
    assert!(!signing_keys::rotate(db, &sealing(&api).await, young).await.unwrap(), "it is too young");
    let earlier = clock::now(db.reader()).await.unwrap() - chrono::TimeDelta::days(31);
    let update = signing_key::Entity::update_many().col_expr(signing_key::Column::CreatedAt, Expr::value(earlier));
    update.exec(db.reader()).await.unwrap();
    assert!(signing_keys::rotate(db, &sealing(&api).await, young).await.unwrap());
    let third = api.neighbour().await; // knows the new key from its start
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = api.nobody().at(third.address).post("/api/auth/login", login).await.ok(200);
    let new = session["access_token"].as_str().unwrap();
    for at in [api.address, neighbour.address, third.address] {
        for token in [old.as_str(), new] {
            api.bearing(token).at(at).get("/api/auth/me").await.ok(200);
        }
    }
    assert_eq!(published(&api).await.len(), 2, "the old one can still be checked by others");
}

async fn a_key_that_became_known_is_good_nowhere(database: TestDatabase) {
    let api = Api::on(database).await;
    let (db, old) = (api.app.database(), access_token(&api).await);
    assert!(signing_keys::rotate(db, &sealing(&api).await, When::NowAlone).await.unwrap());
    let third = api.neighbour().await;
    api.bearing(&old).at(third.address).get("/api/auth/me").await.refused(401, "token_invalid");
    // the others hear of it with the first token of the new key
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = api.nobody().at(third.address).post("/api/auth/login", login).await.ok(200);
    api.bearing(session["access_token"].as_str().unwrap()).get("/api/auth/me").await.ok(200);
    api.bearing(&old).get("/api/auth/me").await.refused(401, "token_invalid");
    assert_eq!(published(&api).await.len(), 1);
}

async fn of_several_who_change_it_at_once_one_does(database: TestDatabase) {
    let api = Api::on(database).await;
    let (db, sealing) = (api.app.database(), sealing(&api).await);
    let old = signing_key::Entity::find().one(db.reader()).await.unwrap().unwrap().kid;
    let changes = (0..5).map(|_| signing_keys::rotate(db, &sealing, When::Now));
    let done: Vec<bool> = futures::future::join_all(changes).await.into_iter().map(Result::unwrap).collect();
    // each that did replaced the one before it
    let rows = signing_key::Entity::find().all(db.reader()).await.unwrap();
    assert_eq!(rows.len(), 1 + done.iter().filter(|done| **done).count());
    let current = signing_key::Entity::find().filter(signing_key::Column::RetiresAt.is_null());
    let current = current.all(db.reader()).await.unwrap();
    assert!(current.len() == 1 && current[0].kid != old);
}

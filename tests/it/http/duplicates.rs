//! The same request many times at once, over several facades and processes: one of them makes it.

use super::idempotency::{KEY, SUBSCRIPTIONS, events, records, replayed, subscription};
use futures::future::join_all;
use keywright_entities::{job, scan, subscription};
use keywright_jobs::setup::database::{Database, Write};
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    http::{Answer, Api, Client, Identified, SCAN},
    instance::Instance,
    on_both_databases,
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::sync::Mutex;

on_both_databases!(
    a_duplicate_waits_a_second_for_the_first_and_is_then_told,
    a_hundred_at_once_over_two_facades_are_one,
    two_processes_make_it_once_and_the_death_of_one_changes_nothing,
);

/// Keeps everybody from writing subscriptions.
async fn hold(database: &Database) -> Write {
    let write = database.begin().await.unwrap();
    if database.backend() == DbBackend::Postgres {
        for statement in
            ["SET LOCAL idle_in_transaction_session_timeout = 0", "LOCK TABLE subscription IN EXCLUSIVE MODE"]
        {
            write.execute_unprepared(statement).await.unwrap();
        }
    }
    write
}

async fn a_duplicate_waits_a_second_for_the_first_and_is_then_told(database: TestDatabase) {
    let api = Api::on(database).await;
    let (neighbour, holder) = (api.neighbour().await, api.app.another().await);
    // notes the use of the token, which is a write of its own
    api.admin().get("/api/auth/me").await.ok(200);
    let mut second = vec![api.address];
    if holder.backend() == DbBackend::Postgres {
        // on SQLite it would wait for its turn to write, as everybody does
        second.push(neighbour.address);
    }
    for (round, second) in second.into_iter().enumerate() {
        let account = format!("account-{round}");
        let held = Mutex::new(Some(hold(&holder).await));
        let ask = async |address| {
            let client = api.admin().with(KEY, account.clone()).at(address);
            let answer = client.post(SUBSCRIPTIONS, subscription(&account)).await;
            if let Some(write) = held.lock().await.take() {
                write.rollback().await.unwrap();
            }
            answer
        };
        let (one, other) = tokio::join!(ask(api.address), ask(second));
        let (told, made) = if one.status == 409 { (one, other) } else { (other, one) };
        assert_eq!(told.header("retry-after"), Some("1"), "{}", told.text);
        told.refused(409, "idempotency_in_progress");
        assert!(!replayed(&made), "{}", made.text);
        let made = made.ok(201);
        let again = ask(second).await;
        assert!(replayed(&again), "{}", again.text);
        assert_eq!(again.ok(201), made);
    }
}

/// Sends until it is no longer told to come again.
async fn answered(client: &Client<'_>, path: &str, body: &Value) -> Answer {
    loop {
        let answer = client.post(path, body.clone()).await;
        if answer.status != 409 {
            return answer;
        }
        answer.refused(409, "idempotency_in_progress");
    }
}

async fn a_hundred_at_once_over_two_facades_are_one(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let neighbour = api.neighbour().await;
    let body = json!({"onConflict": "queue"});
    let clients: Vec<Client<'_>> = (0..100)
        .map(|n| api.operator().with(KEY, "k").at(if n % 2 == 0 { api.address } else { neighbour.address }))
        .collect();
    let answers = join_all(clients.iter().map(|client| answered(client, SCAN, &body))).await;
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    let ids: BTreeSet<String> = answers.into_iter().map(|answer| answer.under_way().id()).collect();
    let db = api.app.database();
    let jobs = job::Entity::find().all(db.reader()).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id.to_string()).collect::<BTreeSet<_>>(), ids);
    assert_eq!(jobs.len(), 1);
    assert_eq!(scan::Entity::find().count(db.reader()).await.unwrap(), 1);
    assert_eq!((events(db, "scan.requested").await, records(db).await.len()), (1, 1));
}

async fn two_processes_make_it_once_and_the_death_of_one_changes_nothing(database: TestDatabase) {
    let instance = Instance::start(&database, &[]).await;
    let (second, url) = Instance::another_api(&database).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |url: &str, key: &str, account: &str| {
        let body =
            json!({"provider": "local", "externalId": account, "name": account, "settings": {"local": {"paths": []}}});
        let request = http.post(format!("{url}{SUBSCRIPTIONS}")).bearer_auth(instance.token()).header(KEY, key);
        request.json(&body).send()
    };
    let urls = [instance.url(), url.as_str()];
    let ask = async |n: usize| loop {
        let answer = post(urls[n % 2], "k", "one").await.unwrap();
        let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
        if status != 409 {
            assert_eq!(status, 201, "{body}");
            return body.id();
        }
        assert_eq!(body["code"], "idempotency_in_progress", "{body}");
    };
    let ids: BTreeSet<String> = join_all((0..100).map(ask)).await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(subscription::Entity::find().count(database.database.reader()).await.unwrap(), 1);
    assert_eq!(events(&database.database, "subscription.created").await, 1);
    // killed as soon as it has committed: the client that heard nothing is answered by the other
    let unheard = tokio::spawn(post(&url, "k2", "two"));
    eventually("the second is committed", async || (records(&database.database).await.len() == 2).then_some(())).await;
    second.kill();
    let _ = unheard.await;
    let made = subscription::Entity::find().filter(subscription::Column::ExternalId.eq("two"));
    let made = made.one(database.database.reader()).await.unwrap().unwrap();
    let answer = post(instance.url(), "k2", "two").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["idempotent-replayed"].as_bytes()), (201, &b"true"[..]));
    assert_eq!(answer.json::<Value>().await.unwrap().id(), made.id.to_string());
    assert_eq!(events(&database.database, "subscription.created").await, 2);
}

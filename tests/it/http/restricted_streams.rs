//! Streams of events of those who see some subscriptions only, also while their restriction changes.

use super::restricted::{Two, ada, two};
use keywright_api::routes::jobs::events::Pace;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    event_stream::{EventStream, Item},
    http::{Api, Client, Identified, SCAN},
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

on_both_databases!(a_stream_tells_nothing_of_what_is_outside, a_restriction_counts_for_open_streams_of_all_processes,);

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// The jobs that are told of until the end of this one.
async fn told(mut stream: EventStream, until: &str) -> BTreeSet<String> {
    let mut jobs = BTreeSet::new();
    loop {
        let item = stream.next().await.expect("the stream goes on");
        if let Item::Event { event, data, .. } = &item {
            let job = data["job"].as_str().unwrap_or_else(|| panic!("no job in {data}"));
            jobs.insert(job.to_owned());
            if event == "end" && job == until {
                return jobs;
            }
        }
    }
}

async fn a_stream_tells_nothing_of_what_is_outside(database: TestDatabase) {
    let api = Api::paced(database, Pace { heartbeat: NEVER, progress: Duration::from_millis(1) }).await;
    let Two { inside, outside, .. } = two(&api).await;
    for account in ["inside", "outside"] {
        api.app.cloud.put_secrets(account, &secrets_in("north"), 30);
    }
    api.app.cloud.page_size(1);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let ada = ada(&api).await;
    let before = api.scan(json!({"subscriptions": [outside], "onConflict": "queue"})).await.id();
    let fresh = ada.follow("/api/events").await;
    let all = api.viewer().follow("/api/events").await;
    let of_kind = ada.follow("/api/events?kind=discovery.scan&kind=subscription.test").await;
    let of_outside = ada.follow(&format!("/api/events?subscription={outside}")).await;
    let test = api.operator().post(&format!("/api/subscriptions/{outside}/test"), Value::Null).await.under_way().id();
    api.ended(&test).await;
    for body in [json!({"subscriptions": [outside], "onConflict": "queue"}), json!({"onConflict": "queue"})] {
        api.scan(body).await;
    }
    let own = api.scan(json!({"subscriptions": [inside], "onConflict": "queue"})).await.id();
    let only_own: BTreeSet<String> = [own.clone()].into();
    let others = told(all, &own).await;
    assert!(others.contains(&test) && others.len() > 3, "there was more to tell: {others:?}");
    assert_eq!(told(fresh, &own).await, only_own);
    assert_eq!(told(of_kind, &own).await, only_own);
    // what was missed comes from the table
    for last in ["0", "1"] {
        let replayed = ada.clone().with("Last-Event-ID", last).follow("/api/events").await;
        assert_eq!(told(replayed, &own).await, only_own, "after {last}");
        let whole = api.viewer().with("Last-Event-ID", last).follow("/api/events").await;
        assert!(told(whole, &own).await.contains(&before));
    }
    for hidden in [&before, &test] {
        ada.get(&format!("/api/jobs/{hidden}/events")).await.refused(404, "not_found");
    }
    // what she asked for by name and may not see never comes, whatever happened
    api.stop();
    let mut of_outside = of_outside;
    assert_eq!(of_outside.rest().await, [Item::Retry(2000)]);
}

async fn a_restriction_counts_for_open_streams_of_all_processes(database: TestDatabase) {
    let api = Api::paced(database, Pace { heartbeat: NEVER, progress: NEVER }).await;
    let neighbour = api.neighbour().await;
    let Two { inside, outside, user } = two(&api).await;
    let ada = ada(&api).await;
    let restrict = async |subscriptions: Value| {
        let path = format!("/api/users/{user}");
        api.admin().at(neighbour.address).patch(&path, json!({"subscriptions": subscriptions})).await.ok(200);
    };
    let token = ada.post("/api/tokens", json!({"name": "x", "role": "operator"})).await.ok(201);
    let token = api.bearing(token["token"].as_str().unwrap());
    let queued = async |subscription: &str| {
        let body = json!({"subscriptions": [subscription], "onConflict": "queue"});
        api.operator().post(SCAN, body).await.under_way().id()
    };
    let narrowed = async |client: &Client<'_>, from: Value, to: Value| {
        restrict(from).await;
        let mut stream = client.follow("/api/events").await;
        let seen = queued(&outside).await;
        assert_eq!(stream.until("state").await.data()["job"], json!(seen), "it is told as long as she sees it");
        let mut of_job = client.follow(&format!("/api/jobs/{seen}/events")).await;
        of_job.until("state").await;
        restrict(to).await;
        // no heartbeat comes to send her away
        assert_eq!((stream.rest().await, of_job.rest().await), (vec![], vec![]), "they just end");
        client.get(&format!("/api/jobs/{seen}/events")).await.refused(404, "not_found");
        let mut again = client.follow("/api/events").await;
        let (hidden, own) = (queued(&outside).await, queued(&inside).await);
        assert_eq!(again.until("state").await.data()["job"], json!(own), "not {hidden}");
    };
    for client in [&ada, &token] {
        narrowed(client, Value::Null, json!([inside])).await;
        narrowed(client, json!([outside]), json!([inside])).await;
        narrowed(client, json!([inside, outside]), json!([inside])).await;
    }
    // whoever sees more than before comes again too
    let mut stream = ada.follow("/api/events").await;
    restrict(Value::Null).await;
    assert_eq!(stream.rest().await, []);
}

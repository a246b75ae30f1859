//! What happens to jobs, as streams of events: all of it, in order, once.

use keywright_entities::{
    clock, job_event,
    types::{ScanMode, Trigger},
};
use keywright_jobs::{
    kinds::discovery::scan::Scan,
    queue::{NewJob, Requester, enqueue_all},
    retention::{self, Retention},
    setup::database::Database,
};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    event_stream::Item,
    http::{Api, Identified, SCAN},
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

on_both_databases!(
    a_scan_is_followed_from_its_queue_to_its_end,
    what_was_missed_comes_again_exactly,
    a_part_has_a_stream_of_its_own,
    all_jobs_are_followed_by_kind_and_subscription,
    two_facades_tell_the_same,
    what_is_forgotten_is_a_reset,
    many_at_once_are_all_told,
);

fn numbered(items: &[Item]) -> Vec<(i64, Value)> {
    items.iter().filter_map(|item| item.numbered().map(|(id, data)| (id, data.clone()))).collect()
}

/// Of the events about the job itself, in which states it was.
fn states(events: &[(i64, Value)], job: &str) -> Vec<String> {
    let own = events.iter().filter(|(_, data)| data["job"] == job && data["type"] != "scope");
    own.map(|(_, data)| data["state"].as_str().unwrap().to_owned()).collect()
}

/// A scan of three scopes, the last of which the provider refuses.
async fn scanned(api: &Api) -> String {
    api.app.cloud.page_size(5);
    for region in ["a", "b", "c"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 7);
    }
    api.app.cloud.deny("list", |call| call.lists("c"));
    api.subscribe("one").await;
    api.operator().post(SCAN, json!({})).await.under_way().id()
}

async fn a_scan_is_followed_from_its_queue_to_its_end(database: TestDatabase) {
    let api = Api::on(database).await;
    let id = scanned(&api).await;
    let mut stream = api.viewer().follow(&format!("/api/jobs/{id}/events")).await;
    assert_eq!(stream.headers()["cache-control"], "no-store");
    let queued = stream.next().await.unwrap();
    assert_eq!((queued.name(), &queued.data()["state"]), ("state", &json!("queued")));
    let worker = api.app.worker(WorkerSettings::default()).await;
    let mut items = vec![queued];
    items.extend(stream.rest().await);
    let events = numbered(&items);
    assert!(events.is_sorted_by(|one, next| one.0 < next.0), "{events:?}");
    assert_eq!(states(&events, &id), ["queued", "running", "partial"]);
    assert!(events.iter().all(|(_, data)| data["job"] == id.as_str() && data["kind"] == "discovery.scan"));
    assert!(items.iter().all(|item| item.numbered().is_some() == (item.name() != "progress")), "{items:?}");
    // each scope in the order of its life
    let mut scopes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, data) in events.iter().filter(|(_, data)| data["type"] == "scope") {
        assert_eq!((&data["state"], &data["version"]), (&Value::Null, &Value::Null));
        let scope = &data["scope"];
        let region = scope["region"].as_str().unwrap().to_owned();
        scopes.entry(region).or_default().push(scope["state"].as_str().unwrap().to_owned());
    }
    let life = |end: &str| ["queued", "running", end].map(str::to_owned).to_vec();
    assert_eq!(scopes["a"], life("succeeded"));
    assert_eq!(scopes["b"], life("succeeded"));
    assert_eq!(scopes["c"], life("failed"));
    let refused = events.iter().find(|(_, data)| data["scope"]["state"] == "failed").unwrap();
    assert_eq!(refused.1["scope"]["reason"]["code"], "permission_denied");
    // the end says what the job says
    let job = api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200);
    let end = items.last().unwrap();
    assert_eq!(end.name(), "end");
    for member in ["state", "version", "attempt", "rescues", "counts", "scopes", "error", "waitingFor"] {
        assert_eq!(end.data()[member], job[member], "{member}");
    }
    assert_eq!(job["counts"]["found"], 14);
    let at = end.data()["at"].as_str().unwrap();
    assert!(at.ends_with("+00:00") && *at >= *job["createdAt"].as_str().unwrap(), "{at}");
    worker.stop().await;
}

async fn what_was_missed_comes_again_exactly(database: TestDatabase) {
    let api = Api::on(database).await;
    let id = scanned(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.ended(&id).await;
    let path = format!("/api/jobs/{id}/events");
    let after = |last: i64| api.viewer().with("Last-Event-ID", last.to_string());
    let all = numbered(&api.viewer().follow(&path).await.rest().await);
    assert_eq!(all.len(), 3 + 3 * 3, "{all:?}");
    assert_eq!(numbered(&after(0).follow(&path).await.rest().await), all);
    for (position, (last, _)) in all.iter().enumerate().take(all.len() - 1) {
        let again = after(*last).follow(&path).await.rest().await;
        assert_eq!(numbered(&again), all[position + 1..], "after {last}");
        assert_eq!(again.len(), all.len() - 1 - position, "and nothing else");
    }
    // who has its end has all of it, and need not come again: 204 keeps a browser from it
    let last = all.last().unwrap().0;
    let over = after(last).get(&path).await;
    assert_eq!((over.status, over.text.as_str()), (204, ""));
    // the same numbers hold in the stream of all jobs
    let mut of_all = after(all[0].0).follow("/api/events").await;
    assert_eq!(of_all.numbered(all.len() - 1).await, all[1..]);
    // and one of another job is no gap
    let other = api.scan(json!({})).await.id();
    let other = numbered(&after(last).follow(&format!("/api/jobs/{other}/events")).await.rest().await);
    assert_eq!(other[0].1["state"], "queued");
    assert_eq!(after(other.last().unwrap().0).get(&path).await.status, 204);
}

async fn a_part_has_a_stream_of_its_own(database: TestDatabase) {
    let api = Api::on(database).await;
    let id = scanned(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.ended(&id).await;
    let parts = api.viewer().get(&format!("/api/jobs?parentId={id}")).await.ok(200);
    let part = parts["data"][0].clone();
    let items = api.viewer().follow(&format!("/api/jobs/{}/events", part.id())).await.rest().await;
    let events = numbered(&items);
    assert_eq!(states(&events, &part.id()).len(), 3, "{items:?}");
    assert_eq!(events.len(), 3, "nothing of its siblings");
    let end = items.last().unwrap();
    assert_eq!((end.name(), &end.data()["state"]), ("end", &part["state"]));
    assert_eq!((&end.data()["version"], &end.data()["counts"]), (&part["version"], &part["counts"]));
}

async fn all_jobs_are_followed_by_kind_and_subscription(database: TestDatabase) {
    let api = Api::on(database).await;
    for account in ["one", "two"] {
        api.app.cloud.put_secrets(account, &secrets_in("north"), 3);
    }
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    let open = async |query: &str| api.viewer().follow(&format!("/api/events{query}")).await;
    let (mut all, mut of_one, mut of_two) =
        (open("").await, open(&format!("?subscription={one}")).await, open(&format!("?subscription={two}")).await);
    let mut of_kinds = open("?kind=audit.verify&kind=discovery.scan").await;
    let mut of_none = open("?kind=audit.verify").await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let first = api.scan(json!({"subscriptions": [one]})).await.id();
    let both = api.scan(json!({})).await.id();
    let last = api.scan(json!({"subscriptions": [two]})).await.id();
    // three events of each scan and of each of its scopes
    let everything = all.numbered(6 + 9 + 6).await;
    assert_eq!(of_kinds.numbered(everything.len()).await, everything, "scopes go by the kind of their scan");
    let about = |subscription: &str| -> Vec<(i64, Value)> {
        let of = |(_, data): &&(i64, Value)| match data["scope"]["subscription"].as_str() {
            Some(of) => of == subscription,
            None => data["job"] == both.as_str() || (data["job"] == first.as_str()) == (subscription == one),
        };
        everything.iter().filter(of).cloned().collect()
    };
    assert_eq!(of_one.numbered(12).await, about(&one));
    assert_eq!(of_two.numbered(12).await, about(&two));
    // what comes live comes again
    let again = api.viewer().with("Last-Event-ID", "0").follow(&format!("/api/events?subscription={one}")).await;
    assert_eq!({ again }.numbered(12).await, about(&one));
    for id in [&first, &both, &last] {
        assert_eq!(states(&everything, id), ["queued", "running", "succeeded"]);
    }
    // the kind that nothing has heard nothing until it was sent away
    api.stop();
    assert_eq!(of_none.rest().await, [Item::Retry(2000)]);
}

async fn two_facades_tell_the_same(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let (mut here, mut there) =
        (api.viewer().follow("/api/events").await, api.viewer().at(neighbour.address).follow("/api/events").await);
    let _workers = [api.app.worker(WorkerSettings::default()).await, api.app.worker(WorkerSettings::default()).await];
    let id = scanned(&api).await;
    let more = [json!({"onConflict": "queue"}), json!({"mode": "force"})];
    for body in &more {
        api.operator().post(SCAN, body.clone()).await.under_way();
    }
    let count = 12 * (1 + more.len());
    let (here, there) = (here.numbered(count).await, there.numbered(count).await);
    assert_eq!(here, there);
    assert_eq!(here.iter().map(|(number, _)| number).collect::<BTreeSet<_>>().len(), count);
    assert_eq!(states(&here, &id), ["queued", "running", "partial"]);
}

/// Lets all that has happened so far have happened two days ago.
async fn age(db: &Database) {
    let text = format!("UPDATE job_event SET at = {}", clock::sql(db.backend(), -48 * 3600 * 1000));
    db.reader().execute_unprepared(&text).await.unwrap();
}

async fn what_is_forgotten_is_a_reset(database: TestDatabase) {
    let api = Api::on(database).await;
    let id = scanned(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let old = api.ended(&id).await;
    let path = format!("/api/jobs/{id}/events");
    let before = numbered(&api.viewer().follow(&path).await.rest().await);
    let newest = before.last().unwrap().0;
    let (db, month) = (api.app.database(), Retention { days: 30, ..Retention::default() });
    retention::forget(db, &month).await.unwrap();
    assert_eq!(numbered(&api.viewer().follow(&path).await.rest().await), before, "young ones stay");
    age(db).await;
    retention::forget(db, &month).await.unwrap();
    assert_eq!(job_event::Entity::find().count(db.reader()).await.unwrap(), 1, "the last one is the mark");
    let after = |last: i64| api.viewer().with("Last-Event-ID", last.to_string());
    for last in [0, 3, newest - 2, newest + 1, i64::MAX] {
        let items = after(last).follow(&path).await.rest().await;
        let [reset, end] = items.as_slice() else { panic!("after {last}: {items:?}") };
        assert_eq!((reset.name(), reset.numbered().unwrap().0), ("reset", newest), "after {last}");
        assert_eq!((end.name(), end.numbered().unwrap().0), ("end", newest));
        assert_eq!((reset.data()["job"].as_str(), &end.data()["version"]), (Some(id.as_str()), &old["version"]));
        for member in ["state", "counts", "scopes"] {
            assert_eq!(end.data()[member], old[member]);
        }
    }
    // nothing was missed by who has all but the last
    let last = numbered(&after(newest - 1).follow(&path).await.rest().await);
    assert_eq!(last.iter().map(|(id, data)| (*id, &data["state"])).collect::<Vec<_>>(), [(newest, &old["state"])]);
    assert_eq!(after(newest).get(&path).await.status, 204);
    // who comes for the first time is told how it is now
    let first = api.viewer().follow(&path).await.rest().await;
    assert_eq!(first.iter().map(Item::name).collect::<Vec<_>>(), ["end"]);
    // the stream of all goes on after the gap
    let mut late = after(newest - 3).follow("/api/events").await;
    let mut in_time = after(newest).follow("/api/events").await;
    let reset = late.next().await.unwrap();
    assert_eq!((reset.numbered().unwrap().0, &reset.data()["job"]), (newest, &Value::Null));
    let next = api.operator().post(SCAN, json!({})).await.under_way().id();
    let told = late.numbered(1).await;
    assert_eq!((told[0].0, &told[0].1["job"]), (newest + 1, &json!(next)), "numbers go on");
    assert_eq!(in_time.numbered(1).await, told);
}

async fn many_at_once_are_all_told(database: TestDatabase) {
    let api = Api::on(database).await;
    let db = api.app.database();
    let (mut quick, mut slow) = (api.viewer().follow("/api/events").await, api.viewer().follow("/api/events").await);
    let payload = Scan { mode: ScanMode::Full, subscriptions: Vec::new(), only: None };
    let new = || NewJob::new(&payload, Requester::system(), Trigger::Api).unwrap();
    for _ in 0..2 {
        let many: Vec<NewJob> = (0..4000).map(|_| new()).collect();
        let write = db.begin().await.unwrap();
        enqueue_all(&*write, &many).await.unwrap();
        write.commit().await.unwrap();
    }
    let ids = |events: Vec<(i64, Value)>| -> Vec<i64> { events.into_iter().map(|(id, _)| id).collect() };
    let expected: Vec<i64> = (1..=8000).collect();
    assert_eq!(ids(quick.numbered(8000).await), expected);
    assert_eq!(ids(slow.numbered(8000).await), expected);
}

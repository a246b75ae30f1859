//! Streams of events as connections: who may have one, for how long, and what it costs.

use chrono::TimeDelta;
use keywright_api::routes::jobs::events::Pace;
use keywright_entities::user_account;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    event_stream::{EventStream, Item},
    http::{ADMIN_PASSWORD, Api, Client, Identified, SCAN},
    on_both_databases,
};
use keywright_worker::providers::memory::{Call, Operation, secrets_in};
use reqwest::Method;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::json;
use std::time::Duration;

on_both_databases!(
    progress_is_the_latest_and_rare,
    who_may_not_stay_is_sent_away,
    a_shutdown_sends_everybody_away_until_later,
    parked_streams_ask_nothing_of_the_database,
    what_is_asked_wrongly_is_refused,
    every_way_to_ask_gets_the_stream,
);

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

fn lists_a_later_page(call: &Call) -> bool {
    matches!(&call.operation, Operation::List { page: Some(_), .. })
}

async fn progress_is_the_latest_and_rare(database: TestDatabase) {
    assert_eq!(Pace::default().progress, Duration::from_millis(500), "at most twice a second");
    let api = Api::paced(database, Pace { heartbeat: NEVER, progress: NEVER }).await;
    api.app.cloud.page_size(1);
    for region in ["a", "b"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 4);
    }
    api.subscribe("one").await;
    let hold = api.app.cloud.hold(lists_a_later_page);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    api.app.cloud.reached(2, lists_a_later_page).await;
    let mut stream = api.viewer().follow(&format!("/api/jobs/{id}/events")).await;
    let progress = stream.until("progress").await;
    assert_eq!(progress.numbered(), None, "it has no number");
    let data = progress.data();
    assert_eq!((&data["job"], &data["state"]), (&json!(id), &json!("running")));
    assert_eq!((&data["progress"]["completed"], &data["progress"]["total"]), (&json!(0), &json!(2)));
    assert_eq!(data["scopes"]["pending"], 2);
    hold.release();
    let rest = stream.rest().await;
    assert_eq!(rest.last().unwrap().name(), "end");
    assert!(rest.iter().all(|item| item.name() != "progress"), "however much there was, until its time: {rest:?}");
    // it never comes again
    let again = api.viewer().with("Last-Event-ID", "0").follow(&format!("/api/jobs/{id}/events")).await.rest().await;
    assert!(again.iter().all(|item| item.name() != "progress"), "{again:?}");
}

async fn stays(stream: &mut EventStream) {
    for _ in 0..3 {
        assert_eq!(stream.next().await, Some(Item::Comment));
    }
}

async fn leaves(what: &str, mut stream: EventStream) {
    assert!(stream.rest().await.iter().all(|item| *item == Item::Comment), "{what}: it just ends");
}

async fn who_may_not_stay_is_sent_away(database: TestDatabase) {
    assert_eq!(Pace::default().heartbeat, Duration::from_secs(15));
    let api = Api::paced(database, Pace { heartbeat: Duration::from_millis(40), progress: NEVER }).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let of_job = format!("/api/jobs/{id}/events");
    let token = async |name: &str| {
        let made = api.session().post("/api/tokens", json!({"name": name, "role": "viewer"})).await.ok(201);
        (made.id(), made["token"].as_str().unwrap().to_owned())
    };
    let login = async || {
        let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
        api.nobody().post("/api/auth/login", body).await.ok(200)["access_token"].as_str().unwrap().to_owned()
    };
    let queued = async |client: Client<'_>| {
        let mut stream = client.follow(&of_job).await;
        stream.until("state").await;
        stream
    };
    // a token that is revoked, one that is not
    let ((revoked, first), (_, second)) = (token("first").await, token("second").await);
    let (mut goes, mut remains) = (queued(api.bearing(&first)).await, queued(api.bearing(&second)).await);
    stays(&mut goes).await;
    api.session().delete(&format!("/api/tokens/{revoked}")).await.ok(204);
    leaves("a revoked token", goes).await;
    stays(&mut remains).await;
    api.bearing(&first).get(&of_job).await.refused(401, "token_revoked");
    // a session that is logged out, with both kinds of streams
    let access = login().await;
    let mut of_all = api.bearing(&access).follow("/api/events").await;
    let mut of_one = queued(api.bearing(&access)).await;
    stays(&mut of_all).await;
    stays(&mut of_one).await;
    api.bearing(&access).post("/api/auth/logout", json!({})).await;
    leaves("a logged-out session", of_all).await;
    leaves("a logged-out session", of_one).await;
    stays(&mut remains).await;
    // an access token's own time is that of its requests: the stream goes by the session
    let access = login().await;
    let mut long = queued(api.bearing(&access)).await;
    api.pass(TimeDelta::hours(1));
    api.bearing(&access).get(&of_job).await.refused(401, "token_expired");
    stays(&mut long).await;
    // a lowered user, and a disabled one
    let set = async |column: user_account::Column, value: Expr| {
        let update = user_account::Entity::update_many().col_expr(column, value);
        let update = update.filter(user_account::Column::Name.eq("admin"));
        update.exec(api.app.database().reader()).await.unwrap();
    };
    set(user_account::Column::Role, Expr::value("viewer")).await;
    leaves("a lowered session", long).await;
    // a viewer's token may still do all that it ever might
    stays(&mut remains).await;
    set(user_account::Column::Disabled, Expr::value(true)).await;
    leaves("a disabled owner's token", remains).await;
}

async fn a_shutdown_sends_everybody_away_until_later(database: TestDatabase) {
    let api = Api::paced(database, Pace { heartbeat: NEVER, progress: NEVER }).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let path = format!("/api/jobs/{id}/events");
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut of_job = api.viewer().follow(&path).await;
        of_job.until("state").await;
        streams.extend([of_job, api.viewer().follow("/api/events").await]);
    }
    api.stop();
    for mut stream in streams {
        assert_eq!(stream.rest().await, [Item::Retry(2000)]);
    }
}

async fn parked_streams_ask_nothing_of_the_database(database: TestDatabase) {
    const STREAMS: u64 = 240;
    let api =
        Api::paced(database, Pace { heartbeat: Duration::from_millis(500), progress: Duration::from_millis(500) })
            .await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let path = if number % 2 == 0 { "/api/events".to_owned() } else { format!("/api/jobs/{id}/events") };
        let mut stream = api.viewer().follow(&path).await;
        if number % 2 == 1 {
            stream.until("state").await;
        }
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.until("comment").await;
    }
    let before = api.statements.sent();
    for _ in 0..3 {
        for stream in &mut streams {
            stream.until("comment").await;
        }
    }
    // one event for all of them
    api.operator().send(Method::POST, &format!("/api/jobs/{id}/pause"), None).await.under_way();
    for stream in &mut streams {
        assert_eq!(stream.until("state").await.data()["waitingFor"], "pause");
    }
    let asked = api.statements.sent() - before;
    assert!(asked < STREAMS / 2, "{asked} statements for {STREAMS} streams, three heartbeats and an event");
}

async fn what_is_asked_wrongly_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let nobody = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
    for path in [format!("/api/jobs/{id}/events"), "/api/events".to_owned()] {
        for last in ["abc", "-1", "1.5", "", "+1", "0x1", "1 2", "99999999999999999999999"] {
            let pointers = api.viewer().with("Last-Event-ID", last).get(&path).await.pointers("validation_failed");
            assert_eq!(pointers, ["/header/Last-Event-ID"], "{last}");
        }
        let twice = api.viewer().with("Last-Event-ID", "1").with("Last-Event-ID", "2").get(&path).await;
        assert_eq!(twice.pointers("validation_failed"), ["/header/Last-Event-ID"]);
        let pointers = api.viewer().get(&format!("{path}?lastEventId=3")).await.pointers("unknown_parameter");
        assert_eq!(pointers, ["/query/lastEventId"]);
        api.nobody().get(&path).await.refused(401, "token_missing");
        api.bearing("kw_nothing").get(&path).await.refused(401, "token_invalid");
        api.admin().post(&path, json!({})).await.refused(405, "method_not_allowed");
    }
    api.viewer().get(&format!("/api/jobs/{nobody}/events")).await.refused(404, "not_found");
    api.viewer().get("/api/jobs/x/events").await.refused(404, "not_found");
    api.viewer().get(&format!("/api/jobs/{id}/events?kind=x")).await.pointers("unknown_parameter");
    let pointers = api.viewer().get("/api/events?subscription=x").await.pointers("validation_failed");
    assert_eq!(pointers, ["/query/subscription"]);
}

async fn every_way_to_ask_gets_the_stream(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let path = format!("/api/jobs/{id}/events");
    for accept in ["text/event-stream", "*/*", "application/json"] {
        let mut stream = api.viewer().with("Accept", accept).follow(&path).await;
        assert_eq!(stream.until("state").await.data()["state"], "queued", "{accept}");
    }
    // a browser has its cookie
    let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let login = api.nobody().post("/api/auth/login", body).await.ok(200);
    let cookie = format!("keywright={}", login["access_token"].as_str().unwrap());
    api.nobody().with("Cookie", cookie).follow(&path).await.until("state").await;
    for path in [path.as_str(), "/api/events"] {
        let head = api.viewer().send(Method::HEAD, path, None).await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    }
    api.viewer().send(Method::HEAD, "/api/jobs/x/events", None).await.ok(404);
}

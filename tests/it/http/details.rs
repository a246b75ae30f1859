//! Which assets a scan looks at closely, by its mode, and what is kept of what it read.

use keywright_entities::{job, types::JobState};
use keywright_jobs::provider::ProviderError;
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::TestDatabase,
    http::{ASSETS, Api, Identified, SCANS, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Call, Operation, secret, secrets_in};
use serde_json::{Value, json};
use std::time::Duration;

on_both_databases!(
    an_unchanged_estate_is_only_listed,
    a_mode_says_what_is_looked_at_closely,
    a_delta_scan_without_change_tokens_says_that_it_looked_as_closely_as_a_full_one,
    a_refused_closer_look_keeps_what_was_known_and_is_told_once,
    a_part_that_may_not_be_read_is_told_once,
    a_scope_that_refuses_everything_is_not_asked_to_its_end,
    an_asset_that_vanishes_before_the_closer_look_is_removed,
    a_throttled_closer_look_loses_nothing_that_was_read,
    a_pause_between_closer_look_and_publication_burns_no_attempt,
    answers_that_are_under_way_when_one_is_throttled_are_kept,
    a_page_in_flight_at_a_shutdown_is_published_as_far_as_it_was_read,
    what_was_used_meanwhile_is_no_reason_to_look_closely,
);

const DAY: Duration = Duration::from_secs(86_400);

fn closely(call: &Call) -> bool {
    call.completes("north")
}

/// Whether this looks closely at this secret.
fn at(name: &'static str) -> impl Fn(&Call) -> bool + Send + Sync + Copy {
    move |call| matches!(&call.operation, Operation::Complete { asset, .. } if asset.ends_with(name))
}

/// An account with so many secrets, on pages of ten, that have details for a day.
async fn account(database: TestDatabase, count: usize) -> Api {
    let api = Api::on(database).await;
    api.app.cloud.page_size(10);
    api.app.cloud.details(DAY);
    api.app.cloud.put_secrets("one", &secrets_in("north"), count);
    api.subscribe("one").await;
    api
}

async fn worker(api: &Api) -> keywright_tests::app::TestWorker {
    api.app.worker(WorkerSettings::default()).await
}

fn change_in_list(api: &Api, name: &str, size: u32) {
    let north = secrets_in("north");
    let mut asset = secret(&north, name);
    asset.attributes.insert("size".to_owned(), json!(size));
    api.app.cloud.put("one", &north, asset);
}

fn counts(job: &Value) -> [u64; 5] {
    ["found", "created", "changed", "unchanged", "removed"].map(|name| job["counts"][name].as_u64().unwrap())
}

async fn assets(api: &Api) -> Vec<Value> {
    api.walk(&format!("{ASSETS}?sort=name"), 50).await
}

async fn warnings(api: &Api, job: &Value) -> Vec<Value> {
    let scan = api.viewer().get(&format!("{SCANS}/{}", job.id())).await.ok(200);
    let shown = scan["warnings"].as_array().unwrap().clone();
    assert_eq!(job["counts"]["warnings"], shown.len());
    shown
}

async fn an_unchanged_estate_is_only_listed(database: TestDatabase) {
    let api = account(database, 25).await;
    let _worker = worker(&api).await;
    api.app.cloud.describe("memory:north:secret-0003", "verdict", "own");
    let first = api.scan(json!({})).await;
    assert_eq!((counts(&first), api.app.cloud.count(closely)), ([25, 25, 0, 0, 0], 25));
    let found = assets(&api).await;
    assert!(found.iter().all(|asset| asset["attributes"]["looked"] == true && !asset["detailedAt"].is_null()));
    assert_eq!(found[3]["attributes"]["verdict"], "own");
    let second = api.scan(json!({})).await;
    assert_eq!((counts(&second), api.app.cloud.count(closely)), ([25, 0, 0, 25, 0], 25));
    assert_eq!(api.app.cloud.count(|call| call.lists("north")), 6);
    let again = assets(&api).await;
    assert_eq!(column(&again, "detailedAt"), column(&found, "detailedAt"), "the stamp tells when it was read");
    assert_eq!(again[3]["attributes"], found[3]["attributes"]);
}

async fn a_mode_says_what_is_looked_at_closely(database: TestDatabase) {
    let api = account(database, 3).await;
    let _worker = worker(&api).await;
    api.scan(json!({})).await;
    let cloud = &api.app.cloud;
    let looks = async |body: Value| {
        let before = cloud.count(closely);
        let job = api.scan(body).await;
        assert_eq!((&job["state"], warnings(&api, &job).await), (&json!("succeeded"), vec![]));
        (cloud.count(closely) - before, counts(&job))
    };
    // what only a closer look tells
    cloud.describe("memory:north:secret-0000", "verdict", "public");
    assert_eq!(looks(json!({"mode": "full"})).await, (0, [3, 0, 0, 3, 0]));
    assert_eq!(looks(json!({"mode": "delta"})).await, (0, [3, 0, 0, 3, 0]));
    let stamp = column(&assets(&api).await, "detailedAt");
    assert_eq!(looks(json!({"mode": "force"})).await, (3, [3, 0, 1, 2, 0]));
    let forced = assets(&api).await;
    assert_eq!(forced[0]["attributes"]["verdict"], "public");
    assert!(column(&forced, "detailedAt").iter().zip(&stamp).all(|(now, before)| now > before));
    // what the list tells
    change_in_list(&api, "secret-0001", 7);
    assert_eq!(looks(json!({"mode": "delta"})).await, (1, [3, 0, 1, 2, 0]));
    let changed = &assets(&api).await[1];
    assert_eq!((&changed["attributes"]["size"], &changed["attributes"]["looked"]), (&json!(7), &json!(true)));
    // what comes, and what comes back
    cloud.remove("one", &secrets_in("north"), "memory:north:secret-0002");
    cloud.put_secrets("one", &secrets_in("north"), 1);
    change_in_list(&api, "secret-0004", 1);
    assert_eq!(looks(json!({"mode": "delta"})).await, (1, [3, 1, 0, 2, 1]));
    cloud.put("one", &secrets_in("north"), secret(&secrets_in("north"), "secret-0002"));
    assert_eq!(looks(json!({"mode": "full"})).await, (1, [4, 1, 0, 3, 0]));
    // what was read too long ago
    cloud.details(Duration::ZERO);
    assert_eq!(looks(json!({"mode": "delta"})).await, (0, [4, 0, 0, 4, 0]));
    assert_eq!(looks(json!({"mode": "full"})).await, (4, [4, 0, 0, 4, 0]));
}

async fn a_delta_scan_without_change_tokens_says_that_it_looked_as_closely_as_a_full_one(database: TestDatabase) {
    let api = account(database, 25).await;
    api.app.cloud.without_change_token();
    let _worker = worker(&api).await;
    api.scan(json!({})).await;
    api.app.cloud.details(Duration::ZERO);
    let before = api.app.cloud.count(closely);
    let delta = api.scan(json!({"mode": "delta"})).await;
    assert_eq!((&delta["state"], api.app.cloud.count(closely) - before), (&json!("succeeded"), 25));
    let told = warnings(&api, &delta).await;
    assert_eq!(
        (column(&told, "code"), column(&told, "path")),
        (vec!["delta_fell_back".to_owned()], vec!["memory.secret".to_owned()])
    );
    let full = api.scan(json!({})).await;
    assert_eq!(warnings(&api, &full).await, Vec::<Value>::new());
}

async fn a_refused_closer_look_keeps_what_was_known_and_is_told_once(database: TestDatabase) {
    let api = account(database, 12).await;
    let _worker = worker(&api).await;
    api.app.cloud.describe("memory:north:secret-0000", "verdict", "own");
    api.scan(json!({})).await;
    let stamp = column(&assets(&api).await, "detailedAt");
    api.app.cloud.deny("memory:Describe", closely);
    change_in_list(&api, "secret-0000", 9);
    let job = api.scan(json!({"mode": "force"})).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [12, 0, 1, 11, 0]));
    let told = warnings(&api, &job).await;
    assert_eq!(
        (column(&told, "code"), column(&told, "path")),
        (vec!["details_denied".to_owned()], vec!["memory:Describe".to_owned()])
    );
    let kept = assets(&api).await;
    assert_eq!(kept[0]["attributes"], json!({"looked": true, "size": 9, "verdict": "own"}));
    assert_eq!(column(&kept, "detailedAt"), stamp, "nothing was read");
    // allowed again, what was refused is read by the next full scan
    api.app.cloud.heal();
    let before = api.app.cloud.count(closely);
    api.scan(json!({})).await;
    assert_eq!(api.app.cloud.count(closely) - before, 12);
}

async fn a_part_that_may_not_be_read_is_told_once(database: TestDatabase) {
    let api = account(database, 12).await;
    let _worker = worker(&api).await;
    api.app.cloud.describe("memory:north:secret-0000", "verdict", "own");
    api.scan(json!({})).await;
    api.app.cloud.describe_without("memory:GetPolicy");
    let job = api.scan(json!({"mode": "force"})).await;
    assert_eq!(counts(&job), [12, 0, 0, 12, 0]);
    assert_eq!(column(&warnings(&api, &job).await, "path"), ["memory:GetPolicy"]);
    assert_eq!(assets(&api).await[0]["attributes"]["verdict"], "own", "as it was read before");
}

async fn a_scope_that_refuses_everything_is_not_asked_to_its_end(database: TestDatabase) {
    let api = account(database, 300).await;
    let _worker = worker(&api).await;
    api.app.cloud.deny("memory:Describe", closely);
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [300, 300, 0, 0, 0]));
    let asked = api.app.cloud.count(closely);
    assert!((25..=40).contains(&asked), "{asked} of 300 were asked about");
    assert_eq!(column(&warnings(&api, &job).await, "code"), ["details_denied"]);
    assert!(assets(&api).await.iter().all(|asset| asset["detailedAt"].is_null()));
}

async fn an_asset_that_vanishes_before_the_closer_look_is_removed(database: TestDatabase) {
    let api = account(database, 5).await;
    let _worker = worker(&api).await;
    api.scan(json!({})).await;
    let gone = ProviderError::Rejected { code: "not_found".to_owned(), detail: "gone".to_owned() };
    api.app.cloud.fail(None, gone, at("secret-0003"));
    let job = api.scan(json!({"mode": "force"})).await;
    assert_eq!(
        (&job["state"], counts(&job), &job["counts"]["warnings"]),
        (&json!("succeeded"), [4, 0, 0, 4, 1], &json!(0))
    );
    let odd = ProviderError::Rejected { code: "unexpected_reply".to_owned(), detail: "it makes no sense".to_owned() };
    api.app.cloud.heal();
    api.app.cloud.fail(None, odd, at("secret-0002"));
    let job = api.scan(json!({"mode": "force"})).await;
    assert_eq!(counts(&job), [5, 1, 0, 4, 0]);
    assert_eq!(column(&warnings(&api, &job).await, "path"), ["memory:north:secret-0002"]);
}

/// The scope's job, which a scan has one of.
async fn listing(api: &Api, scan: &str) -> Option<job::Model> {
    let scan = scan.parse().unwrap();
    job::children(api.app.database().reader(), scan).await.unwrap().into_iter().next()
}

async fn a_throttled_closer_look_loses_nothing_that_was_read(database: TestDatabase) {
    let api = account(database, 25).await;
    let _worker = worker(&api).await;
    api.app.cloud.throttle(1, Duration::ZERO, at("secret-0015"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [25, 25, 0, 0, 0]));
    let cloud = &api.app.cloud;
    let asked = cloud.count(closely);
    // what was under way beside the refused one may be asked about again, what was published not
    assert!((26..=25 + 8).contains(&asked), "{asked}");
    for name in ["secret-0000", "secret-0009", "secret-0024"] {
        assert_eq!(cloud.count(at(name)), 1, "{name}");
    }
    assert!(assets(&api).await.iter().all(|asset| asset["attributes"]["looked"] == true));
    let versions = api.walk(&format!("{SCANS}/{}/results?change=created", job.id()), 100).await;
    assert_eq!(versions.len(), 25, "each once");
}

async fn a_pause_between_closer_look_and_publication_burns_no_attempt(database: TestDatabase) {
    let api = account(database, 25).await;
    let _worker = worker(&api).await;
    let hold = api.app.cloud.hold(at("secret-0015"));
    let scan = api.operator().post("/api/assets/discovery/scan", json!({})).await.under_way().id();
    // the other nine of the page have been read and wait for this one
    api.app.cloud.reached(20, closely).await;
    api.operator().post(&format!("/api/jobs/{scan}/pause"), json!({})).await.ok(202);
    // the call that hangs does not keep the others from being published
    let found = eventually("the listing rests", async || {
        listing(&api, &scan).await.filter(|job| job.state == JobState::Waiting)
    })
    .await;
    assert_eq!(found.counts.as_ref().map(|counts| &counts["found"]), Some(&json!(19)), "{found:?}");
    api.app.cloud.heal();
    hold.release();
    api.operator().post(&format!("/api/jobs/{scan}/resume"), json!({})).await.ok(202);
    let job = api.ended(&scan).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [25, 25, 0, 0, 0]));
    let ended = listing(&api, &scan).await.unwrap();
    assert_eq!((ended.id, ended.attempt, ended.rescues), (found.id, 1, 0));
    for number in 0..25 {
        let name = format!("secret-{number:04}");
        let asked = api
            .app
            .cloud
            .count(|call| matches!(&call.operation, Operation::Complete { asset, .. } if asset.ends_with(&name)));
        assert!(asked == 1 || (asked == 2 && number >= 10), "{name} was asked about {asked} times");
    }
}

async fn what_was_used_meanwhile_is_no_reason_to_look_closely(database: TestDatabase) {
    let api = account(database, 2).await;
    let _worker = worker(&api).await;
    api.scan(json!({})).await;
    let north = secrets_in("north");
    let used = "2026-05-20T10:30:00Z".parse().unwrap();
    let mut asset = secret(&north, "secret-0001");
    asset.last_accessed_at = Some(used);
    api.app.cloud.put("one", &north, asset);
    let job = api.scan(json!({})).await;
    assert_eq!((counts(&job), api.app.cloud.count(closely)), ([2, 0, 0, 2, 0], 2));
    let kept = &assets(&api).await[1];
    assert_eq!(kept["lastAccessedAt"], "2026-05-20T10:30:00+00:00");
    assert_eq!((&kept["attributes"]["looked"], kept["detailedAt"].is_null()), (&json!(true), false));
}

async fn answers_that_are_under_way_when_one_is_throttled_are_kept(database: TestDatabase) {
    let api = account(database, 10).await;
    let _worker = worker(&api).await;
    let hold = api.app.cloud.hold(at("secret-0002"));
    api.app.cloud.throttle(1, Duration::ZERO, at("secret-0003"));
    let scan = api.operator().post("/api/assets/discovery/scan", json!({})).await.under_way().id();
    // eight are asked about at once; one is refused while another is not answered yet
    api.app.cloud.reached(8, closely).await;
    hold.release();
    let job = api.ended(&scan).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [10, 10, 0, 0, 0]));
    for number in 0..10 {
        let asked = api.app.cloud.count(
            |call| matches!(&call.operation, Operation::Complete { asset, .. } if asset.ends_with(&format!("{number:04}"))),
        );
        assert_eq!(asked, if number == 3 { 2 } else { 1 }, "{number}");
    }
}

async fn a_page_in_flight_at_a_shutdown_is_published_as_far_as_it_was_read(database: TestDatabase) {
    let api = account(database, 10).await;
    let first = worker(&api).await;
    let hold = api.app.cloud.hold(at("secret-0005"));
    let scan = api.operator().post("/api/assets/discovery/scan", json!({})).await.under_way().id();
    // all but one are answered, and that one is not until the worker is gone
    api.app.cloud.reached(10, closely).await;
    assert_eq!(first.stop().await, keywright_worker::runner::Ended::Clean);
    let given_back = listing(&api, &scan).await.unwrap();
    assert_eq!((given_back.attempt, given_back.rescues), (0, 0));
    assert_eq!(given_back.counts.as_ref().map(|counts| &counts["found"]), Some(&json!(9)), "{given_back:?}");
    api.app.cloud.heal();
    hold.release();
    let _second = worker(&api).await;
    let job = api.ended(&scan).await;
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [10, 10, 0, 0, 0]), "each counts once");
    assert_eq!(api.app.cloud.count(closely), 11, "one is asked about again");
    assert!(assets(&api).await.iter().all(|asset| asset["attributes"]["looked"] == true));
}

//! What goes wrong outside: answers that are lost, throttling, people, permissions, workers that die again and again.

use keywright_entities::job;
use keywright_jobs::{
    domain::rotation::{Method, Resolution, Terms},
    job::{Done, JobError},
    provider::ProviderError,
    rotation::asked::Wish,
};
use keywright_tests::{
    database::TestDatabase,
    on_both_databases,
    rotating::{ENTRY, Ended, Rotating, USER, at_once},
};
use keywright_worker::providers::memory::MemoryCloud;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

on_both_databases!(
    every_lost_answer_is_found_out,
    throttling_costs_time_and_nothing_else,
    a_key_that_works_late_is_waited_for,
    a_key_that_never_works_is_taken_back,
    whoever_rotates_by_hand_meanwhile_keeps_what_they_did,
    a_permission_that_is_taken_away_stops_it_and_given_back_lets_it_go_on,
    a_worker_that_dies_three_times_leaves_it_to_a_person,
    an_inactive_key_of_an_earlier_rotation_makes_room,
);

async fn with_key(database: TestDatabase) -> Rotating {
    let cloud = MemoryCloud::default();
    cloud.put_access_key(USER, ENTRY);
    let terms = Terms { quiet_seconds: 1, ..at_once(Method::AwsAccessKey) };
    Rotating::new(database, cloud, terms).await
}

fn well(trial: &Rotating) {
    assert_eq!(trial.cloud.broken(), [] as [String; 0]);
}

fn only_key(trial: &Rotating) -> String {
    let keys = trial.cloud.keys_of(USER);
    let [(key, true)] = keys.as_slice() else { panic!("not one key: {keys:?}") };
    let stored = String::from_utf8(trial.cloud.stored(ENTRY).value).unwrap();
    assert!(stored.contains(key.as_str()), "the stored key is the one that there is");
    key.clone()
}

async fn waits_for_a_person(trial: &Rotating, id: Uuid, reason: &str) {
    let ended = loop {
        match trial.attempt(&CancellationToken::new()).await {
            Ended::Recorded(Err(JobError::Snooze { waiting_for, .. })) if waiting_for.as_str() != "human" => {
                trial.hurry().await;
            }
            other => break other,
        }
    };
    assert!(matches!(ended, Ended::Recorded(Err(JobError::Snooze { .. }))), "{ended:?}");
    let row = trial.row(id).await;
    assert_eq!((row.state.as_str(), row.record["stopped"]["reason"]["code"].as_str()), ("NEEDS_HUMAN", Some(reason)));
}

async fn every_lost_answer_is_found_out(database: TestDatabase) {
    let trial = with_key(database).await;
    // asked first while it is planned, when the attempt begins anew
    let planning = ["held", "list"];
    for call in ["mint", "stage", "promote", "disable", "delete", "prove", "list", "held", "last used"] {
        let before = only_key(&trial);
        trial.cloud.lose_answers(call, 1);
        let id = trial.ask().await;
        let ended = trial.to_the_end().await;
        assert!(matches!(ended, Ok(Done::Succeeded)), "{call}: {ended:?}");
        assert_ne!(only_key(&trial), before, "{call}");
        let steps = trial.steps(id).await;
        let unknown = steps.iter().any(|step| step.outcome.as_deref() == Some("unknown"));
        assert!(unknown || planning.contains(&call), "{call} was not lost");
        let promotions = steps.iter().filter(|step| step.after == "PROMOTED" && step.before != "PROMOTED").count();
        assert_eq!(promotions, 1, "{call}");
        well(&trial);
    }
}

async fn throttling_costs_time_and_nothing_else(database: TestDatabase) {
    let trial = with_key(database).await;
    trial.cloud.throttle(30, Duration::ZERO, |call| !call.rotates("read"));
    let id = trial.ask().await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    let job = job::by_id(trial.database.database.reader(), id).await.unwrap().unwrap();
    assert_eq!((job.attempt, job.rescues), (1, 0), "no attempt is burnt");
    only_key(&trial);
    well(&trial);
}

async fn a_key_that_works_late_is_waited_for(database: TestDatabase) {
    let trial = with_key(database).await;
    trial.cloud.propagation(Duration::from_secs(3));
    trial.ask().await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    only_key(&trial);
    well(&trial);
}

async fn a_key_that_never_works_is_taken_back(database: TestDatabase) {
    let trial = with_key(database).await;
    let before = only_key(&trial);
    trial.cloud.propagation(Duration::from_secs(3600));
    let id = trial.ask().await;
    trial.give_no_time(id).await;
    let ended = trial.to_the_end().await;
    let Err(JobError::Fail { code, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!(code, "unproven");
    assert_eq!(only_key(&trial), before, "what was made is taken away, what was in use is in use");
    assert_eq!(trial.row(id).await.state, "ROLLED_BACK");
    well(&trial);
}

async fn whoever_rotates_by_hand_meanwhile_keeps_what_they_did(database: TestDatabase) {
    let trial = with_key(database).await;
    let own = String::from_utf8(trial.cloud.stored(ENTRY).value).unwrap();
    let id = trial.ask().await;
    // between the proof and the promotion
    let cloud = trial.cloud.clone();
    trial.cloud.before(move |call| call.rotates("promote"), move || cloud.overwrite(ENTRY, &own));
    waits_for_a_person(&trial, id, "moved").await;
    assert_eq!(trial.cloud.stored(ENTRY).promoted.len(), 0, "theirs stays current");
    assert_eq!(trial.cloud.keys_of(USER).len(), 2, "nothing is deleted before somebody looked");
    well(&trial);
    let compensate = Wish::Resolve { resolution: Resolution::Compensate, reason: "theirs is right".to_owned() };
    trial.say(id, &compensate).await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Err(JobError::Stopped(_) | JobError::Fail { .. })), "{ended:?}");
    only_key(&trial);
    well(&trial);
}

async fn a_permission_that_is_taken_away_stops_it_and_given_back_lets_it_go_on(database: TestDatabase) {
    let trial = with_key(database).await;
    trial.cloud.deny("iam:UpdateAccessKey", |call| call.rotates("disable"));
    let id = trial.ask().await;
    waits_for_a_person(&trial, id, "denied").await;
    assert_eq!(trial.row(id).await.record["stopped"]["reason"]["detail"], "iam:UpdateAccessKey");
    assert_eq!(trial.cloud.keys_of(USER).len(), 2, "both work meanwhile");
    trial.cloud.heal();
    let resume = Wish::Resolve { resolution: Resolution::Resume, reason: "granted".to_owned() };
    trial.say(id, &resume).await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    only_key(&trial);
    // before the promotion it goes back by itself
    trial.cloud.fail(None, denied("secretsmanager:PutSecretValue"), |call| call.rotates("stage"));
    let before = only_key(&trial);
    let id = trial.ask().await;
    let ended = trial.to_the_end().await;
    assert!(matches!(&ended, Err(JobError::Fail { code, .. }) if code == "denied"), "{ended:?}");
    assert_eq!((only_key(&trial), trial.row(id).await.state), (before, "ROLLED_BACK".to_owned()));
    well(&trial);
}

fn denied(permission: &str) -> ProviderError {
    ProviderError::Denied { detail: "no".to_owned(), permission: Some(permission.to_owned()) }
}

async fn a_worker_that_dies_three_times_leaves_it_to_a_person(database: TestDatabase) {
    let trial = with_key(database).await;
    let id = trial.ask().await;
    for _ in 0..3 {
        // each comes a little further
        let cut = trial.cloud.cut_at(30);
        assert!(matches!(trial.attempt(&cut).await, Ended::Cut));
    }
    let row = trial.row(id).await;
    assert_eq!(row.state, "NEEDS_HUMAN", "{row:?}");
    assert_eq!(row.record["stopped"]["reason"]["code"], "worker_lost");
    assert!(row.open_asset.is_some(), "nobody begins another meanwhile");
    well(&trial);
    let resume = Wish::Resolve { resolution: Resolution::Resume, reason: "mended".to_owned() };
    let resumed = trial.say(id, &resume).await;
    assert_ne!(resumed.job_id, id, "a new job drives it");
    trial.cloud.cut_at(usize::MAX);
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    only_key(&trial);
    well(&trial);
}

async fn an_inactive_key_of_an_earlier_rotation_makes_room(database: TestDatabase) {
    let trial = with_key(database).await;
    trial.ask().await;
    assert!(matches!(trial.to_the_end().await, Ok(Done::Succeeded)));
    // the next one is left when the key that the first one made is switched off
    trial.cloud.fail(None, denied("iam:DeleteAccessKey"), |call| call.rotates("delete"));
    let left = trial.ask().await;
    waits_for_a_person(&trial, left, "denied").await;
    trial.cloud.heal();
    let abandon = Wish::Resolve { resolution: Resolution::Abandon, reason: "later".to_owned() };
    trial.say(left, &abandon).await;
    let ended = trial.to_the_end().await;
    assert!(matches!(&ended, Err(JobError::Fail { code, .. }) if code == "abandoned"), "{ended:?}");
    assert_eq!(trial.cloud.keys_of(USER).len(), 2);
    trial.ask().await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    only_key(&trial);
    // one that somebody else made is nobody's to delete
    trial.cloud.put_strange_key(USER, false);
    let id = trial.ask().await;
    waits_for_a_person(&trial, id, "quota_full").await;
    assert_eq!(trial.cloud.keys_of(USER).len(), 2);
    well(&trial);
}

//! Outcomes that share a transaction come out as if each were written alone.

use super::{family::family, *};
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::Recorder;
use keywright_tests::{database::TestDatabase, on_both_databases};
use serde_json::json;

on_both_databases!(
    a_batch_writes_each_outcome_and_leaves_lost_leases_alone,
    the_last_children_of_several_parents_end_them_in_one_batch,
    outcomes_that_come_together_are_all_recorded,
    an_outcome_told_twice_is_recorded_once,
    the_first_start_is_told_once,
);

pub(super) async fn record_all(db: &Database, attempts: &[(Held, Outcome)]) -> Vec<bool> {
    let write = db.begin().await.unwrap();
    let recorded = outcome::record_all(&*write, attempts).await.unwrap();
    write.commit().await.unwrap();
    recorded
}

async fn a_batch_writes_each_outcome_and_leaves_lost_leases_alone(test: TestDatabase) {
    let db = &test.database;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(put(db, probe()).await.id);
    }
    let mut taken = take(db, 6).await;
    taken.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
    lapse(db, ids[2]).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let recorded = record_all(
        db,
        &[
            (held(&taken[0]), success()),
            (held(&taken[1]), failure("broken")),
            (held(&taken[2]), success()),
            (held(&taken[3]), Outcome::GivenBack),
            (held(&taken[4]), Outcome::Snooze { waiting_for: WaitingFor::Quota, after: Duration::from_secs(60) }),
            (Held { epoch: taken[5].epoch + 1, ..held(&taken[5]) }, success()),
        ],
    )
    .await;
    assert_eq!(recorded, [true, true, false, true, true, false]);
    let states = [
        (JobState::Succeeded, None),
        (JobState::Failed, Some("broken")),
        (JobState::Queued, None),
        (JobState::Queued, None),
        (JobState::Waiting, None),
        (JobState::Running, None),
    ];
    for (id, (state, code)) in ids.iter().zip(states) {
        let job = read(db, *id).await;
        assert_eq!((job.state, job.error_code.as_deref()), (state, code));
        assert_eq!(job.completed_at.is_some(), state.is_done());
        assert_eq!(ends(db, *id).await, u64::from(state.is_done()));
    }
}

async fn the_last_children_of_several_parents_end_them_in_one_batch(test: TestDatabase) {
    let db = &test.database;
    let (one, ones) = family(db, 2).await;
    let first = take(db, 10).await;
    let (two, _) = family(db, 2).await;
    let taken: Vec<_> = first.into_iter().chain(take(db, 10).await).collect();
    assert_eq!(taken.len(), 4);
    for job in &taken {
        change(db, job.id, r#"counts = '{"found": 2}'"#).await;
    }
    let outcome = |job: &job::Model| if job.id == ones[0].id { failure("permission_denied") } else { success() };
    let attempts: Vec<_> = taken.iter().map(|job| (held(job), outcome(job))).collect();
    assert_eq!(record_all(db, &attempts).await, [true; 4]);
    let (one, two) = (read(db, one.id).await, read(db, two.id).await);
    assert_eq!((one.state, one.children_succeeded, one.children_denied), (JobState::Partial, 1, 1));
    assert_eq!((two.state, two.children_succeeded, two.children_open), (JobState::Succeeded, 2, 0));
    assert_eq!((one.counts, two.counts), (Some(json!({"found": 4})), Some(json!({"found": 4}))));
    assert_eq!((ends(db, one.id).await, ends(db, two.id).await), (1, 1));
}

async fn outcomes_that_come_together_are_all_recorded(test: TestDatabase) {
    let db = &test.database;
    let write = db.begin().await.unwrap();
    for _ in 0..60 {
        put_into(&*write, &probe()).await.unwrap();
    }
    write.commit().await.unwrap();
    let recorder = Recorder::start(db.clone());
    let taken = take(db, 60).await;
    let stale = Held { epoch: taken[0].epoch - 1, ..held(&taken[0]) };
    assert!(!recorder.record(stale, success()).await.unwrap());
    let recorded = taken.iter().map(|job| recorder.record(held(job), success()));
    for recorded in futures::future::join_all(recorded).await {
        assert!(recorded.unwrap());
    }
    for job in &taken {
        assert_eq!((read(db, job.id).await.state, ends(db, job.id).await), (JobState::Succeeded, 1));
    }
}

async fn an_outcome_told_twice_is_recorded_once(test: TestDatabase) {
    let db = &test.database;
    put(db, probe()).await;
    let taken = take_one(db).await;
    let recorded = record_all(db, &[(held(&taken), success()), (held(&taken), Outcome::GivenBack)]).await;
    assert_eq!(recorded, [true, false], "the first word counts");
    assert_eq!(ends(db, taken.id).await, 1);
}

async fn the_first_start_is_told_once(test: TestDatabase) {
    let db = &test.database;
    let (parent, _) = family(db, 1).await;
    let child = take_one(db).await;
    assert!(finish(db, &held(&child), Outcome::GivenBack).await);
    let id = put(db, probe()).await.id;
    for _ in 0..2 {
        for job in take(db, 10).await {
            assert!(finish(db, &held(&job), Outcome::GivenBack).await);
        }
    }
    assert_eq!((told(db, parent.id).await, told(db, id).await, told(db, child.id).await), (1, 1, 0));
}

/// How often the audit log says that the job began.
async fn told(db: &Database, id: Uuid) -> u64 {
    audit_outbox::Entity::find()
        .filter(audit_outbox::Column::JobId.eq(id))
        .filter(audit_outbox::Column::EventType.eq("job.started"))
        .count(db.reader())
        .await
        .unwrap()
}

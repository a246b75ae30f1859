//! Subscriptions take turns, and jobs that are due later wait beside the line.

use super::*;
use keywright_entities::types::WaitingFor;
use keywright_tests::{app::eventually, database::TestDatabase, on_both_databases};

on_both_databases!(
    a_crowd_does_not_hold_up_another_subscription,
    turns_are_taken_while_jobs_run_and_end,
    a_higher_priority_goes_before_every_turn,
    those_that_become_due_together_take_turns_too,
    those_of_one_call_take_turns_too,
    a_job_for_later_is_left_alone_until_then,
    one_claimer_walks_the_line_in_order_and_goes_back_for_what_was_given_back,
);

fn of(subscription: Uuid) -> NewJob {
    probe().of_subscription(subscription)
}

async fn crowd(db: &Database, subscription: Uuid, count: usize) {
    let write = db.begin().await.unwrap();
    let jobs: Vec<NewJob> = (0..count).map(|_| of(subscription)).collect();
    enqueue_all(&*write, &jobs).await.unwrap();
    write.commit().await.unwrap();
}

async fn a_crowd_does_not_hold_up_another_subscription(test: TestDatabase) {
    let db = &test.database;
    let (crowded, other) = (ids::new(), ids::new());
    crowd(db, crowded, 300).await;
    for _ in 0..20 {
        let job = take_one_of(db).await;
        assert_eq!(job.subscription_id, Some(crowded));
    }
    let wanted = put(db, of(other)).await.id;
    let lone = put(db, probe()).await.id;
    let next: Vec<Uuid> = take(db, 3).await.iter().map(|job| job.id).collect();
    assert!(next.contains(&wanted) && next.contains(&lone), "one slot later at most");
}

async fn take_one_of(db: &Database) -> job::Model {
    take(db, 1).await.remove(0)
}

async fn turns_are_taken_while_jobs_run_and_end(test: TestDatabase) {
    let db = &test.database;
    let (one, two) = (ids::new(), ids::new());
    crowd(db, one, 40).await;
    for _ in 0..10 {
        assert!(finish(db, &held(&take_one_of(db).await), success()).await);
    }
    crowd(db, two, 40).await;
    let mut taken = Vec::new();
    for _ in 0..20 {
        let job = take_one_of(db).await;
        taken.push(job.subscription_id);
        assert!(finish(db, &held(&job), success()).await);
    }
    let of_two = taken.iter().filter(|id| **id == Some(two)).count();
    assert!((9..=11).contains(&of_two), "{of_two} of 20");
}

async fn a_higher_priority_goes_before_every_turn(test: TestDatabase) {
    let db = &test.database;
    let (one, two) = (ids::new(), ids::new());
    crowd(db, one, 5).await;
    let low = put(db, of(two).priority(-1)).await.id;
    let high = [put(db, of(one).priority(1)).await.id, put(db, of(one).priority(1)).await.id];
    // in one batch the rows come in no order; one at a time in the line's
    for _ in 0..2 {
        assert!(high.contains(&take_one_of(db).await.id));
    }
    for _ in 0..5 {
        assert_eq!(take_one_of(db).await.priority, 0);
    }
    assert_eq!(take_one_of(db).await.id, low);
}

async fn those_that_become_due_together_take_turns_too(test: TestDatabase) {
    let db = &test.database;
    let (crowded, other) = (ids::new(), ids::new());
    let soon = clock::now(db.reader()).await.unwrap() + chrono::Duration::minutes(5);
    let write = db.begin().await.unwrap();
    for _ in 0..50 {
        put_into(&*write, &of(crowded).not_before(Some(soon))).await.unwrap();
    }
    write.commit().await.unwrap();
    assert_eq!(take(db, 5).await, []);
    let due = clock::sql(db.backend(), -1000);
    let text = format!("UPDATE job SET due_at = {due}");
    db.reader().execute_raw(clock::statement(db.backend(), &text, [])).await.unwrap();
    assert_eq!(take_one_of(db).await.subscription_id, Some(crowded));
    let wanted = put(db, of(other)).await.id;
    assert!(take(db, 2).await.iter().any(|job| job.id == wanted), "one slot later at most");
    assert_eq!(take(db, 100).await.len(), 48, "none is left out");
}

async fn those_of_one_call_take_turns_too(test: TestDatabase) {
    let db = &test.database;
    let (crowded, other) = (ids::new(), ids::new());
    let later = clock::now(db.reader()).await.unwrap() + chrono::Duration::hours(1);
    let mut many: Vec<NewJob> = (0..600).map(|_| of(crowded)).collect();
    many.push(of(crowded).not_before(Some(later)));
    many.push(of(crowded).priority(1));
    many.extend([probe(), probe()]);
    many.push(of(other));
    let write = db.begin().await.unwrap();
    assert_eq!(enqueue_all(&*write, &many).await.unwrap(), 605);
    write.commit().await.unwrap();
    assert_eq!(take_one_of(db).await.priority, 1);
    let next: Vec<_> = take(db, 3).await.iter().map(|job| job.subscription_id).collect();
    for flow in [None, Some(other), Some(crowded)] {
        assert!(next.contains(&flow), "{next:?}");
    }
    let waiting = read(db, many[600].id).await;
    assert_eq!((waiting.turn, waiting.due_at, waiting.run_at), (None, Some(later), later));
    let one = read(db, many[5].id).await;
    assert_eq!((one.turn, one.state, one.payload.clone()), (Some(5), JobState::Queued, serde_json::Value::Null));
}

async fn a_job_for_later_is_left_alone_until_then(test: TestDatabase) {
    let db = &test.database;
    let later = clock::now(db.reader()).await.unwrap() + chrono::Duration::hours(1);
    let job = put(db, probe().not_before(Some(later))).await;
    assert_eq!((job.state, job.waiting_for, job.run_at, job.turn), (JobState::Queued, None, later, None));
    let label = put(db, probe().on_workers(Some("here".to_owned()))).await;
    assert_eq!((label.state, label.waiting_for), (JobState::Waiting, Some(WaitingFor::Worker)));
    assert_eq!(take(db, 10).await, []);
    make_due(db, job.id).await;
    assert_eq!(take_one(db).await.id, job.id);
    let past = clock::now(db.reader()).await.unwrap() - chrono::Duration::hours(1);
    let job = put(db, probe().not_before(Some(past))).await;
    assert_eq!(take_one(db).await.id, job.id, "what was for earlier is for now");
}

/// Looks begin where the line was served, but for one at the whole of it now and then.
async fn one_claimer_walks_the_line_in_order_and_goes_back_for_what_was_given_back(test: TestDatabase) {
    let db = &test.database.along_indices().await.unwrap();
    let can = worker(&[]);
    let next = async || claim::claim(db, &can, 1).await.unwrap().pop();
    let line: Vec<NewJob> =
        (0..90).map(|number| probe().priority([0, 0, 0, 0, 1, 0, 0, 0, 0, -1][number % 10])).collect();
    let write = db.begin().await.unwrap();
    enqueue_all(&*write, &line).await.unwrap();
    write.commit().await.unwrap();
    let of = |priority: usize| line.iter().skip(priority).step_by(10).map(|job| job.id);
    let (high, low): (Vec<Uuid>, Vec<Uuid>) = (of(4).collect(), of(9).collect());
    let normal = line.iter().map(|job| job.id).filter(|id| !high.contains(id) && !low.contains(id));
    let mut wanted: Vec<Uuid> = high.iter().copied().chain(normal).collect();
    let mut first = None;
    for (number, id) in wanted.iter().enumerate() {
        if number == 60 {
            let urgent = put(db, probe().priority(1)).await.id;
            assert_eq!(next().await.unwrap().id, urgent, "whoever is urgent is found at once");
        }
        let job = next().await.unwrap();
        assert_eq!(job.id, *id, "number {number}");
        first.get_or_insert(job);
    }
    let first = first.unwrap();
    assert!(finish(db, &held(&first), Outcome::GivenBack).await);
    let new = put(db, probe()).await.id;
    wanted = low.into_iter().chain([first.id, new]).collect();
    let mut rest = Vec::new();
    eventually("all of them are found", async || {
        rest.extend(next().await.map(|job| job.id));
        (rest.len() == wanted.len()).then_some(())
    })
    .await;
    wanted.sort_unstable();
    rest.sort_unstable();
    assert_eq!(rest, wanted);
}

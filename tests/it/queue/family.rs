//! A parent ends exactly once, when the last of its children does.

use super::*;
use keywright_tests::{database::TestDatabase, on_both_databases};
use serde_json::json;

on_both_databases!(
    a_parent_ends_with_its_last_child_and_sums_their_counts,
    how_the_children_end_decides_how_the_parent_does,
    a_parent_without_children_has_succeeded,
    children_that_failed_before_they_began_are_counted,
    children_that_end_at_once_end_their_parent_once,
    a_child_that_loses_its_last_worker_ends_its_parent,
);

/// A parent that has fanned out into this many children, which are due.
pub(super) async fn family(db: &Database, children: usize) -> (job::Model, Vec<job::Model>) {
    let parent = put(db, probe()).await;
    let attempt = take_one(db).await;
    assert_eq!(attempt.id, parent.id);
    let new = (0..children).map(|_| probe().child_of(parent.id)).collect();
    assert!(finish(db, &held(&attempt), Outcome::FannedOut(new)).await);
    (read(db, parent.id).await, job::children(db.reader(), parent.id).await.unwrap())
}

async fn a_parent_ends_with_its_last_child_and_sums_their_counts(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 3).await;
    assert_eq!((parent.state, parent.lease_until, parent.due_at), (JobState::Running, None, None));
    assert_eq!((parent.children_total, parent.children_open, children.len()), (3, 3, 3));
    for (open, child) in take(db, 3).await.iter().enumerate().map(|(n, child)| (2 - n, child)) {
        assert_eq!(ends(db, parent.id).await, 0);
        change(db, child.id, r#"counts = '{"found": 5, "created": 2}'"#).await;
        assert!(finish(db, &held(child), success()).await);
        let now = read(db, parent.id).await;
        assert_eq!(now.children_open, i32::try_from(open).unwrap());
        assert_eq!(now.state.is_done(), open == 0);
    }
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, ended.children_succeeded, ended.attempt), (JobState::Succeeded, 3, 1));
    assert_eq!(ended.counts, Some(json!({"found": 15, "created": 6})));
    assert_eq!(ends(db, parent.id).await, 1);
}

async fn how_the_children_end_decides_how_the_parent_does(test: TestDatabase) {
    let db = &test.database;
    let (denied, broken) = (|| failure("permission_denied"), || failure("invalid_reply"));
    for (ends, state, code) in [
        (vec![success(), success()], JobState::Succeeded, None),
        (vec![success(), denied()], JobState::Partial, None),
        (vec![broken(), success()], JobState::Partial, None),
        (vec![denied(), denied()], JobState::Failed, Some("all_scopes_denied")),
        (vec![denied(), broken()], JobState::Failed, Some("all_scopes_failed")),
        (vec![broken(), broken()], JobState::Failed, Some("all_scopes_failed")),
    ] {
        let (parent, _) = family(db, ends.len()).await;
        for (child, end) in take(db, ends.len()).await.iter().zip(&ends) {
            assert!(finish(db, &held(child), end.clone()).await);
        }
        let ended = read(db, parent.id).await;
        assert_eq!((ended.state, ended.error_code.as_deref()), (state, code), "{ends:?}");
        let told = ended.children_succeeded + ended.children_failed + ended.children_denied + ended.children_canceled;
        assert_eq!((told, ended.children_open), (ended.children_total, 0), "{ends:?}");
    }
}

async fn a_parent_without_children_has_succeeded(test: TestDatabase) {
    let (parent, _) = family(&test.database, 0).await;
    assert_eq!(parent.state, JobState::Succeeded);
    assert_eq!(ends(&test.database, parent.id).await, 1);
}

async fn children_that_failed_before_they_began_are_counted(test: TestDatabase) {
    let db = &test.database;
    for (living, state) in [(0, JobState::Failed), (1, JobState::Partial)] {
        let parent = put(db, probe()).await;
        let attempt = take_one(db).await;
        let dead = || probe().child_of(parent.id).failed_already(reason("permission_denied"));
        let mut children = vec![dead(), dead()];
        children.extend((0..living).map(|_| probe().child_of(parent.id)));
        assert!(finish(db, &held(&attempt), Outcome::FannedOut(children)).await);
        for child in take(db, 10).await {
            assert!(finish(db, &held(&child), success()).await);
        }
        let ended = read(db, parent.id).await;
        assert_eq!((ended.state, ended.children_denied, ended.children_open), (state, 2, 0));
        assert_eq!(ends(db, parent.id).await, 1);
    }
}

async fn children_that_end_at_once_end_their_parent_once(test: TestDatabase) {
    let db = &test.database;
    let (parent, _) = family(db, 24).await;
    let mut ending = tokio::task::JoinSet::new();
    for (number, child) in take(db, 24).await.into_iter().enumerate() {
        let db = db.clone();
        ending.spawn(async move {
            let end = if number % 3 == 0 { failure("permission_denied") } else { success() };
            assert!(finish(&db, &held(&child), end).await);
        });
    }
    ending.join_all().await;
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, ended.children_open), (JobState::Partial, 0));
    assert_eq!((ended.children_succeeded, ended.children_denied), (16, 8));
    assert_eq!(ends(db, parent.id).await, 1);
}

async fn a_child_that_loses_its_last_worker_ends_its_parent(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 1).await;
    for _ in 0..3 {
        take_one(db).await;
        lapse(db, children[0].id).await;
        claim::rescue(db).await.unwrap();
    }
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, ended.error_code.as_deref()), (JobState::Failed, Some("all_scopes_failed")));
}

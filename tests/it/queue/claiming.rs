//! Who gets which job.

use super::*;
use keywright_entities::types::WaitingFor;
use keywright_tests::{database::TestDatabase, on_both_databases};
use sea_orm::{DbBackend, Statement};
use std::collections::BTreeMap;

on_both_databases!(
    a_claim_begins_an_attempt,
    urgent_jobs_come_first_then_those_due_longest,
    what_is_not_due_is_left_alone,
    of_one_lock_key_one_runs,
    claimers_at_once_share_jobs_and_never_a_lock,
    a_bound_job_waits_for_a_worker_with_its_label,
    a_payload_of_a_newer_program_is_left_alone,
    a_claim_reads_what_it_takes_however_long_the_line_is,
    an_attempt_is_looked_up_by_its_id_however_many_are_held,
);

async fn a_claim_begins_an_attempt(test: TestDatabase) {
    let db = &test.database;
    let queued = put(db, probe()).await;
    assert_eq!((queued.state, queued.epoch, queued.attempt), (JobState::Queued, 0, 0));
    let running = take_one(db).await;
    assert_eq!((running.state, running.epoch, running.attempt), (JobState::Running, 1, 1));
    assert_eq!(running.due_at, None);
    let started = running.started_at.unwrap();
    assert_eq!(running.lease_until.unwrap() - started, chrono::Duration::seconds(60));
    assert_eq!(running.deadline_at.unwrap() - started, chrono::Duration::seconds(3600));
    assert!(running.version > queued.version);
    assert_eq!(read(db, running.id).await, running);
    assert_eq!(take(db, 10).await, [], "it is nobody else's now");
}

async fn urgent_jobs_come_first_then_those_due_longest(test: TestDatabase) {
    let db = &test.database;
    let mut ids = Vec::new();
    for (priority, age) in [(-1, 9_000), (0, 1_000), (0, 5_000), (1, 2_000), (1, 3_000)] {
        let job = put(db, probe()).await;
        let due = clock::sql(db.backend(), -age);
        change(db, job.id, &format!("priority = {priority}, turn = 0, due_at = {due}")).await;
        ids.push(job.id);
    }
    let expected = [ids[4], ids[3], ids[2], ids[1], ids[0]];
    for id in expected {
        assert_eq!(take(db, 1).await[0].id, id);
    }
}

async fn what_is_not_due_is_left_alone(test: TestDatabase) {
    let db = &test.database;
    let later = put(db, probe()).await;
    change(db, later.id, &format!("turn = NULL, due_at = {}", clock::sql(db.backend(), 60_000))).await;
    assert_eq!(take(db, 10).await, []);
    make_due(db, later.id).await;
    assert_eq!(take_one(db).await.id, later.id);
    let can = Capability { kinds: vec!["test.other"], ..worker(&[]) };
    put(db, probe()).await;
    assert_eq!(claim::claim(db, &can, 10).await.unwrap(), [], "another kind");
    assert_eq!(take(db, 0).await, [], "no free slot");
}

async fn of_one_lock_key_one_runs(test: TestDatabase) {
    let db = &test.database;
    for _ in 0..3 {
        put(db, probe().lock("scope".to_owned())).await;
    }
    let other = put(db, probe().lock("other".to_owned())).await;
    let free = put(db, probe()).await;
    let mut taken = take(db, 10).await;
    taken.sort_by_key(|job| job.lock_key.clone());
    let keys: Vec<_> = taken.iter().map(|job| job.lock_key.as_deref()).collect();
    assert_eq!(keys, [None, Some("other"), Some("scope")], "one of each in one batch");
    assert!(taken.iter().any(|job| job.id == other.id) && taken.iter().any(|job| job.id == free.id));
    assert_eq!(take(db, 10).await, [], "the others wait");
    assert!(finish(db, &held(&taken[2]), Outcome::GivenBack).await);
    let next = take_one(db).await;
    assert_eq!(next.lock_key.as_deref(), Some("scope"));
    assert!(finish(db, &held(&next), success()).await);
    assert_eq!(take_one(db).await.lock_key.as_deref(), Some("scope"));
}

async fn claimers_at_once_share_jobs_and_never_a_lock(test: TestDatabase) {
    const LOCKS: usize = 8;
    const EACH: usize = 4;
    // queued in opposite orders, so that claims that locked one by one would meet head on
    for round in 0..EACH {
        for number in 0..LOCKS {
            let key = if round % 2 == 0 { number } else { LOCKS - 1 - number };
            put(&test.database, probe().lock(format!("lock-{key}"))).await;
        }
    }
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let db = test.another().await;
        claimers.spawn(async move {
            let mut attempts = Vec::new();
            loop {
                let taken = take(&db, LOCKS).await;
                for job in &taken {
                    assert_eq!(job.attempt, 1);
                    assert!(finish(&db, &held(job), success()).await);
                    attempts.push(job.id);
                }
                let open = job::Entity::find().filter(job::Column::CompletedAt.is_null()).count(db.reader()).await;
                if open.unwrap() == 0 {
                    return attempts;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let mut runs: BTreeMap<Uuid, usize> = BTreeMap::new();
    for id in claimers.join_all().await.into_iter().flatten() {
        *runs.entry(id).or_default() += 1;
    }
    assert_eq!(runs.len(), LOCKS * EACH);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
}

async fn a_bound_job_waits_for_a_worker_with_its_label(test: TestDatabase) {
    let db = &test.database;
    let bound = put(db, probe().on_workers(Some("vault-room".to_owned()))).await;
    assert_eq!((bound.state, bound.waiting_for), (JobState::Waiting, Some(WaitingFor::Worker)));
    assert_eq!(take(db, 10).await, []);
    assert_eq!(claim::claim(db, &worker(&["lobby"]), 10).await.unwrap(), []);
    let taken = claim::claim(db, &worker(&["lobby", "vault-room"]), 10).await.unwrap();
    assert_eq!(taken.iter().map(|job| job.id).collect::<Vec<_>>(), [bound.id]);
    assert_eq!((taken[0].state, taken[0].waiting_for), (JobState::Running, None));
}

async fn a_payload_of_a_newer_program_is_left_alone(test: TestDatabase) {
    let db = &test.database;
    let newer = put(db, newer_probe()).await;
    let older = put(db, probe()).await;
    assert_eq!(take_one(db).await.id, older.id);
    assert_eq!(read(db, newer.id).await, newer, "untouched");
    let can = Capability { payload_version: 2, ..worker(&[]) };
    assert_eq!(claim::claim(db, &can, 10).await.unwrap()[0].id, newer.id);
}

/// Without statistics, or with old ones, PostgreSQL believes that so few jobs may be claimed that it can read and sort all of them.
async fn a_claim_reads_what_it_takes_however_long_the_line_is(test: TestDatabase) {
    let db = &test.database.along_indices().await.unwrap();
    if db.backend() != DbBackend::Postgres {
        return;
    }
    let write = db.begin().await.unwrap();
    let jobs: Vec<NewJob> = (0..3_000).map(|_| probe()).collect();
    enqueue_all(&*write, &jobs).await.unwrap();
    write.commit().await.unwrap();
    for _ in 0..8 {
        assert_eq!(take(db, 1).await.len(), 1);
    }
    let before = entries_read(db).await;
    for _ in 0..8 {
        assert_eq!(take(db, 1).await.len(), 1);
    }
    let entries = entries_read(db).await - before;
    assert!((1..1_000).contains(&entries), "{entries} rows or entries were read for eight jobs");
}

/// PostgreSQL believes that next to nothing is held when nothing was as it took its statistics.
async fn an_attempt_is_looked_up_by_its_id_however_many_are_held(test: TestDatabase) {
    // of one connection, whose statistics are told when they are asked for
    let db = &test.database.along_indices().await.unwrap();
    if db.backend() != DbBackend::Postgres {
        return;
    }
    let write = db.begin().await.unwrap();
    let jobs: Vec<NewJob> = (0..2_000).map(|_| probe()).collect();
    enqueue_all(&*write, &jobs).await.unwrap();
    write.commit().await.unwrap();
    db.reader().execute_unprepared("ANALYZE job").await.unwrap();
    let mut taken = take(db, jobs.len()).await;
    assert_eq!(taken.len(), jobs.len());
    let mut ended = |count: usize| -> Vec<_> { taken.drain(..count).map(|job| held(&job)).collect() };
    let one_by_one = ended(8);
    let together: Vec<_> = ended(8).into_iter().map(|held| (held, success())).collect();
    let before = looks_at_the_held(db).await;
    for held in &one_by_one {
        assert!(finish(db, held, success()).await);
    }
    assert_eq!(super::batches::record_all(db, &together).await, vec![true; together.len()]);
    assert_eq!(looks_at_the_held(db).await, before, "all that is held was walked through for one attempt");
}

async fn looks_at_the_held(db: &Database) -> i64 {
    number(db, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'job_held'").await
}

/// How many rows and index entries of jobs were read so far.
async fn entries_read(db: &Database) -> i64 {
    let text = "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'job') \
        + (SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'job')::bigint";
    number(db, text).await
}

/// A number of PostgreSQL's statistics, with what this connection did so far.
async fn number(db: &Database, text: &str) -> i64 {
    db.reader().execute_unprepared("SELECT pg_stat_force_next_flush()").await.unwrap();
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), text)).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

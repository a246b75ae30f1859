//! Work begins, and waiters are answered, because they are told; not because somebody looks from time to time.

use keywright_entities::{
    job,
    types::{JobState, ScanMode, Trigger},
};
use keywright_jobs::{
    job::Job,
    kinds::discovery::scan::Scan,
    queue::{
        Held, NewJob, Renewer, Requester,
        backend::{Claimer, JobBackend},
        claim::{self, Capability},
        enqueue,
        limits::Limits,
        outcome::{self, Outcome},
        wait::{Until, Waiters},
        wake::Wake,
    },
    setup::{database::Database, ids},
};
use keywright_tests::{
    app::{PATIENCE, eventually, job as read},
    database::TestDatabase,
    on_both_databases,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than any test: whoever only looks this often has not been told.
const NEVER: Duration = Duration::from_secs(3600);

on_both_databases!(
    an_idle_worker_is_told_of_a_job,
    a_freed_place_is_filled_at_once,
    a_waiter_is_told_of_a_change_and_of_the_end,
    a_shutdown_answers_all_waiters,
);

async fn put(database: &Database) -> job::Model {
    let payload = Scan { mode: ScanMode::Full, subscriptions: Vec::new(), only: None };
    let new = NewJob::new(&payload, Requester::system(), Trigger::Api).unwrap();
    let write = database.begin().await.unwrap();
    enqueue(&*write, &new).await.unwrap();
    write.commit().await.unwrap();
    read(database, new.id).await
}

fn capability() -> Capability {
    Capability {
        worker: ids::new(),
        kinds: vec![Scan::KIND],
        payload_version: 1,
        labels: Vec::new(),
        lease: Duration::from_secs(60),
        limits: Limits::default(),
        progress: Arc::default(),
    }
}

async fn claimer(database: Database, limits: Limits, stop: &CancellationToken) -> JobBackend {
    Claimer {
        capability: Capability { limits, ..capability() },
        renewer: Renewer::new(Duration::from_secs(60), database.committed()),
        wake: Wake::start(&database, stop.clone()),
        database,
        stop: stop.clone(),
        interrupt: stop.clone(),
        polls: Arc::default(),
        poll: NEVER,
    }
    .start(8)
}

async fn an_idle_worker_is_told_of_a_job(test: TestDatabase) {
    let stop = CancellationToken::new();
    let (_stop, _claimed) = (stop.clone().drop_guard(), claimer(test.another().await, Limits::default(), &stop).await);
    // as in the process that enqueues: it tells the others of its commits
    let _wake = Wake::start(&test.database, stop.clone());
    for number in 0..3 {
        let id = put(&test.database).await.id;
        eventually(&format!("job {number} is claimed"), async || {
            let job = read(&test.database, id).await;
            (job.state == JobState::Running).then_some(())
        })
        .await;
    }
}

async fn a_freed_place_is_filled_at_once(test: TestDatabase) {
    let (db, stop) = (&test.database, CancellationToken::new());
    let limits = Limits { kinds: [(Scan::KIND.to_owned(), 1)].into(), subscription: None };
    let (_stop, _claimed) = (stop.clone().drop_guard(), claimer(test.another().await, limits, &stop).await);
    let _wake = Wake::start(db, stop.clone());
    let jobs = [put(db).await.id, put(db).await.id, put(db).await.id];
    for (number, id) in jobs.into_iter().enumerate() {
        let running = eventually(&format!("job {number} is claimed"), async || {
            Some(read(db, id).await).filter(|job| job.state == JobState::Running)
        })
        .await;
        let write = db.begin().await.unwrap();
        let (held, success) = (Held { id, epoch: running.epoch }, JobState::Succeeded);
        assert!(outcome::record(&*write, &held, Outcome::Ended { state: success, reason: None }).await.unwrap());
        write.commit().await.unwrap();
    }
}

struct Watched {
    database: Database,
    waiters: Waiters,
    stop: CancellationToken,
}

impl Watched {
    async fn on(test: &TestDatabase) -> Self {
        let (database, stop) = (test.another().await, CancellationToken::new());
        let wake = Wake::start(&database, stop.clone());
        Self { waiters: Waiters::start(database.clone(), &wake, stop.clone()), database, stop }
    }

    fn wait(&self, job: Uuid, until: Until) -> tokio::task::JoinHandle<()> {
        let waiters = self.waiters.clone();
        tokio::spawn(async move { waiters.wait(job, until, NEVER).await })
    }
}

async fn told(waiting: tokio::task::JoinHandle<()>) {
    tokio::time::timeout(PATIENCE, waiting).await.expect("the waiter is told").unwrap();
}

async fn a_waiter_is_told_of_a_change_and_of_the_end(test: TestDatabase) {
    let watched = Watched::on(&test).await;
    let _wake = Wake::start(&test.database, watched.stop.clone());
    let queued = put(&test.database).await;
    let done = watched.wait(queued.id, Until::Done);
    let moved = watched.wait(queued.id, Until::VersionMoves(queued.version));
    let other = watched.wait(put(&test.database).await.id, Until::Done);
    let claimed = claim::claim(&test.database, &capability(), 2).await.unwrap();
    told(moved).await;
    assert!(!done.is_finished(), "it only began");
    told(watched.wait(queued.id, Until::VersionMoves(queued.version))).await;
    let held = claimed.iter().find(|job| job.id == queued.id).map(|job| Held { id: job.id, epoch: job.epoch }).unwrap();
    let write = test.database.begin().await.unwrap();
    outcome::record(&*write, &held, Outcome::Ended { state: JobState::Succeeded, reason: None }).await.unwrap();
    write.commit().await.unwrap();
    told(done).await;
    told(watched.wait(queued.id, Until::Done)).await;
    assert!(!other.is_finished(), "another job's end is no news for it");
    // a version that a client made up is not the one of an ended job
    told(watched.wait(queued.id, Until::VersionMoves(i64::MAX))).await;
    watched.stop.cancel();
    told(other).await;
}

async fn a_shutdown_answers_all_waiters(test: TestDatabase) {
    let watched = Watched::on(&test).await;
    let id = put(&watched.database).await.id;
    let waiting: Vec<_> = (0..100).map(|_| watched.wait(id, Until::Done)).collect();
    watched.stop.cancel();
    for waiter in waiting {
        told(waiter).await;
    }
}

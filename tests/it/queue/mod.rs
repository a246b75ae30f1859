//! The conformance suite of the queue: what it promises, on each database that it runs on.

mod batches;
mod canceling;
mod claiming;
mod deadlines;
mod enqueueing;
mod events;
mod family;
mod fence;
mod limits;
mod model;
mod pausing;
mod turns;

use keywright_entities::types::JobState;
use keywright_entities::{audit_outbox, clock, job, types::Trigger};
use keywright_jobs::{
    context::Context,
    job::{Done, Job, JobError},
    queue::{
        Enqueued, Held, NewJob, Requester,
        claim::{self, Capability},
        enqueue as put_into, enqueue_all,
        limits::Limits,
        outcome::{self, Outcome, Reason},
    },
    setup::{
        database::{Database, is_transient},
        ids,
    },
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// A job that only these tests know; nobody ever runs it.
#[derive(Serialize, Deserialize)]
struct Probe;

impl Job for Probe {
    const KIND: &'static str = "test.probe";
    const TIMEOUT: Duration = Duration::from_secs(3600);

    async fn run(self, _: &Context) -> Result<Done, JobError> {
        Ok(Done::Succeeded)
    }
}

/// The same kind as a newer program would write it.
#[derive(Serialize, Deserialize)]
struct NewerProbe;

impl Job for NewerProbe {
    const KIND: &'static str = Probe::KIND;
    const PAYLOAD_VERSION: i32 = 2;
    const TIMEOUT: Duration = Duration::from_secs(3600);

    async fn run(self, _: &Context) -> Result<Done, JobError> {
        Ok(Done::Succeeded)
    }
}

fn probe() -> NewJob {
    NewJob::new(&Probe, Requester::system(), Trigger::Api).unwrap()
}

fn newer_probe() -> NewJob {
    NewJob::new(&NewerProbe, Requester::system(), Trigger::Api).unwrap()
}

fn worker(labels: &[&str]) -> Capability {
    Capability {
        worker: ids::new(),
        kinds: vec![Probe::KIND],
        payload_version: 1,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        lease: Duration::from_secs(60),
        limits: Limits::default(),
        progress: Arc::default(),
    }
}

async fn put(db: &Database, new: NewJob) -> job::Model {
    let write = db.begin().await.unwrap();
    let enqueued = put_into(&*write, &new).await.unwrap();
    write.commit().await.unwrap();
    match enqueued {
        Enqueued::New(job) => job,
        Enqueued::Open(job) => panic!("there already: {job:?}"),
    }
}

async fn take(db: &Database, free: usize) -> Vec<job::Model> {
    claim::claim(db, &worker(&[]), free).await.unwrap()
}

/// Claims the one job that is due.
async fn take_one(db: &Database) -> job::Model {
    let mut taken = take(db, 10).await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    taken.remove(0)
}

fn held(job: &job::Model) -> Held {
    Held { id: job.id, epoch: job.epoch }
}

async fn try_finish(db: &Database, held: &Held, outcome: Outcome) -> Result<bool, DbErr> {
    let write = db.begin().await?;
    let recorded = outcome::record(&*write, held, outcome).await?;
    write.commit().await?;
    Ok(recorded)
}

/// Records an outcome as the worker does: again when the database says that it may work then.
async fn finish(db: &Database, held: &Held, outcome: Outcome) -> bool {
    loop {
        match try_finish(db, held, outcome.clone()).await {
            Err(error) if is_transient(&error) => {}
            recorded => return recorded.unwrap(),
        }
    }
}

fn success() -> Outcome {
    Outcome::Ended { state: JobState::Succeeded, reason: None }
}

fn failure(code: &str) -> Outcome {
    Outcome::Ended { state: JobState::Failed, reason: Some(reason(code)) }
}

fn reason(code: &str) -> Reason {
    Reason { code: code.to_owned(), detail: format!("it was {code}"), permission: None }
}

async fn read(db: &Database, id: Uuid) -> job::Model {
    job::by_id(db.reader(), id).await.unwrap().unwrap()
}

async fn change(db: &Database, id: Uuid, assignment: &str) {
    let text = format!("UPDATE job SET {assignment} WHERE id = $1");
    db.reader().execute_raw(clock::statement(db.backend(), &text, [id.into()])).await.unwrap();
}

/// Makes the job's lease one that ran out an hour ago.
async fn lapse(db: &Database, id: Uuid) {
    let past = clock::sql(db.backend(), -3_600_000);
    change(db, id, &format!("lease_until = CASE WHEN lease_until IS NULL THEN NULL ELSE {past} END")).await;
}

async fn make_due(db: &Database, id: Uuid) {
    change(db, id, "due_at = CASE WHEN due_at IS NULL THEN NULL ELSE {now} END").await;
}

/// How often the audit log says that the job ended.
async fn ends(db: &Database, id: Uuid) -> u64 {
    audit_outbox::Entity::find()
        .filter(audit_outbox::Column::JobId.eq(id))
        .filter(audit_outbox::Column::EventType.eq("job.ended"))
        .count(db.reader())
        .await
        .unwrap()
}

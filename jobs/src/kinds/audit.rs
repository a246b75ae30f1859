//! `audit.verify`: checks the whole audit log against what was signed. That something is wrong with it is the result of the job, not its
//! failure.

use super::RetryRefused;
use crate::{
    audit::{
        Actor, Event, EventType,
        check::{CheckError, Verdict, check},
    },
    context::Context,
    job::{Done, Job, JobError},
    provider::{Gate, Pass},
    queue::{self, Enqueued, NewJob, Requester},
    setup::database::Write,
};
use keywright_entities::{job, job_report, types::Trigger};
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// The log as it is when the job begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct VerifyLog {}

impl Job for VerifyLog {
    const KIND: &'static str = "audit.verify";
    const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        let gate = Gate::new(Arc::clone(&context.lease) as Arc<dyn Pass>);
        let seen = |checked, all| context.report("events", checked, Some(all));
        let checked = check(context.database.reader(), Some(&gate), seen).await;
        let verdict = Verdict::from(checked.map_err(unread)?);
        let content = serde_json::to_value(&verdict).map_err(|error| JobError::fail("report_failed", error))?;
        let of = context.job.id;
        context
            .persist(|db, job| {
                let (content, event) = (content.clone(), verdict.event(Actor::SYSTEM).job(job.id));
                Box::pin(async move {
                    // the commit whose answer was lost had happened
                    if job_report::of(db, of).await?.is_none() {
                        event.write(db).await?;
                    }
                    job_report::save(db, of, content).await
                })
            })
            .await?;
        verdict.alarm();
        Ok(Done::Succeeded)
    }
}

/// Begins a check in the caller's transaction, or joins the one that is under way.
///
/// # Errors
/// When the database cannot write it.
pub async fn verify(write: &Write, requester: Requester) -> Result<Enqueued, DbErr> {
    begin(write, requester, None).await
}

/// Checks again.
///
/// # Errors
/// As [`verify`].
pub async fn retry(write: &Write, requester: Requester, of: &job::Model) -> Result<Enqueued, RetryRefused> {
    Ok(begin(write, requester, Some(of.id)).await?)
}

/// What a check came to; `None` until it has, and when its job is gone.
///
/// # Errors
/// When the database cannot tell.
pub async fn verdict(db: &impl ConnectionTrait, job: &job::Model) -> Result<Option<Verdict>, DbErr> {
    let kept = job_report::of(db, job.id).await?;
    kept.map(serde_json::from_value).transpose().map_err(|error| DbErr::Json(error.to_string()))
}

async fn begin(write: &Write, requester: Requester, retry_of: Option<Uuid>) -> Result<Enqueued, DbErr> {
    let trigger = if retry_of.is_some() { Trigger::Retry } else { Trigger::Api };
    let new = NewJob::new(&VerifyLog {}, requester.clone(), trigger);
    let mut new = new.map_err(|error| DbErr::Json(error.to_string()))?.unique("log".to_owned()).request(json!({}));
    if let Some(of) = retry_of {
        new = new.retrying(of);
    }
    let job = match queue::enqueue(&**write, &new).await? {
        Enqueued::New(job) => job,
        open @ Enqueued::Open(_) => return Ok(open),
    };
    let actor = Actor { actor_type: requester.actor, id: requester.id, name: requester.name };
    Event::new(EventType::AuditVerificationRequested, actor, "audit_log")
        .job(job.id)
        .request(requester.request_id.unwrap_or_default())
        .write(&**write)
        .await?;
    Ok(Enqueued::New(job))
}

fn unread(error: CheckError) -> JobError {
    match error {
        CheckError::Database(error) => error.into(),
        CheckError::Stopped(stopped) => stopped.into(),
        error => JobError::fail("audit_log_unreadable", error),
    }
}

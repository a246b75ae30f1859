//! What a kind of job is, and the exactly four ways in which an attempt ends.

use crate::{context::Context, provider::Stopped, queue::NewJob, setup::database::is_transient};
use keywright_entities::types::WaitingFor;
use sea_orm::DbErr;
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, time::Duration};
use thiserror::Error;

/// One kind of job: a payload of ids, its limits, and what it does. One file and one line in [`crate::kinds`] each.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The stable word that clients see; never renamed.
    const KIND: &'static str;
    /// Raised when the payload changes in a way that an older worker cannot read.
    const PAYLOAD_VERSION: i32 = 1;
    /// How many attempts may end by the job's own error.
    const MAX_ATTEMPTS: i32 = 5;
    /// From the first start to the last end, retries included.
    const TIMEOUT: Duration;

    /// Does the work, idempotently: it may run again after any line of it.
    fn run(self, context: &Context) -> impl Future<Output = Result<Done, JobError>> + Send;
}

/// How an attempt ends well.
#[derive(Debug)]
pub enum Done {
    /// The job is finished.
    Succeeded,
    /// The job goes on in these children and ends when the last of them does.
    FannedOut(Vec<NewJob>),
    /// The job, a part of another, is finished, and the other goes on in these further parts too.
    HandedOver(Vec<NewJob>),
}

/// How an attempt ends otherwise, chosen in the line that can fail.
#[derive(Clone, Debug, Error)]
pub enum JobError {
    /// It may work later; costs an attempt.
    #[error("{code}: {detail}")]
    Retry { code: String, detail: String, after: Option<Duration> },
    /// Nothing went wrong, it is only too early; costs no attempt.
    #[error("waiting for {} for {after:?}", waiting_for.as_str())]
    Snooze { waiting_for: WaitingFor, after: Duration },
    /// Trying again will not help.
    #[error("{code}: {detail}")]
    Fail { code: String, detail: String, permission: Option<String> },
    /// The attempt had to end here, whatever it was doing.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl JobError {
    pub fn retry(code: &str, detail: impl ToString) -> Self {
        Self::Retry { code: code.to_owned(), detail: detail.to_string(), after: None }
    }

    pub fn fail(code: &str, detail: impl ToString) -> Self {
        Self::Fail { code: code.to_owned(), detail: detail.to_string(), permission: None }
    }
}

/// How long a job waits that met a database that was away.
const UNTIL_DATABASE: Duration = Duration::from_secs(2);

/// A database that is away is not the job's own error, so it costs no attempt.
impl From<DbErr> for JobError {
    fn from(error: DbErr) -> Self {
        if is_transient(&error) {
            tracing::warn!(%error, "the database is away or busy; the job is put off");
            return Self::Snooze { waiting_for: WaitingFor::Snooze, after: UNTIL_DATABASE };
        }
        Self::retry("database_error", error)
    }
}

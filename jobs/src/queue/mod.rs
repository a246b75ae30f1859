//! The job engine: delivery and status in one row of our own table, on SQLite and PostgreSQL alike.
//!
//! Promises: a job is enqueued with its cause or not at all; it runs at least once and its outcome is recorded once; a worker
//! that lost its lease writes nothing; a lost worker's jobs are run by another. The row's `epoch` is the fence: it rises with
//! every claim, rescue and give-back and never restarts, and every write of an attempt names the epoch it was claimed with.
//!
//! * [`mod@enqueue`]: a job row in the caller's transaction
//! * [`claim`]: due rows for a worker; lapsed leases back to the queue
//! * [`lease`]: an attempt's hold on its job; [`renew`]: keeping it, on a thread of its own
//! * [`outcome`]: how attempts end, and how a parent ends with its last child; `recorder`: several of them in one commit
//! * `line`: the order in which jobs are claimed; [`limits`]: how many of a kind or a subscription may run
//! * `approval`: jobs that rest until somebody else approves them
//! * [`control`]: canceling a job, letting it rest and go on
//! * [`wake`]: one source of news per process; [`wait`]: those who wait for a job
//! * [`events`]: what happened to jobs, in order; [`feed`]: those who follow it
//! * [`overview`]: how the queues stand
//! * [`backend`]: the face that apalis sees; `places`: how many jobs a process holds
//! * [`chaos`]: promises that a test build breaks on purpose

pub(crate) mod approval;
pub mod backend;
pub mod chaos;
pub mod claim;
pub mod control;
pub mod enqueue;
pub mod events;
pub mod feed;
pub mod lease;
pub mod limits;
mod line;
pub mod outcome;
pub mod overview;
mod places;
pub mod prune;
mod recorder;
pub mod renew;
pub mod wait;
pub mod wake;

pub use enqueue::{Enqueued, NewJob, Requester, enqueue, enqueue_all};
pub use lease::{Held, Lease};
pub use places::Place;
pub use recorder::Recorder;
pub use renew::{Heartbeat, Renewer};

use chrono::{DateTime, Utc};
use keywright_entities::job;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryResult, Statement};

/// The code of a job whose deadline has passed.
pub const TOO_LATE: &str = "deadline_exceeded";

/// SQL for: an attempt at this job, which the statement names by its id, is under way.
///
/// In a form that no partial index is known to cover. PostgreSQL takes an index of held jobs for nearly empty and would rather read
/// that than look the id up; while anybody keeps an old snapshot, it holds an entry for each attempt that ever began.
pub(crate) const HELD: &str = "(lease_until IS NULL) IS FALSE";

/// Reads the job rows that a statement returns.
pub(crate) async fn rows(db: &impl ConnectionTrait, statement: Statement) -> Result<Vec<job::Model>, DbErr> {
    job::Entity::find().from_raw_sql(statement).all(db).await
}

/// Reads an instant that a statement computed: SQLite gives it as text.
pub(crate) fn row_time(row: &QueryResult, column: &str) -> Result<Option<DateTime<Utc>>, DbErr> {
    if let Ok(time) = row.try_get::<Option<DateTime<Utc>>>("", column) {
        return Ok(time);
    }
    let text: Option<String> = row.try_get("", column)?;
    text.map(|text| DateTime::parse_from_rfc3339(&text).map(|time| time.with_timezone(&Utc)))
        .transpose()
        .map_err(|error| DbErr::Type(format!("{column} is no instant: {error}")))
}

/// Reads the at most one job row that a statement returns.
pub(crate) async fn row(db: &impl ConnectionTrait, statement: Statement) -> Result<Option<job::Model>, DbErr> {
    job::Entity::find().from_raw_sql(statement).one(db).await
}

//! `rotation.apply`: drives a rotation from where it stands, until it is over or must wait.

use crate::{
    context::Context,
    job::{Done, Job, JobError},
    rotation::driver,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apply {
    /// One whose earlier job has ended; `None`: the one that has this job's id.
    pub rotation: Option<Uuid>,
}

impl Job for Apply {
    const KIND: &'static str = "rotation.apply";
    /// What the machine makes of a call is no error of the job's: these are for what comes before, a login, the database.
    const MAX_ATTEMPTS: i32 = 20;
    /// Grace, hold and people take their time, and none of it may strand it.
    const TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        driver::drive(context, self.rotation.unwrap_or(context.job.id)).await
    }
}

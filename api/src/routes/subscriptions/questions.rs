//! What is asked of a subscription's provider beside scans, as jobs.

use crate::{
    answer::{Accepted, Joinable},
    auth::{Caller, perm},
    error::{ApiError, Code},
    idempotency::{Begun, Made, Once},
    routes::{
        Tag,
        jobs::{JobView, Waiting, control::requester},
    },
};
use keywright_jobs::{
    kinds::subscription::request::{self, Question, Refused},
    queue::wait::Waiters,
    setup::database::Database,
};
use poem_openapi::{
    OpenApi,
    param::{Header, Path},
};
use uuid::Uuid;

/// Testing subscriptions, and finding further accounts.
pub struct QuestionsApi {
    pub database: Database,
    pub waiters: Waiters,
}

#[OpenApi(tag = "Tag::Subscriptions")]
impl QuestionsApi {
    /// Test a subscription
    ///
    /// A job that logs in and lists the first page of each kind of asset in one region; no value is read and nothing is kept but what
    /// `result.test` of the job tells. Asked again while it is under way, answers with it; `Idempotency-Key` is ignored.
    #[oai(path = "/api/subscriptions/:id/test", method = "post", operation_id = "testSubscription")]
    async fn test(
        &self,
        caller: Caller<perm::JobsStart>,
        id: Path<Uuid>,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
    ) -> Result<Joinable<JobView>, ApiError> {
        let waiting = self.waiting(&caller, prefer.0.as_deref());
        let write = self.database.begin().await?;
        match request::ask(&write, &caller.visible(), requester(&caller), Question::Test, id.0).await {
            Ok(begun) => waiting.joinable(write, begun).await,
            Err(refusal) => {
                write.rollback().await?;
                Err(refused(refusal))
            }
        }
    }

    /// List the accounts of a subscription's organisation
    ///
    /// A job whose `result.accounts` names the accounts or projects that this subscription's credential may list, and for which of them
    /// there are subscriptions. Of aws the organisation's management account or a delegate may do so.
    #[oai(path = "/api/subscriptions/:id/accounts", method = "post", operation_id = "listAccounts")]
    async fn accounts(
        &self,
        caller: Caller<perm::JobsStart>,
        id: Path<Uuid>,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        once: Once,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        let waiting = self.waiting(&caller, prefer.0.as_deref());
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        match request::ask(&write, &caller.visible(), requester(&caller), Question::Accounts, id.0).await {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(refused(refusal)).await,
        }
    }
}

impl QuestionsApi {
    fn waiting<'a>(&'a self, caller: &Caller<perm::JobsStart>, prefer: Option<&'a str>) -> Waiting<'a> {
        Waiting { waiters: &self.waiters, database: &self.database, visible: caller.visible(), prefer }
    }
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::NotFound => ApiError::not_found("subscription"),
        Refused::Disabled => {
            let detail = "The subscription is disabled, so its account is not called. Enable it first.";
            ApiError::new(Code::SubscriptionDisabled, detail)
        }
        Refused::NoAccounts(provider) => {
            let detail = format!("{provider} has no organisation whose accounts could be listed; aws and gcp have.");
            ApiError::new(Code::AccountsUnavailable, detail)
        }
        Refused::Database(error) => error.into(),
    }
}

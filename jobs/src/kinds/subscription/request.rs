//! Asking something of a subscription: the job and its audit event are there together or not at all.

use super::{
    accounts::{self, AccountsListing},
    test::Test,
};
use crate::{
    audit::{Actor, Event, EventType},
    job::Job,
    kinds::{Again, RetryRefused},
    queue::{self, Enqueued, NewJob, Requester},
    setup::database::Write,
};
use keywright_entities::{
    job,
    scope::Scope,
    subscription,
    types::{JobState, ProviderKind, Trigger},
};
use sea_orm::DbErr;
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it works.
    Test,
    /// Which further accounts there are.
    Accounts,
}

/// Why it was not asked.
#[derive(Debug, Error)]
pub enum Refused {
    /// It does not exist, or may not be seen.
    #[error("there is no such subscription")]
    NotFound,
    #[error("the subscription is disabled")]
    Disabled,
    #[error("{0} has no further accounts")]
    NoAccounts(ProviderKind),
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl Question {
    fn event(self) -> EventType {
        match self {
            Self::Test => EventType::SubscriptionTestRequested,
            Self::Accounts => EventType::SubscriptionAccountsRequested,
        }
    }

    fn job(self, subscription: Uuid, requester: Requester, trigger: Trigger) -> Result<NewJob, DbErr> {
        let new = match self {
            Self::Test => NewJob::new(&Test { subscription }, requester, trigger),
            Self::Accounts => NewJob::new(&AccountsListing { subscription }, requester, trigger),
        };
        new.map_err(|error| DbErr::Json(error.to_string()))
    }
}

/// Begins the job in the caller's transaction, or joins the one that is under way. A refusal has written nothing.
pub async fn ask(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    question: Question,
    id: Uuid,
) -> Result<Enqueued, Refused> {
    begin(write, visible, requester, question, id, None).await
}

async fn begin(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    question: Question,
    id: Uuid,
    retry_of: Option<Uuid>,
) -> Result<Enqueued, Refused> {
    let subscription = subscription::by_id(&**write, id).await?.filter(|row| visible.allows(row.id));
    let subscription = subscription.ok_or(Refused::NotFound)?;
    if !subscription.enabled {
        return Err(Refused::Disabled);
    }
    if question == Question::Accounts && !accounts::has_accounts(subscription.provider) {
        return Err(Refused::NoAccounts(subscription.provider));
    }
    let label = subscription.provider_settings().get("worker").and_then(|label| label.as_str()).map(str::to_owned);
    let trigger = if retry_of.is_some() { Trigger::Retry } else { Trigger::Api };
    let mut new = question
        .job(id, requester.clone(), trigger)?
        .of_subscription(id)
        .on_workers(label)
        .unique(id.to_string())
        .request(json!({"subscription": id}));
    if let Some(of) = retry_of {
        new = new.retrying(of);
    }
    let job = match queue::enqueue(&**write, &new).await? {
        Enqueued::New(job) => job,
        open @ Enqueued::Open(_) => return Ok(open),
    };
    let actor = Actor { actor_type: requester.actor, id: requester.id, name: requester.name };
    Event::new(question.event(), actor, "subscription")
        .subject(id)
        .job(job.id)
        .request(requester.request_id.unwrap_or_default())
        .detail("retryOf", retry_of.map(|id| id.to_string()))
        .write(&**write)
        .await?;
    Ok(Enqueued::New(job))
}

/// Asks the same again as the ended job did.
pub async fn retry(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    of: &job::Model,
    again: Again,
) -> Result<Enqueued, RetryRefused> {
    if again == Again::Failed && of.state == JobState::Succeeded {
        return Err(RetryRefused::NothingFailed);
    }
    let question = match of.kind.as_str() {
        Test::KIND => Question::Test,
        AccountsListing::KIND => Question::Accounts,
        _ => return Err(RetryRefused::Gone),
    };
    let subscription = of.subscription_id.ok_or(RetryRefused::Gone)?;
    begin(write, visible, requester, question, subscription, Some(of.id)).await.map_err(|refused| match refused {
        Refused::Database(error) => RetryRefused::Database(error),
        Refused::NotFound | Refused::Disabled | Refused::NoAccounts(_) => RetryRefused::Gone,
    })
}

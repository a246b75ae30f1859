//! Refusals in the audit log. What somebody known may not do is an event of its own. What somebody unknown tried is counted
//! per address, code and minute and becomes one event when the minute is over: a flood must not fill the log.

use super::{caller, sso};
use crate::{context::RequestContext, error::Code};
use keywright_entities::types::Outcome;
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::{clock::Clock, database::Database},
};
use poem::{Endpoint, Request, Response, Result};
use sea_orm::DbErr;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

/// Most counts of a minute; what comes from further addresses is counted together.
const MOST: usize = 10_000;
const MINUTE: i64 = 60;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    /// Since 1970.
    minute: i64,
    address: Option<String>,
    code: &'static str,
    /// Whose password was wrong.
    user: Option<Uuid>,
}

/// The counts of this process.
pub struct Denials {
    db: Database,
    clock: Clock,
    counts: Mutex<BTreeMap<Counted, u64>>,
}

impl Denials {
    pub fn new(db: Database, clock: Clock) -> Self {
        Self { db, clock, counts: Mutex::default() }
    }

    /// Counts a refusal of somebody unknown.
    pub fn count(&self, code: Code, address: Option<String>, user: Option<Uuid>) {
        let minute = self.clock.now().timestamp().div_euclid(MINUTE);
        let mut counted = Counted { minute, address, code: code.as_str(), user };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST && !counts.contains_key(&counted) {
            (counted.address, counted.user) = (None, None);
        }
        *counts.entry(counted).or_default() += 1;
    }

    /// Writes the counts of the minutes that are over, or all of them at the end of the process.
    ///
    /// # Errors
    /// When the database does not take them; they are kept for the next time.
    pub async fn write(&self, all: bool) -> Result<(), DbErr> {
        let now = self.clock.now().timestamp().div_euclid(MINUTE);
        let over: BTreeMap<Counted, u64> = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let (over, rest) = std::mem::take(&mut *counts).into_iter().partition(|(one, _)| all || one.minute < now);
            *counts = rest;
            over
        };
        if over.is_empty() {
            return Ok(());
        }
        let written = self.write_events(&over).await;
        if written.is_err() {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            over.into_iter().for_each(|(one, count)| *counts.entry(one).or_default() += count);
        }
        written
    }

    async fn write_events(&self, over: &BTreeMap<Counted, u64>) -> Result<(), DbErr> {
        let write = self.db.begin().await?;
        Event::write_all(over.iter().map(|(one, count)| event(one, *count)), &*write).await?;
        write.commit().await
    }

    /// What somebody known was refused.
    async fn known(&self, actor: Actor, code: Code, context: &RequestContext, address: Option<String>) {
        let event = Event::new(EventType::AccessDenied, actor, "operation")
            .outcome(Outcome::Denied)
            .request(context.request_id.as_str())
            .detail("code", code.as_str())
            .detail("address", address);
        let event = match context.operation() {
            Some(operation) => event.subject(&operation.id).detail("path", context.path.as_str()),
            None => event,
        };
        let written = async {
            let write = self.db.begin().await?;
            event.write(&*write).await?;
            write.commit().await
        };
        if let Err(error) = written.await {
            tracing::error!(request_id = %context.request_id, %error, "a refusal could not be audited");
        }
    }
}

fn event(one: &Counted, count: u64) -> Event {
    let login = one.code == Code::LoginFailed.as_str() || one.code.starts_with("sso_");
    let event_type = if login { EventType::LoginFailed } else { EventType::AccessDenied };
    let event = Event::new(event_type, Actor::ANONYMOUS, if login { "user" } else { "operation" })
        .outcome(Outcome::Denied)
        .detail("code", one.code)
        .detail("address", one.address.clone())
        .detail("count", count)
        .detail("minute", chrono::DateTime::from_timestamp(one.minute * MINUTE, 0).map(|minute| minute.to_rfc3339()));
    match one.user {
        Some(user) => event.subject(user),
        None => event,
    }
}

/// The layer that sees every answer.
pub struct Audited<E> {
    denials: Arc<Denials>,
    inner: E,
}

impl<E> Audited<E> {
    pub fn new(denials: Arc<Denials>, inner: E) -> Self {
        Self { denials, inner }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Audited<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let address = caller::address(&request);
        let response = self.inner.call(request).await?;
        let code = response.extensions().get::<Code>().copied();
        let context = response.extensions().get::<Arc<RequestContext>>().cloned();
        let (Some(code), Some(context)) = (code, context) else { return Ok(response) };
        match context.caller() {
            Some(actor) if is_denial(code) => self.denials.known(actor.clone(), code, &context, address).await,
            // a failed login, however it was tried, is counted where it is known whose it was
            None if code != Code::LoginFailed
                && !sso::is_counted(code)
                && (is_denial(code) || code == Code::RateLimited) =>
            {
                self.denials.count(code, address, None);
            }
            _ => {}
        }
        Ok(response)
    }
}

/// Whether somebody was refused for who they are.
fn is_denial(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        TokenMissing
            | TokenInvalid
            | TokenExpired
            | TokenRevoked
            | LoginFailed
            | PermissionDenied
            | TierRequired
            | CsrfFailed
            | PasswordChangeRequired
            | SelfApproval
    )
}

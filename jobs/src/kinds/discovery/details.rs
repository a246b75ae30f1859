//! Between the list and the inventory: which assets are looked at closely, and what becomes of those that may not be.
//!
//! What was read of an asset is kept as a patch of its list entry. While the entry stays the same and the patch is not too old, the
//! asset is published as the list and the patch make it, and no call is made.

use super::publish::{self, Entry, Known, Place, Prepared, Reached};
use crate::{
    context::Context,
    domain::inventory::{Detailed, Page, ScopeId, Warning},
    job::JobError,
    provider::{Details, NOT_FOUND, ProviderError},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, stream};
use keywright_entities::{clock, types::ScanMode};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Calls for single assets that are under way at once, of one scope.
const AT_ONCE: usize = 8;
/// Assets that are looked at closely before all that was read is published: what an interruption can cost.
const PART: usize = 100;
/// How long answers that are under way are waited for once the attempt must end: what was read before them is published within the
/// time that a process has to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// After so many refusals in a row for want of a permission, the rest of the scope is taken as refused: asking each of 100,000
/// assets would take half an hour to learn nothing.
const REFUSALS: usize = 25;

/// Publishes the pages of one listing in their order.
pub(super) struct Pages<'a> {
    context: &'a Context,
    place: &'a Arc<Place>,
    details: Option<&'a dyn Details>,
    mode: ScanMode,
    /// Of the part that comes next.
    number: u64,
    refusals: usize,
    /// The last refusal, with its permission.
    refused: Option<Warning>,
}

impl<'a> Pages<'a> {
    pub fn new(
        context: &'a Context,
        place: &'a Arc<Place>,
        details: Option<&'a dyn Details>,
        mode: ScanMode,
        number: u64,
    ) -> Self {
        Self { context, place, details, mode, number, refusals: 0, refused: None }
    }

    /// Publishes a page. The inner error is the provider's: what was read before it is published.
    pub async fn publish(&mut self, page: Page) -> Result<Result<(), ProviderError>, JobError> {
        let kind = self.place.scope.kind.as_str();
        match self.details.and_then(|details| Some((details, details.cadence(kind)?))) {
            Some((details, cadence)) => self.look_closely(details, cadence, publish::prepare(page, true)?).await,
            None => self.write(publish::prepare(page, false)?).await.map(Ok),
        }
    }

    async fn write(&mut self, part: Prepared) -> Result<(), JobError> {
        let found = publish::page(self.context, self.place, self.number, part).await?;
        self.number += 1;
        self.context.report("list", found, None);
        Ok(())
    }

    async fn look_closely(
        &mut self,
        details: &dyn Details,
        cadence: Duration,
        page: Prepared,
    ) -> Result<Result<(), ProviderError>, JobError> {
        let reader = self.context.database.reader();
        let external_ids = page.assets.keys().map(String::as_str);
        let mut known = publish::known_details(reader, self.place, external_ids).await?;
        let freshness = Freshness::of(
            self.mode,
            details.has_change_token(&self.place.scope.kind),
            Times { now: clock::now(reader).await?, asked: self.context.job.created_at, cadence },
        );
        let mut part =
            Part { warnings: page.warnings, once: freshness.told(&self.place.scope.kind), ..Part::default() };
        let mut rest = page.assets.into_iter().peekable();
        loop {
            let mut closely = Vec::new();
            while closely.len() < PART
                && let Some((id, entry)) = rest.next()
            {
                let known = known.remove(&id).unwrap_or_default();
                if freshness.is_enough(&known, &entry) {
                    part.assets.insert(id, entry.with_known(known.details)?);
                } else {
                    closely.push((entry, known));
                }
            }
            let failed = self.complete(details, closely, &mut part).await?;
            let reached = match (&failed, rest.peek()) {
                (None, None) => page.reached.clone(),
                _ => Reached::PartOfPage,
            };
            let done = reached != Reached::PartOfPage;
            if done || !part.is_empty() {
                self.write(std::mem::take(&mut part).prepared(reached)).await?;
            }
            match failed {
                Some(error) => return Ok(Err(error)),
                None if done => return Ok(Ok(())),
                None => {}
            }
        }
    }

    /// Looks closely at these. An error that concerns more than one asset ends it, and is returned; what is under way by then is
    /// waited for, so that its answers are not lost.
    async fn complete(
        &mut self,
        details: &dyn Details,
        closely: Vec<(Entry, Known)>,
        part: &mut Part,
    ) -> Result<Option<ProviderError>, JobError> {
        let scope = &self.place.scope;
        let mut waiting = closely.into_iter();
        let mut under_way = stream::FuturesUnordered::new();
        let (mut ended, mut until) = (None, None);
        let stopped = self.context.lease.stopped();
        tokio::pin!(stopped);
        loop {
            while ended.is_none()
                && under_way.len() < AT_ONCE
                && let Some((entry, known)) = waiting.next()
            {
                match self.refused.clone().filter(|_| self.refusals >= REFUSALS) {
                    Some(refused) => part.keep(entry, known, Told::Once(refused))?,
                    None => under_way.push(ask(details, scope, entry, known)),
                }
            }
            let answered = match until {
                None => tokio::select! {
                    biased;
                    answered = under_way.next() => answered,
                    why = &mut stopped => {
                        ended = Some(ProviderError::Stopped(why));
                        until = Some(Instant::now() + LAST_ANSWERS);
                        continue;
                    }
                },
                Some(until) => tokio::time::timeout_at(until, under_way.next()).await.ok().flatten(),
            };
            let Some((entry, known, answer)) = answered else { return Ok(ended) };
            match answer {
                Ok(detailed) => {
                    self.refusals = 0;
                    part.take(entry, known, detailed)?;
                }
                Err(ProviderError::Denied { detail, permission }) => {
                    let refused = Warning::denied(permission.unwrap_or_default(), missing(&detail));
                    self.refusals += 1;
                    self.refused = Some(refused.clone());
                    part.keep(entry, known, Told::Once(refused))?;
                }
                // it vanished since it was listed
                Err(ProviderError::Rejected { code, .. }) if code == NOT_FOUND => {}
                Err(ProviderError::Rejected { code, detail }) => {
                    let path = entry.observed.external_id.clone();
                    part.keep(entry, known, Told::Each(Warning::new(path, &code, missing(&detail))))?;
                }
                Err(
                    error @ (ProviderError::Unauthenticated { .. }
                    | ProviderError::Throttled { .. }
                    | ProviderError::Unavailable { .. }
                    | ProviderError::PageExpired
                    | ProviderError::Stopped(_)),
                ) => ended = Some(weightier(ended, error)),
            }
        }
    }
}

/// Why a listing ends here, of two reasons: that it must, then that it is throttled and comes back as if nothing had happened.
fn weightier(before: Option<ProviderError>, now: ProviderError) -> ProviderError {
    let weight = |error: &ProviderError| match error {
        ProviderError::Stopped(_) => 2,
        ProviderError::Throttled { .. } => 1,
        _ => 0,
    };
    match before {
        Some(before) if weight(&before) >= weight(&now) => before,
        _ => now,
    }
}

async fn ask(
    details: &dyn Details,
    scope: &ScopeId,
    entry: Entry,
    known: Known,
) -> (Entry, Known, Result<Detailed, ProviderError>) {
    let answer = details.complete(scope, entry.observed.clone()).await;
    (entry, known, answer)
}

fn missing(detail: &str) -> String {
    format!("Details are missing, or as they were read before: {detail}.")
}

/// How a warning is told.
enum Told {
    /// However often it comes in this listing.
    Once(Warning),
    Each(Warning),
}

/// What is ready to be published together.
#[derive(Default)]
struct Part {
    assets: BTreeMap<String, Entry>,
    warnings: Vec<Warning>,
    once: Vec<Warning>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.assets.is_empty() && self.warnings.is_empty() && self.once.is_empty()
    }

    fn take(&mut self, entry: Entry, known: Known, detailed: Detailed) -> Result<(), JobError> {
        let (denied, others): (Vec<_>, Vec<_>) =
            detailed.warnings.into_iter().partition(|warning| warning.code == Warning::DETAILS_DENIED);
        let entry = entry.completed(detailed.asset, known.details.as_ref(), denied.is_empty())?;
        self.assets.insert(entry.observed.external_id.clone(), entry);
        denied.into_iter().for_each(|warning| self.tell(Told::Once(warning)));
        others.into_iter().for_each(|warning| self.tell(Told::Each(warning)));
        Ok(())
    }

    /// The asset as the list and what was read earlier tell it.
    fn keep(&mut self, entry: Entry, known: Known, told: Told) -> Result<(), JobError> {
        self.assets.insert(entry.observed.external_id.clone(), entry.with_old(known.details)?);
        self.tell(told);
        Ok(())
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::Once(warning) => {
                if !self.once.iter().any(|one| (&one.code, &one.path) == (&warning.code, &warning.path)) {
                    self.once.push(publish::plain(warning));
                }
            }
            Told::Each(warning) => self.warnings.push(publish::plain(warning)),
        }
    }

    fn prepared(self, reached: Reached) -> Prepared {
        Prepared { assets: self.assets, warnings: self.warnings, once: self.once, reached }
    }
}

/// By the database's clock.
#[derive(Clone, Copy)]
struct Times {
    now: DateTime<Utc>,
    /// When the listing was asked for.
    asked: DateTime<Utc>,
    cadence: Duration,
}

/// Which details are good enough to be kept.
struct Freshness {
    mode: ScanMode,
    fell_back: bool,
    times: Times,
}

impl Freshness {
    fn of(mode: ScanMode, has_change_token: bool, times: Times) -> Self {
        let fell_back = mode == ScanMode::Delta && !has_change_token;
        Self { mode: if fell_back { ScanMode::Full } else { mode }, fell_back, times }
    }

    fn told(&self, kind: &str) -> Vec<Warning> {
        let detail = "The list of this kind does not tell when an asset changed: it was looked at as by a full scan.";
        self.fell_back.then(|| Warning::new(kind, "delta_fell_back", detail)).into_iter().collect()
    }

    /// An asset whose identifier had to be cut cannot be asked about.
    fn is_enough(&self, known: &Known, entry: &Entry) -> bool {
        let Some(listed) = &entry.listed else { return true };
        !listed.by_own_id
            || (known.removed_at.is_none()
                && listed.hash.is_some()
                && known.listed_hash == listed.hash
                && self.is_fresh(known.detailed_at))
    }

    fn is_fresh(&self, detailed_at: Option<DateTime<Utc>>) -> bool {
        let Times { now, asked, cadence } = self.times;
        let cadence = TimeDelta::from_std(cadence).unwrap_or(TimeDelta::MAX);
        match (self.mode, detailed_at) {
            (ScanMode::Delta, _) => true,
            (_, None) => false,
            // what an interrupted attempt at this listing read is not read again
            (ScanMode::Force, Some(at)) => at >= asked,
            (ScanMode::Full, Some(at)) => now - at < cadence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_says_how_old_details_may_be() {
        let now: DateTime<Utc> = "2026-05-20T10:30:00Z".parse().unwrap();
        let hours = |hours: i64| Some(now - TimeDelta::hours(hours));
        let times = Times { now, asked: now - TimeDelta::hours(1), cadence: Duration::from_secs(86_400) };
        let fresh = |mode, token, at| Freshness::of(mode, token, times).is_fresh(at);
        for (mode, token, at, expected) in [
            (ScanMode::Full, true, None, false),
            (ScanMode::Full, true, hours(23), true),
            (ScanMode::Full, true, hours(24), false),
            (ScanMode::Force, true, hours(2), false),
            (ScanMode::Force, true, hours(0), true),
            (ScanMode::Delta, true, hours(1000), true),
            (ScanMode::Delta, true, None, true),
            (ScanMode::Delta, false, hours(1000), false),
            (ScanMode::Delta, false, hours(23), true),
        ] {
            assert_eq!(fresh(mode, token, at), expected, "{mode} {token} {at:?}");
        }
        let told = |mode, token| Freshness::of(mode, token, times).told("kind").len();
        assert_eq!((told(ScanMode::Delta, false), told(ScanMode::Delta, true), told(ScanMode::Full, false)), (1, 0, 0));
    }
}

//! Compares what clients were answered, what the double wrote down, and the database.

use super::{
    clients::{Answered, Said},
    cloud::Step,
    double::{Double, Entry},
    history,
};
use keywright_entities::{asset, asset_version, audit_outbox, job, subscription, types::JobState};
use keywright_jobs::setup::database::Database;
use sea_orm::{DbErr, EntityTrait};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::{self, Display, Formatter},
};
use uuid::Uuid;

/// A promise that was not kept, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub promise: &'static str,
    pub what: String,
}

impl Display for Breach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

pub(super) fn breach(promise: &'static str, what: impl Into<String>) -> Breach {
    Breach { promise, what: what.into() }
}

pub const ACCEPTED: &str = "what was accepted exists, and nothing else";
pub const ENDED: &str = "every job ends";
pub const ONCE: &str = "an outcome is recorded once";
pub const WORK: &str = "a success has done its work";
pub const FENCED: &str = "a lost attempt asks for nothing more";
pub const ASSETS: &str = "every asset is there once";
pub const PARENTS: &str = "a parent sums its children up";
pub const ATTEMPTS: &str = "only the job's own errors cost attempts";
pub const RESCUES: &str = "only lost workers cost rescues";
pub const OUTCOMES: &str = "jobs end as they should";
pub const REPEATS: &str = "nothing is asked for twice without a fault";

/// What the faults of a trial excuse.
#[derive(Clone, Debug)]
pub struct Allow {
    /// Most rescues of all jobs together.
    pub rescues: i32,
    /// With which codes jobs may fail.
    pub failures: &'static [&'static str],
    /// Whether a step may be asked for more than once under the same job.
    pub repeats: bool,
    /// The highest attempt with which a job may end.
    pub attempt: i32,
    /// A refusal with 5xx may have been a commit whose answer the database did not give.
    pub unsure: bool,
}

impl Allow {
    /// Nothing: whatever happened must not show.
    pub const NOTHING: Self = Self { rescues: 0, failures: &[], repeats: false, attempt: 1, unsure: false };

    /// Workers were killed or frozen this often.
    pub const fn losses(rescues: i32) -> Self {
        Self { rescues, failures: &["worker_lost", "all_scopes_failed"], repeats: true, ..Self::NOTHING }
    }
}

/// What there is to judge by.
pub struct Evidence {
    answers: Vec<Answered>,
    journal: Vec<Entry>,
    jobs: Vec<job::Model>,
    subscriptions: Vec<subscription::Model>,
    assets: Vec<asset::Model>,
    versions: Vec<asset_version::Model>,
    events: Vec<audit_outbox::Model>,
}

impl Evidence {
    pub async fn gather(db: &Database, answers: Vec<Answered>, double: &Double) -> Result<Self, DbErr> {
        Ok(Self {
            answers,
            journal: double.journal(),
            jobs: job::Entity::find().all(db.reader()).await?,
            subscriptions: subscription::Entity::find().all(db.reader()).await?,
            assets: asset::Entity::find().all(db.reader()).await?,
            versions: asset_version::Entity::find().all(db.reader()).await?,
            events: audit_outbox::Entity::find().all(db.reader()).await?,
        })
    }

    /// Every promise that was not kept.
    pub fn judge(&self, double: &Double, allow: &Allow) -> Vec<Breach> {
        let mut breaches = Vec::new();
        self.accepted(&mut breaches, allow);
        self.outcomes(&mut breaches, allow);
        self.parents(&mut breaches);
        self.requests(&mut breaches, allow);
        self.work(&mut breaches, double);
        breaches
    }

    fn accepted(&self, breaches: &mut Vec<Breach>, allow: &Allow) {
        let mut known: HashSet<Uuid> = HashSet::new();
        let mut may_exist: HashSet<&str> = HashSet::new();
        for Answered { request_id, said } in &self.answers {
            match said {
                Said::Accepted(id) => {
                    known.insert(*id);
                }
                Said::Lost => {
                    may_exist.insert(request_id);
                }
                Said::Refused(500..) if allow.unsure => {
                    may_exist.insert(request_id);
                }
                Said::Refused(_) => {}
            }
        }
        let there: HashSet<Uuid> = self.jobs.iter().map(|job| job.id).collect();
        for id in known.difference(&there) {
            breaches.push(breach(ACCEPTED, format!("{id} was accepted and does not exist")));
        }
        for job in self.jobs.iter().filter(|job| job.parent_id.is_none() && !known.contains(&job.id)) {
            if !job.request_id.as_deref().is_some_and(|id| may_exist.contains(id)) {
                breaches.push(breach(ACCEPTED, format!("nobody was told of {job:?}")));
            }
        }
    }

    fn outcomes(&self, breaches: &mut Vec<Breach>, allow: &Allow) {
        let mut told: HashMap<(Uuid, &str), usize> = HashMap::new();
        for event in &self.events {
            if let Some(job) = event.job_id {
                *told.entry((job, &event.event_type)).or_default() += 1;
            }
        }
        let told = |job: &job::Model, event| told.get(&(job.id, event)).copied().unwrap_or(0);
        for job in &self.jobs {
            if job.completed_at.is_none() {
                breaches.push(breach(ENDED, format!("{job:?}")));
            }
            if let Err(why) = history::shape(job) {
                breaches.push(breach(ONCE, format!("{why}: {job:?}")));
            }
            let top = usize::from(job.parent_id.is_none());
            if told(job, "job.ended") != top {
                breaches.push(breach(ONCE, format!("{} ends of {job:?}", told(job, "job.ended"))));
            }
            if told(job, "job.started") != top && job.started_at.is_some() {
                breaches.push(breach(ONCE, format!("{} starts of {job:?}", told(job, "job.started"))));
            }
            if job.attempt > allow.attempt || job.attempt > job.max_attempts {
                breaches.push(breach(ATTEMPTS, format!("{job:?}")));
            }
            if job.error_code.as_deref() == Some("worker_lost") && job.rescues != 3 || job.rescues > 3 {
                breaches.push(breach(RESCUES, format!("{job:?}")));
            }
            let failure = job.error_code.as_deref().is_some_and(|code| !allow.failures.contains(&code));
            let partly = job.state == JobState::Partial && allow.failures.is_empty();
            if failure || partly || !matches!(job.state, JobState::Succeeded | JobState::Partial | JobState::Failed) {
                breaches.push(breach(OUTCOMES, format!("{job:?}")));
            }
        }
        let rescues: i32 = self.jobs.iter().map(|job| job.rescues).sum();
        if rescues > allow.rescues {
            breaches.push(breach(RESCUES, format!("{rescues} rescues, of which {} had a reason", allow.rescues)));
        }
    }

    fn parents(&self, breaches: &mut Vec<Breach>) {
        let mut children: HashMap<Uuid, Vec<&job::Model>> = HashMap::new();
        for job in &self.jobs {
            if let Some(parent) = job.parent_id {
                children.entry(parent).or_default().push(job);
            }
        }
        for parent in &self.jobs {
            let children = children.get(&parent.id).map(Vec::as_slice).unwrap_or_default();
            let ended =
                |state| i32::try_from(children.iter().filter(|child| child.state == state).count()).unwrap_or(i32::MAX);
            let are = (ended(JobState::Succeeded), ended(JobState::Failed), ended(JobState::Canceled));
            let failed = parent.children_failed + parent.children_denied;
            let counted = (parent.children_succeeded, failed, parent.children_canceled);
            let found = |job: &job::Model| job.counts.as_ref().and_then(|counts| counts["found"].as_i64()).unwrap_or(0);
            let sum: i64 = children.iter().map(|child| found(child)).sum();
            let total = usize::try_from(parent.children_total).unwrap_or_default();
            if are != counted || total != children.len() || !children.is_empty() && sum != found(parent) {
                breaches.push(breach(PARENTS, format!("{are:?} children with {sum} assets in {parent:?}")));
            }
        }
    }

    fn requests(&self, breaches: &mut Vec<Breach>, allow: &Allow) {
        let mut newest: HashMap<Uuid, i64> = HashMap::new();
        let mut late: HashMap<(Uuid, i64, &str), Vec<u64>> = HashMap::new();
        let mut holders: HashMap<(Uuid, i64), &str> = HashMap::new();
        let mut steps: HashMap<(Uuid, &Step, &str), usize> = HashMap::new();
        for Entry { number, ask, .. } in &self.journal {
            let newest = newest.entry(ask.job).or_insert(ask.epoch);
            if ask.epoch < *newest {
                late.entry((ask.job, ask.epoch, &ask.account)).or_default().push(*number);
            }
            *newest = ask.epoch.max(*newest);
            let holder = *holders.entry((ask.job, ask.epoch)).or_insert(&ask.worker);
            if holder != ask.worker {
                breaches.push(breach(FENCED, format!("{holder} and {} held {} at once", ask.worker, ask.job)));
            }
            *steps.entry((ask.job, &ask.step, &ask.account)).or_default() += 1;
        }
        // the one that had been handed over before the freeze may still arrive
        for (attempt, numbers) in late.into_iter().filter(|(_, numbers)| numbers.len() > 1) {
            breaches.push(breach(FENCED, format!("{attempt:?} asked in {numbers:?}")));
        }
        for (step, times) in steps.into_iter().filter(|(_, times)| *times > 1 && !allow.repeats) {
            breaches.push(breach(REPEATS, format!("{step:?} was asked for {times} times")));
        }
    }

    /// Each listing that succeeded asked for every page, and what the pages hold is there once.
    fn work(&self, breaches: &mut Vec<Breach>, double: &Double) {
        let mut asked: HashSet<(Uuid, &Step)> = HashSet::new();
        asked.extend(self.journal.iter().map(|entry| (entry.ask.job, &entry.ask.step)));
        let mut expected: BTreeSet<(Uuid, String)> = BTreeSet::new();
        let accounts: HashMap<Uuid, &str> =
            self.subscriptions.iter().map(|row| (row.id, row.external_id.as_str())).collect();
        for job in self.jobs.iter().filter(|job| job.state == JobState::Succeeded && job.parent_id.is_some()) {
            let Some((subscription, region)) = job.subscription_id.zip(job.scope_region.as_deref()) else { continue };
            let Some(account) = accounts.get(&subscription) else { continue };
            let plan = double.plan_of(account);
            let mut found = 0;
            for step in plan.steps() {
                let Step::Page { region: of, page } = &step else { continue };
                if of != region {
                    continue;
                }
                if !asked.contains(&(job.id, &step)) {
                    breaches.push(breach(WORK, format!("{step:?} was never asked for by {job:?}")));
                }
                let names = plan.names(account, region, *page);
                found += names.len();
                expected.extend(names.into_iter().map(|name| (subscription, name)));
            }
            if job.counts.as_ref().map(|counts| &counts["found"]) != Some(&Value::from(found)) {
                breaches.push(breach(WORK, format!("{found} assets were to be found by {job:?}")));
            }
        }
        let mut there: BTreeMap<(Uuid, String), usize> = BTreeMap::new();
        for asset in &self.assets {
            *there.entry((asset.subscription_id, asset.name.clone())).or_default() += 1;
            if asset.removed_at.is_some() || asset.version != 1 {
                breaches.push(breach(ASSETS, format!("nothing ever changed: {asset:?}")));
            }
        }
        for name in expected.iter().filter(|name| !there.contains_key(name)) {
            breaches.push(breach(WORK, format!("{name:?} was found and is not there")));
        }
        for (name, count) in there.iter().filter(|(_, count)| **count != 1) {
            breaches.push(breach(ASSETS, format!("{name:?} is there {count} times")));
        }
        if self.versions.len() != self.assets.len() {
            let (versions, assets) = (self.versions.len(), self.assets.len());
            breaches.push(breach(ASSETS, format!("{versions} versions of {assets} assets that never changed")));
        }
    }
}

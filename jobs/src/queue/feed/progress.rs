//! How far jobs have come, for those who follow them: the latest word only, whatever was before it.

use super::Shared;
use crate::{kinds, queue::overview};
use keywright_entities::job;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

/// How many jobs are looked up at once.
const CHUNK: usize = 500;
/// Of how many jobs under way those hear who follow all: the youngest ones.
const OF_ALL: u64 = 500;

/// A job under way, and what its open parts have counted so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub job: job::Model,
    pub open: Option<Json>,
}

/// What one follower has not heard yet.
#[derive(Default)]
pub(super) struct Latest {
    of: Mutex<BTreeMap<Uuid, Arc<Progress>>>,
    came: Notify,
}

impl Latest {
    fn put(&self, progress: &Arc<Progress>) {
        self.lock().insert(progress.job.id, Arc::clone(progress));
        self.came.notify_one();
    }

    pub(super) fn forget(&self, job: Uuid) {
        self.lock().remove(&job);
    }

    pub(super) async fn taken(&self) -> Vec<Arc<Progress>> {
        loop {
            let taken = std::mem::take(&mut *self.lock());
            if !taken.is_empty() {
                return taken.into_values().collect();
            }
            self.came.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Progress>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for jobs whose version has moved.
pub(super) struct Looker {
    pace: Duration,
    next: Instant,
    /// It was told of news before it was to look again.
    put_off: bool,
    versions: HashMap<Uuid, i64>,
}

impl Looker {
    pub(super) fn new(pace: Duration) -> Self {
        Self { pace, next: Instant::now(), put_off: false, versions: HashMap::new() }
    }

    /// Ends when a look that was put off is due.
    pub(super) async fn due(&self) {
        if self.put_off { tokio::time::sleep_until(self.next).await } else { std::future::pending().await }
    }

    /// Nobody follows.
    pub(super) fn rest(&mut self) {
        self.put_off = false;
        self.versions.clear();
    }

    pub(super) async fn look(&mut self, feed: &Shared) -> Result<(), DbErr> {
        let now = Instant::now();
        self.put_off = now < self.next;
        if self.put_off {
            return Ok(());
        }
        self.next = now + self.pace;
        let mut seen = HashMap::new();
        for condition in self.followed(feed) {
            seen.extend(versions(feed, condition).await?);
        }
        let moved: Vec<Uuid> =
            seen.iter().filter(|(id, version)| self.versions.get(*id) != Some(*version)).map(|(id, _)| *id).collect();
        for chunk in moved.chunks(CHUNK) {
            tell(feed, chunk).await?;
        }
        self.versions = seen;
        Ok(())
    }

    /// Which jobs to look at.
    fn followed(&mut self, feed: &Shared) -> Vec<Condition> {
        let mut followers = feed.lock();
        for fresh in std::mem::take(&mut followers.fresh) {
            self.versions.remove(&fresh);
        }
        let ids: Vec<Uuid> = followers.of_jobs.keys().copied().collect();
        let mut conditions: Vec<Condition> =
            ids.chunks(CHUNK).map(|ids| Condition::all().add(job::Column::Id.is_in(ids.iter().copied()))).collect();
        if !followers.of_all.is_empty() {
            let has_any =
                Condition::any().add(job::Column::Progress.is_not_null()).add(job::Column::ChildrenTotal.gt(0));
            let top_level = Condition::all()
                .add(job::Column::ParentId.is_null())
                .add(job::Column::State.is_in(["running", "canceling"]));
            conditions.push(top_level.add(has_any));
        }
        conditions
    }
}

async fn versions(feed: &Shared, which: Condition) -> Result<Vec<(Uuid, i64)>, DbErr> {
    job::Entity::find()
        .select_only()
        .columns([job::Column::Id, job::Column::Version])
        .filter(which)
        .filter(job::Column::CompletedAt.is_null())
        .order_by_desc(job::Column::CreatedAt)
        .order_by_desc(job::Column::Id)
        .limit(OF_ALL)
        .into_tuple()
        .all(feed.database.reader())
        .await
}

async fn tell(feed: &Shared, moved: &[Uuid]) -> Result<(), DbErr> {
    let db = feed.database.reader();
    let rows = job::Entity::find()
        .filter(job::Column::Id.is_in(moved.iter().copied()))
        .filter(job::Column::CompletedAt.is_null())
        .all(db)
        .await?;
    let mut open = overview::open_counts(db, &rows).await?;
    let followers = feed.lock();
    for job in rows {
        let progress = Arc::new(Progress { open: open.remove(&job.id), job });
        let job = &progress.job;
        for outlet in followers.of_jobs.get(&job.id).into_iter().flatten() {
            outlet.latest.put(&progress);
        }
        if job.parent_id.is_none() && !followers.of_all.is_empty() {
            let subscriptions =
                job.subscription_id.map_or_else(|| kinds::subscriptions(&job.kind, &job.payload), |one| vec![one]);
            for (filter, outlet) in &followers.of_all {
                if filter.admits(&job.kind, &subscriptions, None) {
                    outlet.latest.put(&progress);
                }
            }
        }
    }
    Ok(())
}

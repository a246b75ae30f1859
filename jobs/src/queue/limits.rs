//! How many jobs of a kind, and of a subscription, all workers of a database together may hold.
//!
//! Whoever claims jobs that a limit applies to counts what is held under a lock, so that the limit is never exceeded. Jobs for
//! which there is no room step aside when a claim comes to them: they leave the line's index, so that whoever stands behind them is
//! found as fast as before, but keep their place. Aside they stand in groups that share the same room; a claim looks at the first
//! of each group that has room. So nobody has to let them back in when a place is freed: the next claim finds them, and the commit
//! that frees a place is the news that wakes claimers.
//!
//! Without limits nothing of this is asked, but for a look once a second whether somebody stands aside.

use super::{
    claim::{Capability, Claimable, Since, begin_sql, marks},
    line::{self, IN_LINE, ORDER, READY, READY_WAITS},
    rows,
};
use crate::setup::database::{Database, Write};
use chrono::{DateTime, Utc};
use keywright_entities::{clock, job};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Value};
use serde_json::Value as Json;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};
use uuid::Uuid;

/// How many in line one claim looks at for those that must step aside.
const WINDOW: usize = 1000;
/// How many one transaction lets back into the line.
const BATCH: usize = 500;
/// The advisory lock under which claims of limited jobs take turns on PostgreSQL.
const LOCK: i64 = 0x6b65_7977_6c69_6d73;

/// The most that may be held at once; what is not named has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By kind.
    pub kinds: BTreeMap<String, u32>,
    /// Of each subscription, whatever their kinds.
    pub subscription: Option<u32>,
}

impl Limits {
    /// Whether there is none at all.
    pub fn are_off(&self) -> bool {
        self.kinds.is_empty() && self.subscription.is_none()
    }

    fn apply_to(&self, kind: &str, subscription: Option<Uuid>) -> bool {
        self.kinds.contains_key(kind) || (self.subscription.is_some() && subscription.is_some())
    }

    /// Whether these limits would put jobs into this group: others may have been in force when it was made.
    fn make(&self, group: &Group) -> bool {
        group.by_subscription == self.subscription.is_some() && self.apply_to(&group.kind, group.subscription)
    }
}

/// Those that share the same room: jobs of one kind and, where subscriptions are limited, of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    kind: String,
    by_subscription: bool,
    subscription: Option<Uuid>,
}

impl Group {
    /// `KIND`, or `KIND/SUBSCRIPTION` where subscriptions are limited, `-` being none.
    fn parse(name: String) -> Self {
        let (kind, subscription) = match name.split_once('/') {
            Some((kind, subscription)) => (kind.to_owned(), Some(subscription)),
            None => (name.clone(), None),
        };
        let by_subscription = subscription.is_some();
        Self { kind, by_subscription, subscription: subscription.and_then(|id| Uuid::parse_str(id).ok()), name }
    }

    /// SQL for the name of a job's group.
    fn name_sql(backend: DbBackend, limits: &Limits) -> &'static str {
        match (limits.subscription, backend) {
            (None, _) => "kind",
            (Some(_), DbBackend::Sqlite) => "kind || '/' || COALESCE(lower(hex(subscription_id)), '-')",
            (Some(_), _) => "kind || '/' || COALESCE(subscription_id::text, '-')",
        }
    }
}

/// What is still free under the limits.
#[derive(Debug)]
struct Room<'a> {
    limits: &'a Limits,
    kinds: HashMap<String, u32>,
    subscriptions: HashMap<Uuid, u32>,
}

impl<'a> Room<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, kinds: HashMap::new(), subscriptions: HashMap::new() }
    }

    /// What all workers hold now, claimed ahead or begun.
    async fn by_what_is_held(limits: &'a Limits, db: &impl ConnectionTrait) -> Result<Self, DbErr> {
        const HELD: &str = "SELECT kind, subscription_id, COUNT(*) AS jobs FROM job WHERE lease_until IS NOT NULL \
            GROUP BY kind, subscription_id";
        let mut room = Self::new(limits);
        for row in db.query_all_raw(clock::statement(db.get_database_backend(), HELD, [])).await? {
            let jobs: i64 = row.try_get("", "jobs")?;
            let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
            room.fill(&row.try_get::<String>("", "kind")?, row.try_get("", "subscription_id")?, jobs);
        }
        Ok(room)
    }

    fn fill(&mut self, kind: &str, subscription: Option<Uuid>, jobs: u32) {
        if self.limits.kinds.contains_key(kind) {
            let held = self.kinds.entry(kind.to_owned()).or_default();
            *held = held.saturating_add(jobs);
        }
        if let (Some(_), Some(id)) = (self.limits.subscription, subscription) {
            let held = self.subscriptions.entry(id).or_default();
            *held = held.saturating_add(jobs);
        }
    }

    fn is_kind_full(&self, kind: &str) -> bool {
        let held = self.kinds.get(kind).copied().unwrap_or_default();
        self.limits.kinds.get(kind).is_some_and(|most| held >= *most)
    }

    fn is_subscription_full(&self, subscription: Option<Uuid>) -> bool {
        let held = subscription.and_then(|id| self.subscriptions.get(&id)).copied().unwrap_or_default();
        self.limits.subscription.is_some_and(|most| subscription.is_some() && held >= most)
    }

    fn is_full(&self, kind: &str, subscription: Option<Uuid>) -> bool {
        self.is_kind_full(kind) || self.is_subscription_full(subscription)
    }

    /// Whether there was room for one more, which is taken now.
    fn take(&mut self, kind: &str, subscription: Option<Uuid>) -> bool {
        let free = !self.is_full(kind, subscription);
        if free {
            self.fill(kind, subscription, 1);
        }
        free
    }
}

/// A job that may be claimed if there is room.
#[derive(Clone, Debug, FromQueryResult)]
struct Candidate {
    id: Uuid,
    kind: String,
    subscription_id: Option<Uuid>,
    priority: i32,
    turn: i64,
    due_at: DateTime<Utc>,
    over_limit: Option<String>,
}

/// What of the candidates is claimed, and the kinds and subscriptions that have no room for those in line.
#[derive(Debug, Default, PartialEq)]
struct Choice {
    chosen: Vec<Uuid>,
    full_kinds: BTreeSet<String>,
    full_subscriptions: BTreeSet<Uuid>,
}

impl Choice {
    /// At most `free`, in the line's order.
    fn among(mut candidates: Vec<Candidate>, room: &mut Room<'_>, free: usize) -> Self {
        candidates.sort_by_key(|one| (Reverse(one.priority), one.turn, one.due_at, one.id));
        let mut choice = Self::default();
        for one in candidates {
            if choice.chosen.len() == free {
                break;
            }
            if room.take(&one.kind, one.subscription_id) {
                choice.chosen.push(one.id);
            } else if one.over_limit.is_none() {
                if room.is_kind_full(&one.kind) {
                    choice.full_kinds.insert(one.kind);
                } else {
                    choice.full_subscriptions.extend(one.subscription_id);
                }
            }
        }
        choice
    }

    fn is_anybody_over(&self) -> bool {
        !(self.full_kinds.is_empty() && self.full_subscriptions.is_empty())
    }
}

/// Claims at most `free` of those in line and aside, as the limits allow, and lets the others of what is full step aside. Tells
/// what was claimed, and whether anybody stepped aside: then there may be more behind them.
pub(super) async fn claim(
    write: &Write,
    can: &Capability,
    free: usize,
    since: Option<Since>,
) -> Result<(Vec<job::Model>, bool), DbErr> {
    let (db, backend, limits) = (&**write, write.get_database_backend(), &can.limits);
    let groups = groups(db).await?;
    let mut room = None;
    if !groups.is_empty() {
        room = Some(counted(limits, db).await?);
    }
    let open: Vec<Json> = match &room {
        Some(room) => groups
            .into_iter()
            .filter(|group| !room.is_full(&group.kind, group.subscription))
            .map(|group| group.name.into())
            .collect(),
        None => Vec::new(),
    };
    let candidates = candidates(db, can, free, since, open).await?;
    let mut room = match room {
        Some(room) => room,
        None if candidates.iter().any(|one| limits.apply_to(&one.kind, one.subscription_id)) => {
            counted(limits, db).await?
        }
        None => Room::new(limits),
    };
    let choice = Choice::among(candidates, &mut room, free);
    let claimed = if choice.chosen.is_empty() {
        Vec::new()
    } else {
        let mut values: Vec<Value> = vec![can.worker.into()];
        let chosen = marks(&mut values, choice.chosen.iter().map(|id| Value::from(*id)));
        let due = format!("SELECT * FROM job WHERE id IN ({chosen})");
        rows(db, clock::statement(backend, &begin_sql(backend, can, &due), values)).await?
    };
    let stepped_aside = choice.is_anybody_over() && step_aside(db, can, free, &choice).await?;
    Ok((claimed, stepped_aside))
}

/// The room, once nobody else claims what is limited before this transaction ends.
async fn counted<'a>(limits: &'a Limits, db: &impl ConnectionTrait) -> Result<Room<'a>, DbErr> {
    let backend = db.get_database_backend();
    // on SQLite every write is alone; here, what others claimed shows in the statements after this one
    if backend == DbBackend::Postgres {
        let lock = clock::statement(backend, "SELECT pg_advisory_xact_lock($1)", [LOCK.into()]);
        db.execute_raw(lock).await?;
    }
    Room::by_what_is_held(limits, db).await
}

/// The groups that stand aside, by one look into the index for each.
async fn groups(db: &impl ConnectionTrait) -> Result<Vec<Group>, DbErr> {
    const GROUPS: &str = "WITH RECURSIVE aside(name) AS (\
        SELECT MIN(over_limit) FROM job WHERE over_limit IS NOT NULL \
        UNION ALL SELECT (SELECT MIN(over_limit) FROM job WHERE over_limit IS NOT NULL AND over_limit > aside.name) \
          FROM aside WHERE aside.name IS NOT NULL) \
        SELECT name FROM aside WHERE name IS NOT NULL";
    let found = db.query_all_raw(clock::statement(db.get_database_backend(), GROUPS, [])).await?;
    found.iter().map(|row| row.try_get("", "name").map(Group::parse)).collect()
}

/// The first `free` of those that this worker may claim in line, and of each of these groups.
async fn candidates(
    db: &impl ConnectionTrait,
    can: &Capability,
    free: usize,
    since: Option<Since>,
    open: Vec<Json>,
) -> Result<Vec<Candidate>, DbErr> {
    let backend = db.get_database_backend();
    let mut claimable = Claimable::by(can);
    let columns = "id, kind, subscription_id, priority, turn, due_at, over_limit";
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let in_line = claimable.first(backend, columns, free, since);
    let Claimable { condition, mut values } = claimable;
    let mut text = format!("SELECT * FROM ({in_line}) AS line");
    if !open.is_empty() {
        values.push(Json::Array(open).into());
        let first = |columns: &str, name: &str| {
            format!(
                "SELECT {columns} FROM job WHERE over_limit = {name} AND {condition} ORDER BY {ORDER} LIMIT {free} {skip}"
            )
        };
        let number = values.len();
        let aside = match backend {
            DbBackend::Sqlite => format!(
                "SELECT {} FROM json_each(${number}) AS open JOIN job AS aside ON aside.id IN ({})",
                columns.split(", ").map(|column| format!("aside.{column}")).collect::<Vec<_>>().join(", "),
                first("job.id", "open.value"),
            ),
            _ => format!(
                "SELECT aside.* FROM jsonb_array_elements_text(${number}) AS open(name) CROSS JOIN LATERAL ({}) AS aside",
                first(columns, "open.name"),
            ),
        };
        text = format!("{text} UNION ALL SELECT * FROM ({aside}) AS others");
    }
    Candidate::find_by_statement(clock::statement(backend, &text, values)).all(db).await
}

/// Lets those step aside whose kind or subscription is full, of the first that this worker may claim. Tells whether there were any.
async fn step_aside(db: &impl ConnectionTrait, can: &Capability, free: usize, choice: &Choice) -> Result<bool, DbErr> {
    let backend = db.get_database_backend();
    let Claimable { condition, mut values } = Claimable::by(can);
    let kinds = marks(&mut values, choice.full_kinds.iter().map(|kind| Value::from(kind.as_str())));
    let subscriptions = marks(&mut values, choice.full_subscriptions.iter().map(|id| Value::from(*id)));
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let (group, window) = (Group::name_sql(backend, &can.limits), WINDOW.max(free));
    let text = format!(
        "UPDATE job SET over_limit = {group}, state = 'waiting', waiting_for = 'quota', version = version + 1 \
         WHERE id IN (SELECT id FROM job WHERE {IN_LINE} AND id IN (SELECT id FROM (\
           SELECT id, kind, subscription_id FROM job WHERE {IN_LINE} AND {condition} ORDER BY {ORDER} LIMIT {window}) AS head \
           WHERE kind IN ({kinds}) OR subscription_id IN ({subscriptions})) {skip})"
    );
    Ok(db.execute_raw(clock::statement(backend, &text, values)).await?.rows_affected() > 0)
}

/// Lets those back into the line that stand aside for a limit which is not in force any more; tells how many.
///
/// # Errors
/// When the database does not take it.
pub async fn release(db: &Database, limits: &Limits) -> Result<u64, DbErr> {
    let backend = db.backend();
    let mut released = 0;
    for group in groups(db.reader()).await?.into_iter().filter(|group| !limits.make(group)) {
        let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let text = format!(
            "UPDATE job SET over_limit = NULL, state = {READY}, waiting_for = {READY_WAITS}, version = version + 1 \
             WHERE id IN (SELECT id FROM job WHERE over_limit = $1 ORDER BY {ORDER} LIMIT {BATCH} {skip})"
        );
        let write = db.begin().await?;
        released += write.execute_raw(clock::statement(backend, &text, [group.name.into()])).await?.rows_affected();
        write.commit().await?;
    }
    Ok(released)
}

/// Whether any job stands in line, or aside with room for it: a read, so that looking for work does not take SQLite's write lock.
pub(super) async fn anybody(db: &Database, limits: &Limits) -> Result<bool, DbErr> {
    if line::exists(db, IN_LINE).await? {
        return Ok(true);
    }
    if limits.are_off() {
        return Ok(false);
    }
    let groups = groups(db.reader()).await?;
    if groups.is_empty() {
        return Ok(false);
    }
    let room = Room::by_what_is_held(limits, db.reader()).await?;
    Ok(groups.iter().any(|group| !room.is_full(&group.kind, group.subscription)))
}

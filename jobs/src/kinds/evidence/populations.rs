//! The populations of a package: what each is called, where its rows come from and what they tell. THE list is [`POPULATIONS`].

use super::{
    query::{
        Holds::{Id, Json, Number, Text, Time},
        Query,
    },
    source::Source,
};
use crate::domain::inventory::Observed;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// One population.
#[derive(Debug)]
pub struct Population {
    /// Of its files.
    pub name: &'static str,
    /// The section that brings it in.
    pub section: &'static str,
    /// What its files call the columns. The first is the row's key.
    pub columns: &'static [&'static str],
    pub rows: Rows,
    /// A second way to count the rows, which shares no statement with the first: what it is called, and its query.
    pub recount: Option<(&'static str, &'static str)>,
}

/// Where rows come from.
#[derive(Debug)]
pub enum Rows {
    /// From the database, by a query whose cells become the file's.
    Stored(Query, fn(&Source<'_>, Vec<Value>) -> Vec<Value>),
    /// From what was fixed when the package was asked for: the list of this name, whose members have the columns' names.
    Frozen(&'static str),
}

/// In the order in which a package tells them.
pub const POPULATIONS: &[Population] = &[
    Population {
        name: "subscriptions",
        section: "inventory",
        columns: &[
            "id",
            "provider",
            "externalId",
            "name",
            "enabled",
            "regions",
            "authMode",
            "createdAt",
            "updatedAt",
            "deletedAt",
            "lastScanAt",
            "lastScanState",
        ],
        rows: Rows::Frozen("subscriptions"),
        recount: None,
    },
    Population {
        name: "assets",
        section: "inventory",
        columns: &[
            "id",
            "subscription",
            "region",
            "kind",
            "type",
            "vault",
            "name",
            "externalId",
            "status",
            "enabled",
            "createdAt",
            "expiresAt",
            "notBefore",
            "lastRotatedAt",
            "lastChangedAt",
            "owner",
            "environment",
            "tags",
            "certificate",
            "version",
            "versionSince",
            "scan",
        ],
        rows: Rows::Stored(ASSETS, asset),
        recount: Some((
            "assets created minus assets removed, by the history of changes",
            "SELECT CAST(COALESCE(SUM(CASE change WHEN 'created' THEN 1 WHEN 'removed' THEN -1 ELSE 0 END), 0) AS BIGINT) AS n \
             FROM asset_version WHERE valid_from < {as_of} AND {in:subscription_id}",
        )),
    },
    Population {
        name: "scans",
        section: "coverage",
        columns: &[
            "id",
            "mode",
            "subscriptions",
            "state",
            "trigger",
            "createdAt",
            "startedAt",
            "completedAt",
            "scopes",
            "scopesSucceeded",
            "scopesFailed",
            "scopesDenied",
            "scopesCanceled",
            "errorCode",
        ],
        rows: Rows::Stored(SCANS, scan),
        recount: Some((
            "ended jobs of the kind discovery.scan",
            "SELECT COUNT(*) AS n FROM job j WHERE j.kind = 'discovery.scan' AND j.created_at >= {from} AND j.completed_at < {as_of} \
             AND EXISTS (SELECT 1 FROM scan s WHERE s.id = j.id AND {any:s.subscriptions})",
        )),
    },
    Population {
        name: "scopes",
        section: "coverage",
        columns: &[
            "id",
            "scan",
            "subscription",
            "region",
            "kind",
            "state",
            "attempt",
            "rescues",
            "startedAt",
            "completedAt",
            "counts",
            "errorCode",
            "errorDetail",
            "requiredPermission",
        ],
        rows: Rows::Stored(SCOPES, as_it_is),
        recount: None,
    },
    Population {
        name: "warnings",
        section: "coverage",
        columns: &["id", "scan", "scope", "subscription", "region", "kind", "path", "code", "detail"],
        rows: Rows::Stored(WARNINGS, as_it_is),
        recount: None,
    },
    Population {
        name: "jobs",
        section: "audit",
        columns: &[
            "id",
            "kind",
            "state",
            "trigger",
            "requestedByType",
            "requestedById",
            "attempt",
            "rescues",
            "createdAt",
            "startedAt",
            "completedAt",
            "errorCode",
        ],
        rows: Rows::Stored(JOBS, as_it_is),
        recount: None,
    },
    Population {
        name: "approvals",
        section: "audit",
        columns: &[
            "id",
            "action",
            "subjectType",
            "subjectId",
            "planHash",
            "state",
            "requestedByType",
            "requestedById",
            "createdAt",
            "expiresAt",
            "decidedAt",
            "decidedByType",
            "decidedById",
        ],
        rows: Rows::Stored(APPROVALS, approval),
        recount: None,
    },
    Population {
        name: "users",
        section: "audit",
        columns: &["id", "role", "disabled", "restricted", "signIn", "createdAt", "updatedAt"],
        rows: Rows::Frozen("users"),
        recount: None,
    },
    super::rotations::ROTATIONS,
];

const ASSETS: Query = Query {
    select: &[
        ("v.asset_id", Id),
        ("v.subscription_id", Id),
        ("v.region", Text),
        ("v.kind", Text),
        ("v.content", Json),
        ("v.version", Number),
        ("v.valid_from", Time),
        ("v.scan_id", Id),
    ],
    from: "asset_version v WHERE v.valid_from < {as_of} AND (v.valid_to IS NULL OR v.valid_to >= {as_of}) \
           AND v.change <> 'removed' AND {in:v.subscription_id}",
    key: "v.asset_id",
};

const SCANS: Query = Query {
    select: &[
        ("s.id", Id),
        ("s.mode", Text),
        ("s.subscriptions", Json),
        ("j.state", Text),
        ("j.trigger", Text),
        ("j.created_at", Time),
        ("j.started_at", Time),
        ("j.completed_at", Time),
        ("CAST(j.children_total AS BIGINT)", Number),
        ("CAST(j.children_succeeded AS BIGINT)", Number),
        ("CAST(j.children_failed AS BIGINT)", Number),
        ("CAST(j.children_denied AS BIGINT)", Number),
        ("CAST(j.children_canceled AS BIGINT)", Number),
        ("j.error_code", Text),
    ],
    from: "scan s JOIN job j ON j.id = s.id WHERE j.created_at >= {from} AND j.completed_at < {as_of} AND {any:s.subscriptions}",
    key: "s.id",
};

const SCOPES: Query = Query {
    select: &[
        ("j.id", Id),
        ("j.parent_id", Id),
        ("j.subscription_id", Id),
        ("j.scope_region", Text),
        ("j.scope_kind", Text),
        ("j.state", Text),
        ("CAST(j.attempt AS BIGINT)", Number),
        ("CAST(j.rescues AS BIGINT)", Number),
        ("j.started_at", Time),
        ("j.completed_at", Time),
        ("j.counts", Json),
        ("j.error_code", Text),
        ("j.error_detail", Text),
        ("j.error_permission", Text),
    ],
    from: "job j WHERE j.parent_id IS NOT NULL AND j.created_at >= {from} AND j.completed_at < {as_of} AND {in:j.subscription_id}",
    key: "j.id",
};

const WARNINGS: Query = Query {
    select: &[
        ("w.id", Id),
        ("w.scan_id", Id),
        ("w.job_id", Id),
        ("j.subscription_id", Id),
        ("j.scope_region", Text),
        ("j.scope_kind", Text),
        ("w.path", Text),
        ("w.code", Text),
        ("w.detail", Text),
    ],
    from: "scan_warning w JOIN job j ON j.id = w.job_id WHERE j.parent_id IS NOT NULL AND j.created_at >= {from} \
           AND j.completed_at < {as_of} AND {in:j.subscription_id}",
    key: "w.id",
};

const JOBS: Query = Query {
    select: &[
        ("j.id", Id),
        ("j.kind", Text),
        ("j.state", Text),
        ("j.trigger", Text),
        ("j.requested_by_type", Text),
        ("j.requested_by_id", Text),
        ("CAST(j.attempt AS BIGINT)", Number),
        ("CAST(j.rescues AS BIGINT)", Number),
        ("j.created_at", Time),
        ("j.started_at", Time),
        ("j.completed_at", Time),
        ("j.error_code", Text),
    ],
    from: "job j WHERE j.parent_id IS NULL AND j.created_at >= {from} AND j.completed_at < {as_of} \
           AND ({all} OR {in:j.subscription_id} \
           OR EXISTS (SELECT 1 FROM scan s WHERE s.id = j.id AND {any:s.subscriptions}))",
    key: "j.id",
};

const APPROVALS: Query = Query {
    select: &[
        ("a.id", Id),
        ("a.action", Text),
        ("a.subject_type", Text),
        ("a.subject_id", Text),
        ("a.plan_hash", Text),
        ("a.state", Text),
        ("a.requested_by_type", Text),
        ("a.requested_by_id", Text),
        ("a.created_at", Time),
        ("a.expires_at", Time),
        ("a.decided_at", Time),
        ("a.decided_by_type", Text),
        ("a.decided_by_id", Text),
    ],
    from: "approval a WHERE a.created_at >= {from} AND a.created_at < {as_of} AND ({all} OR {in:a.subscription_id})",
    key: "a.id",
};

fn as_it_is(_: &Source<'_>, cells: Vec<Value>) -> Vec<Value> {
    cells
}

/// The asset as its version describes it.
fn asset(source: &Source<'_>, cells: Vec<Value>) -> Vec<Value> {
    let [id, subscription, region, kind, content, version, since, scan] = take(cells);
    let seen: Option<Observed> = serde_json::from_value(content).ok();
    let seen = seen.as_ref();
    let thresholds = source.thresholds();
    let keys = source.tag_keys();
    let time = |of: fn(&Observed) -> Option<DateTime<Utc>>| json!(seen.and_then(of).map(super::request::spelled));
    let text = |of: fn(&Observed) -> &str| json!(seen.map(of));
    let status = seen.map(|seen| thresholds.status(seen.expires_at, source.as_of()));
    vec![
        id,
        subscription,
        region,
        kind,
        json!(seen.map(|seen| seen.asset_type)),
        text(|seen| &seen.vault),
        text(|seen| &seen.name),
        text(|seen| &seen.external_id),
        json!(status),
        json!(seen.and_then(|seen| seen.enabled)),
        time(|seen| seen.created_at),
        time(|seen| seen.expires_at),
        time(|seen| seen.not_before),
        time(|seen| seen.last_rotated_at),
        time(|seen| seen.last_changed_at),
        json!(seen.and_then(|seen| seen.owner(&keys))),
        json!(seen.and_then(|seen| seen.environment(&keys))),
        json!(seen.map(|seen| &seen.tags)),
        json!(seen.and_then(|seen| seen.certificate.as_ref())),
        version,
        since,
        scan,
    ]
}

/// Of a scan that also looked at what the package is not about, only what it is about is told.
fn scan(source: &Source<'_>, mut cells: Vec<Value>) -> Vec<Value> {
    let ours =
        |id: &Value| id.as_str().and_then(|id| id.parse().ok()).is_some_and(|id| source.subscriptions.contains(&id));
    let mut others = false;
    if let Some(Value::Array(ids)) = cells.get_mut(2) {
        let before = ids.len();
        ids.retain(ours);
        others = ids.len() < before;
    }
    if others {
        cells.iter_mut().skip(8).take(5).for_each(|cell| *cell = Value::Null);
    }
    cells
}

/// As it stood at the end of the period: what was decided later was not decided then.
fn approval(source: &Source<'_>, mut cells: Vec<Value>) -> Vec<Value> {
    let at = |cell: Option<&Value>| -> Option<DateTime<Utc>> { cell?.as_str()?.parse().ok() };
    let as_of = source.as_of();
    if at(cells.get(10)).is_none_or(|decided| decided >= as_of) {
        let expired = at(cells.get(9)).is_some_and(|expires| expires <= as_of);
        if let Some(state) = cells.get_mut(5) {
            *state = json!(if expired { "expired" } else { "pending" });
        }
        cells.iter_mut().skip(10).for_each(|cell| *cell = Value::Null);
    }
    cells
}

fn take<const N: usize>(cells: Vec<Value>) -> [Value; N] {
    let mut cells = cells.into_iter();
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

/// A row of what was fixed, by the columns' names.
pub fn frozen(columns: &[&str], row: &Value) -> Vec<Value> {
    columns.iter().map(|column| row.get(column).cloned().unwrap_or_default()).collect()
}

/// A row as an object of its columns.
pub fn object(columns: &[&str], cells: &[Value]) -> Map<String, Value> {
    columns.iter().zip(cells).map(|(column, cell)| ((*column).to_owned(), cell.clone())).collect()
}

//! The rotations of a period, as they stood at its end.

use super::{
    populations::{Population, Rows},
    query::{
        Holds::{Id, Text, Time},
        Query,
    },
    source::Source,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Those that were begun before the period's end and had not ended before its begin.
pub const ROTATIONS: Population = Population {
    name: "rotations",
    section: "rotation",
    columns: &[
        "id",
        "subscription",
        "asset",
        "policy",
        "requestedByType",
        "requestedById",
        "createdAt",
        "promotedAt",
        "endedAt",
        "state",
        "planHash",
        "identity",
    ],
    rows: Rows::Stored(QUERY, as_of),
    recount: None,
};

const QUERY: Query = Query {
    select: &[
        ("r.id", Id),
        ("r.subscription_id", Id),
        ("r.asset_id", Id),
        ("r.policy_id", Id),
        ("r.requested_by_type", Text),
        ("r.requested_by_id", Text),
        ("r.created_at", Time),
        ("r.promoted_at", Time),
        ("r.ended_at", Time),
        ("r.state", Text),
        ("r.plan_hash", Text),
        ("r.identity", Text),
    ],
    from: "rotation r WHERE r.created_at < {as_of} AND (r.ended_at IS NULL OR r.ended_at >= {from}) AND {in:r.subscription_id}",
    key: "r.id",
};

/// Of one that had not ended by then, what may still have changed since is not told.
fn as_of(source: &Source<'_>, mut cells: Vec<Value>) -> Vec<Value> {
    let at = |cell: Option<&Value>| -> Option<DateTime<Utc>> { cell?.as_str()?.parse().ok() };
    let by_then = |cell: Option<&Value>| at(cell).is_some_and(|at| at < source.as_of());
    if !by_then(cells.get(7))
        && let Some(promoted) = cells.get_mut(7)
    {
        *promoted = Value::Null;
    }
    if !by_then(cells.get(8)) {
        cells.iter_mut().skip(8).for_each(|cell| *cell = Value::Null);
        if let Some(state) = cells.get_mut(9) {
            *state = json!("OPEN");
        }
    }
    cells
}

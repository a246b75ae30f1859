//! Which scans a caller sees, and which versions of assets tell what a scan found.

use crate::wire::Change;
use keywright_entities::{asset_version, job, scan, scope::Scope, types};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, Select,
    sea_query::{Alias, Expr, ExprTrait, Query as Sql},
};
use uuid::Uuid;

/// Scans that look only at what the caller may see.
pub(super) fn visible(backend: DbBackend, to: &Scope) -> Select<scan::Entity> {
    scan::Entity::find().filter(to.on_all_of(backend, scan::Column::Subscriptions.into_expr()))
}

/// The versions that tell what a scan found: those it made, and for `unchanged` those that held, in the scopes that it read to
/// their ends, when it ended them.
pub(super) fn found_by(scan: Uuid, changes: &[Change]) -> Condition {
    let made: Vec<types::Change> =
        changes.iter().filter(|change| **change != Change::Unchanged).map(|change| (*change).into()).collect();
    let mut found = Condition::any().add(
        Condition::all().add(asset_version::Column::ScanId.eq(scan)).add(asset_version::Column::Change.is_in(made)),
    );
    if changes.contains(&Change::Unchanged) {
        let part = Alias::new("part");
        let of = |column: job::Column| Expr::col((part.clone(), column));
        let version = |column: asset_version::Column| Expr::col((asset_version::Entity, column));
        let read_to_its_end = Sql::select()
            .expr(Expr::val(1))
            .from_as(job::Entity, part.clone())
            .and_where(of(job::Column::ParentId).eq(scan))
            .and_where(of(job::Column::State).eq(types::JobState::Succeeded.as_str()))
            .and_where(
                of(job::Column::SubscriptionId).equals((asset_version::Entity, asset_version::Column::SubscriptionId)),
            )
            .and_where(of(job::Column::ScopeRegion).equals((asset_version::Entity, asset_version::Column::Region)))
            .and_where(of(job::Column::ScopeKind).equals((asset_version::Entity, asset_version::Column::Kind)))
            .and_where(version(asset_version::Column::ValidFrom).lte(of(job::Column::CompletedAt)))
            .cond_where(
                Condition::any()
                    .add(version(asset_version::Column::ValidTo).is_null())
                    .add(version(asset_version::Column::ValidTo).gt(of(job::Column::CompletedAt))),
            )
            .to_owned();
        found = found.add(
            Condition::all()
                .add(
                    Condition::any()
                        .add(asset_version::Column::ScanId.is_null())
                        .add(asset_version::Column::ScanId.ne(scan)),
                )
                .add(asset_version::Column::Change.ne(types::Change::Removed))
                .add(Expr::exists(read_to_its_end)),
        );
    }
    found
}

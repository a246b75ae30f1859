//! Forgetting ended jobs, in transactions of a bounded size.
//!
//! A top-level job goes first, with what only it makes readable, so that nobody ever sees half of it; its children follow. Those
//! whose parent is gone already, because a worker died in between, are found by that.

use crate::setup::database::Database;
use keywright_entities::{clock, job, job_report, scan, scan_warning};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{Expr, ExprTrait, LockBehavior, LockType, Query},
};
use std::time::Duration;
use uuid::Uuid;

/// The most rows of a table that one transaction deletes.
pub const BATCH: u64 = 500;
/// Between two transactions, so that others get in.
pub const PAUSE: Duration = Duration::from_millis(50);
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Forgets the jobs of a kind that ended more than `days` ago, with their children; tells how many.
///
/// # Errors
/// When the database does not take it; what was done until then is done.
pub async fn ended(database: &Database, kind: &str, days: u32) -> Result<u64, DbErr> {
    let (mut top, mut parts) = (0, 0);
    loop {
        let gone = top_level(database, kind, days).await?;
        top += gone.len() as u64;
        parts += children(database, job::Column::ParentId.is_in(gone.iter().copied())).await?;
        if (gone.len() as u64) < BATCH {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let parent = Query::select()
        .expr(Expr::val(1))
        .from_as(job::Entity, "parent")
        .and_where(Expr::col(("parent", job::Column::Id)).equals((job::Entity, job::Column::ParentId)))
        .to_owned();
    let orphaned = job::Column::Kind
        .eq(kind)
        .and(job::Column::ParentId.is_not_null())
        .and(older(database, days))
        .and(Expr::exists(parent).not());
    parts += children(database, orphaned).await?;
    Ok(top + parts)
}

fn older(database: &Database, days: u32) -> Expr {
    let cutoff = Expr::cust(clock::sql(database.backend(), -DAY_MS * i64::from(days)));
    job::Column::CompletedAt.into_expr().lt(cutoff)
}

async fn top_level(database: &Database, kind: &str, days: u32) -> Result<Vec<Uuid>, DbErr> {
    let select = job::Entity::find()
        .filter(job::Column::Kind.eq(kind))
        .filter(job::Column::ParentId.is_null())
        .filter(older(database, days))
        .order_by_asc(job::Column::CompletedAt);
    let write = database.begin().await?;
    let gone = taken(select).all(&*write).await?;
    if gone.is_empty() {
        write.rollback().await?;
        return Ok(gone);
    }
    scan::Entity::delete_many().filter(scan::Column::Id.is_in(gone.iter().copied())).exec(&*write).await?;
    let reports = job_report::Entity::delete_many().filter(job_report::Column::JobId.is_in(gone.iter().copied()));
    reports.exec(&*write).await?;
    job::Entity::delete_many().filter(job::Column::Id.is_in(gone.iter().copied())).exec(&*write).await?;
    write.commit().await?;
    Ok(gone)
}

/// Ids that nobody else is forgetting or changing.
fn taken(select: Select<job::Entity>) -> sea_orm::Selector<sea_orm::SelectGetableTuple<Uuid>> {
    select
        .select_only()
        .column(job::Column::Id)
        .limit(BATCH)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

/// Forgets these children, and before each its warnings.
async fn children(database: &Database, which: Expr) -> Result<u64, DbErr> {
    let mut forgotten = 0;
    loop {
        let write = database.begin().await?;
        let select = job::Entity::find().filter(which.clone()).filter(job::Column::CompletedAt.is_not_null());
        let gone: Vec<Uuid> = taken(select).all(&*write).await?;
        if gone.is_empty() {
            write.rollback().await?;
            return Ok(forgotten);
        }
        let some = Query::select()
            .column(scan_warning::Column::Id)
            .from(scan_warning::Entity)
            .and_where(scan_warning::Column::JobId.is_in(gone.iter().copied()))
            .limit(BATCH)
            .to_owned();
        let warnings = scan_warning::Entity::delete_many().filter(scan_warning::Column::Id.in_subquery(some));
        let warnings = warnings.exec(&*write).await?.rows_affected;
        if warnings < BATCH {
            let children = job::Entity::delete_many().filter(job::Column::Id.is_in(gone));
            forgotten += children.exec(&*write).await?.rows_affected;
        }
        write.commit().await?;
        tokio::time::sleep(PAUSE).await;
    }
}

//! Keyset pagination: a page starts after the sort values of the last row seen, so that it survives inserts and costs the
//! same at any depth. The SQL is the same on SQLite and PostgreSQL: NULLs are put last by name or asked for apart, and the row comparison is
//! written out as an OR of ANDs because the two order NULLs differently and mixed directions have no row form.

use sea_orm::sea_query::{Expr, ExprTrait, NullOrdering};
use sea_orm::{
    Condition, ConnectionTrait, EntityTrait, FromQueryResult, Order, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Select, Value,
};

use super::sort::Ordering;
use super::{Key, ListParams, Sorting};
use crate::error::ApiError;

/// The rows of one page, before they get their wire shape by [`Slice::into_page`].
#[derive(Debug)]
pub struct Slice<M> {
    pub rows: Vec<M>,
    pub limit: u64,
    pub next_cursor: Option<String>,
    pub total: Option<u64>,
}

impl<M> Slice<M> {
    /// The same page with what was made of its rows.
    pub fn holding<N>(self, rows: Vec<N>) -> Slice<N> {
        Slice { rows, limit: self.limit, next_cursor: self.next_cursor, total: self.total }
    }
}

impl ListParams {
    /// Reads the page of `select`, a query with its filters and the caller's restriction but without order and limit.
    ///
    /// # Errors
    /// 400 for a sort key or cursor that does not fit; 503 and 500 from the database.
    pub async fn fetch<E, C>(
        &self,
        select: Select<E>,
        sorting: &'static Sorting<E::Model>,
        db: &C,
    ) -> Result<Slice<E::Model>, ApiError>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + Send + Sync,
        C: ConnectionTrait,
    {
        let orderings = sorting.parse(self.sort.as_deref())?;
        let after = match &self.cursor {
            Some(cursor) => Some(self.key.open(&self.list, cursor, orderings.len())?),
            None => None,
        };
        let total = if self.include_total { Some(select.clone().count(db).await?) } else { None };
        let mut rows = match (self.offset, orderings.split_first()) {
            (None, Some((first, rest))) if first.key.nullable => {
                with_absent_last(select, first, rest, &orderings, after.as_deref(), self.limit + 1, db).await?
            }
            _ => {
                let mut page = order_by(select, &orderings);
                if let Some(after) = &after {
                    page = page.filter(rows_after(&orderings, after));
                }
                page.offset(self.offset).limit(self.limit + 1).all(db).await?
            }
        };
        let has_more = rows.len() as u64 > self.limit;
        rows.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        let next_cursor = match rows.last() {
            Some(last) if has_more => {
                let keys: Vec<Key> = orderings.iter().map(|ordering| (ordering.key.read)(last)).collect();
                Some(self.key.seal(&self.list, &keys)?)
            }
            _ => None,
        };
        Ok(Slice { rows, limit: self.limit, next_cursor, total })
    }
}

/// The rows that have the first key, in its order, and then those that have it not. Asked for apart, each is a walk along an index:
/// no index of either database has what is absent last in both directions.
async fn with_absent_last<E, C>(
    select: Select<E>,
    first: &Ordering<E::Model>,
    rest: &[Ordering<E::Model>],
    all: &[Ordering<E::Model>],
    after: Option<&[Key]>,
    limit: u64,
    db: &C,
) -> Result<Vec<E::Model>, ApiError>
where
    E: EntityTrait,
    E::Model: FromQueryResult + Send + Sync,
    C: ConnectionTrait,
{
    let mut rows = Vec::new();
    let after_absent = after.and_then(<[Key]>::split_first).filter(|(key, _)| **key == Key::Null).map(|(_, rest)| rest);
    if after_absent.is_none() {
        let mut present = select.clone().filter((first.key.column)().is_not_null());
        present = order_by(present.order_by((first.key.column)(), first.order.clone()), rest);
        if let (Some(after), Some(value)) = (after, after.and_then(<[Key]>::first).and_then(Key::to_value)) {
            present = present.filter(bound(first, value)).filter(rows_after(all, after));
        }
        rows = present.limit(limit).all(db).await?;
    }
    let missing = limit.saturating_sub(rows.len() as u64);
    if missing > 0 {
        let absent = select.filter((first.key.column)().is_null());
        // all are equal in it, and with it the order is that of the index
        let mut absent = order_by(absent.order_by((first.key.column)(), first.order.clone()), rest);
        if let Some(after) = after_absent {
            absent = absent.filter(rows_after(rest, after));
        }
        rows.extend(absent.limit(missing).all(db).await?);
    }
    Ok(rows)
}

/// Implied by [`rows_after`]; it is there because a database can start an index scan from it.
fn bound<M>(first: &Ordering<M>, value: Value) -> Expr {
    let column = (first.key.column)();
    if matches!(first.order, Order::Desc) { column.lte(value) } else { column.gte(value) }
}

fn order_by<E: EntityTrait>(select: Select<E>, orderings: &[Ordering<E::Model>]) -> Select<E> {
    orderings.iter().fold(select, |select, Ordering { key, order }| {
        if key.nullable {
            select.order_by_with_nulls((key.column)(), order.clone(), NullOrdering::Last)
        } else {
            select.order_by((key.column)(), order.clone())
        }
    })
}

/// `(a, b, c) after (x, y, z)` as `a ⪰ x AND (a ≻ x OR (a = x AND b ≻ y) OR (a = x AND b = y AND c ≻ z))`.
fn rows_after<M>(orderings: &[Ordering<M>], after: &[Key]) -> Condition {
    let mut any = Condition::any();
    let mut equal_so_far = Condition::all();
    for (ordering, value) in orderings.iter().zip(after) {
        if let Some(beyond) = beyond(ordering, value) {
            any = any.add(equal_so_far.clone().add(beyond));
        }
        equal_so_far = equal_so_far.add(equal(ordering, value));
    }
    match (orderings.first(), after.first().and_then(Key::to_value)) {
        (Some(first), Some(value)) if !first.key.nullable => Condition::all().add(bound(first, value)).add(any),
        _ => any,
    }
}

/// Rows that differ in this key and come later; none come after NULL, which is last.
fn beyond<M>(ordering: &Ordering<M>, value: &Key) -> Option<Condition> {
    let value = value.to_value()?;
    let column = (ordering.key.column)();
    let later = if matches!(ordering.order, Order::Desc) { column.lt(value) } else { column.gt(value) };
    let condition = Condition::any().add(later);
    Some(if ordering.key.nullable { condition.add((ordering.key.column)().is_null()) } else { condition })
}

fn equal<M>(ordering: &Ordering<M>, value: &Key) -> Expr {
    let column = (ordering.key.column)();
    match value.to_value() {
        Some(value) => column.eq(value),
        None => column.is_null(),
    }
}

#[cfg(test)]
mod tests;

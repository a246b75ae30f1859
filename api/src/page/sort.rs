//! `sort=-severity,createdAt`: the documented keys of a list, and the order that a request asks for.

use sea_orm::Order;
use sea_orm::sea_query::Expr;

use super::Key;
use crate::error::ApiError;

/// One key that a list can be sorted by.
#[derive(Debug)]
pub struct SortKey<M> {
    /// Its spelling in `sort`.
    pub name: &'static str,
    /// The column, or any expression that the select can order by.
    pub column: fn() -> Expr,
    /// Whether the expression can be NULL; NULLs come last in both directions, on both databases.
    pub nullable: bool,
    /// The same value read from a row, for the cursor.
    pub read: fn(&M) -> Key,
}

/// The keys of one list, in a constant beside its finder.
#[derive(Debug)]
pub struct Sorting<M: 'static> {
    pub keys: &'static [SortKey<M>],
    /// What holds without `sort`, in the same syntax: `-createdAt`.
    pub default: &'static str,
    /// A unique key that is never NULL; it ends every order, in the direction of the key before it.
    pub unique: SortKey<M>,
}

/// A key and its direction.
#[derive(Debug)]
pub(super) struct Ordering<M: 'static> {
    pub(super) key: &'static SortKey<M>,
    pub(super) order: Order,
}

impl<M> Sorting<M> {
    /// The order that `sort` asks for, always total.
    ///
    /// # Errors
    /// 400 for a key that the list does not have and for a key named twice.
    pub(super) fn parse(&'static self, sort: Option<&str>) -> Result<Vec<Ordering<M>>, ApiError> {
        let mut orderings: Vec<Ordering<M>> = Vec::new();
        for item in sort.unwrap_or(self.default).split(',') {
            let (name, order) = item.strip_prefix('-').map_or((item, Order::Asc), |name| (name, Order::Desc));
            let key = self.keys.iter().find(|key| key.name == name).ok_or_else(|| self.refuse())?;
            if orderings.iter().any(|earlier| earlier.key.name == name) {
                return Err(self.refuse());
            }
            orderings.push(Ordering { key, order });
        }
        let order = orderings.last().map_or(Order::Asc, |last| last.order.clone());
        orderings.push(Ordering { key: &self.unique, order });
        Ok(orderings)
    }

    fn refuse(&self) -> ApiError {
        let names: Vec<_> = self.keys.iter().map(|key| key.name).collect();
        let message = format!("Keys are {}; each at most once, with - before it for descending.", names.join(", "));
        ApiError::invalid("/query/sort", "sort", message)
    }
}

//! What a caller may see. An argument of every finder, so that none can forget it.

use sea_orm::{ColumnTrait, Condition};
use uuid::Uuid;

/// The subscriptions whose rows a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Subscriptions(Vec<Uuid>),
}

impl Scope {
    /// The restriction of a column that holds subscription ids.
    pub fn on(&self, column: impl ColumnTrait) -> Condition {
        match self {
            Self::All => Condition::all(),
            Self::Subscriptions(ids) => Condition::all().add(column.is_in(ids.iter().copied())),
        }
    }

    pub fn allows(&self, subscription: Uuid) -> bool {
        match self {
            Self::All => true,
            Self::Subscriptions(ids) => ids.contains(&subscription),
        }
    }
}

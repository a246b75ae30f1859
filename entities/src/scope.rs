//! What a caller may see. An argument of every finder, so that none can forget it.

use sea_orm::{ColumnTrait, Condition, DbBackend, sea_query::Expr};
use serde_json::Value;
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

    /// The restriction of a JSON array of subscription ids: it names none outside.
    pub fn on_all_of(&self, backend: DbBackend, array: Expr) -> Condition {
        let Self::Subscriptions(ids) = self else { return Condition::all() };
        let named = Expr::val(serde_json::json!(ids).to_string());
        Condition::all().add(match backend {
            DbBackend::Sqlite => Expr::cust_with_exprs(
                "NOT EXISTS (SELECT 1 FROM json_each(?) WHERE value NOT IN (SELECT value FROM json_each(?)))",
                [array, named],
            ),
            _ => Expr::cust_with_exprs("$1 <@ CAST($2 AS jsonb)", [array, named]),
        })
    }

    /// The restriction that a column of a user or token holds: null = none. What cannot be read lets nothing be seen.
    pub fn of_column(column: Option<&Value>) -> Self {
        match column {
            None | Some(Value::Null) => Self::All,
            Some(ids) => Self::Subscriptions(serde_json::from_value(ids.clone()).unwrap_or_default()),
        }
    }

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, only) | (only, Self::All) => only,
            (Self::Subscriptions(mut ids), other) => {
                ids.retain(|id| other.allows(*id));
                Self::Subscriptions(ids)
            }
        }
    }

    pub fn allows(&self, subscription: Uuid) -> bool {
        match self {
            Self::All => true,
            Self::Subscriptions(ids) => ids.contains(&subscription),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restrictions_only_narrow_each_other() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let of = |ids: &[Uuid]| Scope::Subscriptions(ids.to_vec());
        assert_eq!(Scope::All.and(Scope::All), Scope::All);
        assert_eq!(Scope::All.and(of(&[a])), of(&[a]));
        assert_eq!(of(&[a, b]).and(Scope::All), of(&[a, b]));
        assert_eq!(of(&[a, b]).and(of(&[b, c])), of(&[b]));
        assert_eq!(Scope::of_column(None), Scope::All);
        assert_eq!(Scope::of_column(Some(&json!([a]))), of(&[a]));
        assert_eq!(Scope::of_column(Some(&json!("all"))), of(&[]), "what cannot be read lets nothing be seen");
    }
}

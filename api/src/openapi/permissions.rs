//! The permission that an operation demands with [`crate::auth::Caller`], as `x-required-permission`.

use serde_json::{Value, json};

use super::each_operation;
use crate::auth::Permission;

/// The name of the extension.
pub(crate) const REQUIRED_PERMISSION: &str = "x-required-permission";

pub(super) fn name(document: &mut Value) {
    each_operation(document, |_, _, operation| {
        let Some(Value::Array(ways)) = operation.get_mut("security") else { return };
        let mut demanded = None;
        ways.retain(|way| {
            let permission = way.as_object().and_then(|way| way.keys().find_map(|scheme| Permission::parse(scheme)));
            demanded = demanded.or(permission);
            permission.is_none()
        });
        if let Some(permission) = demanded {
            operation.insert(REQUIRED_PERMISSION.to_owned(), json!(permission.as_str()));
        }
    });
}

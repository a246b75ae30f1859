//! The tier that an operation demands with [`crate::licence::Licensed`], as `x-required-tier`.

use serde_json::{Value, json};

use super::each_operation;
use crate::licence::TIER_SCHEMES;

/// The name of the extension.
pub(super) const EXTENSION: &str = "x-required-tier";

pub(super) fn name(document: &mut Value) {
    each_operation(document, |_, _, operation| {
        let Some(Value::Array(ways)) = operation.get_mut("security") else { return };
        let is = |way: &Value, scheme: &str| way.as_object().is_some_and(|way| way.contains_key(scheme));
        let demanded = TIER_SCHEMES.iter().find(|(_, scheme)| ways.iter().any(|way| is(way, scheme)));
        let Some((tier, scheme)) = demanded else { return };
        ways.retain(|way| !is(way, scheme));
        if ways.is_empty() {
            operation.remove("security");
        }
        operation.insert(EXTENSION.to_owned(), json!(tier.as_str()));
    });
}

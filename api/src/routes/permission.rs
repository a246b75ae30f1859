//! The names of permissions on the wire, taken from the one table of them.

use crate::auth::Permission;
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::Value;
use std::borrow::Cow;

/// A permission by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermissionName(pub Permission);

impl Type for PermissionName {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_permission".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let names = Permission::ALL.iter().map(|permission| permission.as_str().into()).collect();
        MetaSchemaRef::Inline(Box::new(MetaSchema { enum_items: names, ..MetaSchema::new("string") }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for PermissionName {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let name = value.as_ref().and_then(Value::as_str);
        name.and_then(Permission::parse).map(Self).ok_or_else(|| ParseError::custom("no permission's name"))
    }
}

impl ToJSON for PermissionName {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.as_str().into())
    }
}

//! The served document: what poem-openapi derives from the types, made exact.
//!
//! poem-openapi emits OpenAPI 3.0.0 with gaps: answers hold `null` where the schema is not nullable, unknown members are not
//! refused by the schema, header names are in capitals, refusals are missing. [`finish`] closes them by rules that need
//! no annotation, so that a new operation is documented completely by its types alone:
//!
//! * in schemas that only answers use, an optional member is required and nullable (`null` is always sent);
//! * in schemas that requests use, no other members are allowed, and only merge patches ([`crate::patch::Patch`]) are nullable;
//! * what its caller must be allowed to do is an operation's `x-required-permission` ([`crate::auth::Caller`]);
//! * the tier that an operation demands is its `x-required-tier` ([`crate::licence`]);
//! * refusals follow from what an operation takes ([`statuses`]), the rest is listed in [`statuses::EXTRA`];
//! * lists have the paging parameters, operations that create take a key; every operation has examples.

mod examples;
mod keys;
mod lists;
mod names;
mod permissions;
mod schemas;
pub mod statuses;
mod tiers;

use std::collections::BTreeSet;

use poem_openapi::registry::Registry;
use poem_openapi::types::Type;
use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Map, Value, json};

pub(crate) use self::permissions::REQUIRED_PERMISSION;
use crate::error::Problem;

/// What the document says that depends on the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Rate limits are on: operations under `/api` can answer 429.
    pub rate_limits: bool,
}

impl Default for Options {
    /// As with the default configuration.
    fn default() -> Self {
        Self { rate_limits: true }
    }
}

/// The document of the operations of `T`, without an instance of it: nothing is connected to.
#[must_use]
pub fn document<T: OpenApi>(options: Options) -> Value {
    let service = OpenApiService::new(MetaOnly::<T>(std::marker::PhantomData), "Keywright", env!("CARGO_PKG_VERSION"));
    let raw = serde_json::from_str(&service.spec()).unwrap_or_default();
    finish(raw, options)
}

/// The operations of `T` as a description only.
struct MetaOnly<T>(std::marker::PhantomData<T>);

impl<T: OpenApi> OpenApi for MetaOnly<T> {
    fn meta() -> Vec<poem_openapi::registry::MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(
        self,
        _: &mut std::collections::HashMap<
            String,
            std::collections::HashMap<poem::http::Method, poem::endpoint::BoxEndpoint<'static>>,
        >,
    ) {
    }
}

/// Makes poem-openapi's document exact. Pure.
#[must_use]
pub fn finish(mut document: Value, options: Options) -> Value {
    set(&mut document, "openapi", json!("3.0.3"));
    set(
        &mut document,
        "info",
        json!({
            "title": "Keywright",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Discovers secrets, keys and certificates over clouds and machines. \
                Errors are `application/problem+json` (RFC 9457); work that takes long is a job.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        }),
    );
    set(&mut document, "servers", json!([{ "url": "/" }]));
    names::normalise(&mut document);
    permissions::name(&mut document);
    tiers::name(&mut document);
    lists::add_parameters(&mut document);
    keys::add_parameters(&mut document);
    schemas::make_exact(&mut document);
    add_problem_schema(&mut document);
    statuses::document_refusals(&mut document, options);
    examples::add(&mut document);
    document
}

/// What is wrong with the document, or with the way in which it was put together; empty when it can be served.
#[must_use]
pub fn problems<T: OpenApi>(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for (method, path, operation) in operations(document) {
        count += 1;
        let at = format!("{} {path}", method.to_uppercase());
        match operation.get("operationId").and_then(Value::as_str) {
            None => found.push(format!("{at} has no operationId")),
            Some(id) if !is_camel_case(id) => found.push(format!("{at}: operationId {id} is not camelCase")),
            Some(id) if !ids.insert(id.to_owned()) => found.push(format!("{at}: operationId {id} is used twice")),
            Some(_) => {}
        }
        if operation.get("summary").and_then(Value::as_str).is_none_or(str::is_empty) {
            found.push(format!("{at} has no summary"));
        }
        let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let named: BTreeSet<_> = parameters
            .filter(|parameter| parameter.get("in") == Some(&json!("path")))
            .filter_map(|parameter| parameter.get("name")?.as_str())
            .collect();
        if named != path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect() {
            found.push(format!("{at}: the path parameters are declared as {named:?}"));
        }
        if operation.get("tags").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            found.push(format!("{at} has no tag"));
        }
    }
    // poem writes a path that two API structs share twice, and a JSON reader keeps the last
    let declared: usize = T::meta().iter().flat_map(|api| &api.paths).map(|path| path.operations.len()).sum();
    if declared != count {
        found.push(format!("{declared} operations are declared but {count} documented: is a path split over structs?"));
    }
    found
}

fn is_camel_case(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_lowercase()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// All operations: method in lower case, path, operation.
pub(crate) fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
    paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (method, path, operation))
    })
}

/// Calls `change` with path, method and each operation.
fn each_operation(document: &mut Value, mut change: impl FnMut(&str, &str, &mut Map<String, Value>)) {
    for (path, item) in members(document.get_mut("paths")) {
        for (method, operation) in members(Some(item)) {
            if let Some(operation) = operation.as_object_mut() {
                change(path, method, operation);
            }
        }
    }
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flat_map(|object| object.iter_mut())
}

fn set(value: &mut Value, name: &str, member: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), member);
    }
}

/// Poem drops schemas that no operation names, and refusals are only added here.
fn add_problem_schema(document: &mut Value) {
    let mut registry = Registry::new();
    Problem::register(&mut registry);
    let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) else { return };
    let schemas = components.entry("schemas").or_insert_with(|| json!({}));
    for (name, schema) in registry.schemas {
        set(schemas, &name, serde_json::to_value(schema).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;

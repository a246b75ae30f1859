//! What is wrong with a value, in words that never repeat the value.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::error::FieldError;

/// Most problems that are listed; a body with more is told so by its last entry.
const MAX_ERRORS: usize = 100;

/// Everything that is wrong with `value`; `base` is the pointer to it (empty for a whole body).
#[must_use]
pub fn problems(validator: &Validator, value: &Value, base: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    for error in validator.iter_errors(value) {
        describe(&error, base, &mut found);
        if found.len() > MAX_ERRORS {
            found.truncate(MAX_ERRORS);
            found.push(FieldError::new(base, "more", "There are more problems than are listed."));
            break;
        }
    }
    found
}

fn describe(error: &ValidationError<'_>, base: &str, found: &mut Vec<FieldError>) {
    let pointer = format!("{base}{}", error.instance_path().as_str());
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            found.extend(unexpected.iter().map(|name| unknown_field(&pointer, name)));
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            found.push(FieldError::new(child(&pointer, name), "required", "This field is required."));
        }
        // a nullable object is `anyOf: [the object, null]`: what matters is what is wrong with the object
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match context.first() {
            Some(branch) if context.len() == 2 && is_null_branch(context.get(1)) => {
                branch.iter().for_each(|error| describe(error, base, found));
            }
            _ => found.push(FieldError::new(pointer, "any_of", "The value has none of the documented shapes.")),
        },
        kind => {
            let (code, message) = rule(kind);
            found.push(FieldError::new(pointer, code, message));
        }
    }
}

fn is_null_branch(branch: Option<&Vec<ValidationError<'_>>>) -> bool {
    let only = branch.and_then(|errors| errors.first());
    only.is_some_and(|error| matches!(error.kind(), Kind::Type { kind: TypeKind::Single(jsonschema::JsonType::Null) }))
}

fn rule(kind: &Kind) -> (&'static str, String) {
    match kind {
        Kind::Type { kind } => ("type", format!("Must be {}.", types(kind))),
        Kind::Enum { options } => ("enum", format!("Must be one of {}.", listed(options))),
        Kind::Constant { .. } => ("const", "Must be the documented constant.".to_owned()),
        Kind::Format { format } => ("format", format!("Must be a {format}.")),
        Kind::Pattern { pattern } => ("pattern", format!("Must match {pattern}.")),
        Kind::Minimum { limit } => ("minimum", format!("Must be at least {limit}.")),
        Kind::Maximum { limit } => ("maximum", format!("Must be at most {limit}.")),
        Kind::ExclusiveMinimum { limit } => ("minimum", format!("Must be more than {limit}.")),
        Kind::ExclusiveMaximum { limit } => ("maximum", format!("Must be less than {limit}.")),
        Kind::MinLength { limit } => ("min_length", format!("Must have at least {limit} characters.")),
        Kind::MaxLength { limit } => ("max_length", format!("Must have at most {limit} characters.")),
        Kind::MinItems { limit } => ("min_items", format!("Must have at least {limit} items.")),
        Kind::MaxItems { limit } => ("max_items", format!("Must have at most {limit} items.")),
        Kind::MinProperties { limit } => ("min_properties", format!("Must have at least {limit} members.")),
        Kind::MaxProperties { limit } => ("max_properties", format!("Must have at most {limit} members.")),
        Kind::UniqueItems => ("unique_items", "Must not have the same item twice.".to_owned()),
        Kind::MultipleOf { multiple_of } => ("multiple_of", format!("Must be a multiple of {multiple_of}.")),
        _ => ("invalid", "Does not have the documented shape.".to_owned()),
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(single) => single.to_string(),
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or "),
    }
}

fn listed(options: &Value) -> String {
    let options = options.as_array().into_iter().flatten();
    options
        .map(|option| option.as_str().map_or_else(|| option.to_string(), str::to_owned))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Texts with U+0000, in values and names of members: JSON and URLs can spell it, PostgreSQL's texts cannot hold it, so that it is
/// refused on every database.
#[must_use]
pub fn with_nul(value: &Value, pointer: &str) -> Vec<FieldError> {
    let refusal = |pointer: &str| FieldError::new(pointer, "nul", "Must not contain the character U+0000.");
    match value {
        Value::String(text) if text.contains('\0') => vec![refusal(pointer)],
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, item)| with_nul(item, &format!("{pointer}/{n}"))).collect()
        }
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| {
                let pointer = child(pointer, name);
                if name.contains('\0') { vec![refusal(&pointer)] } else { with_nul(member, &pointer) }
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A problem with a member that the schema does not have.
#[must_use]
pub fn unknown_field(pointer: &str, name: &str) -> FieldError {
    FieldError::new(child(pointer, name), "unknown_field", "There is no such field.")
}

/// The pointer to a member (RFC 6901). Names come from the client: longer ones are cut.
#[must_use]
pub fn child(pointer: &str, name: &str) -> String {
    let name: String = name.chars().take(100).collect();
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

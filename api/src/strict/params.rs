//! Parameters: no unknown one, none twice unless it is a list, each as its schema says.

use poem::Request;
use poem::http::Uri;
use serde_json::Value;
use url::form_urlencoded;

use super::operations::{Kind, Operation, Parameter, Place};
use super::report;
use crate::error::{ApiError, Code, FieldError};

/// Checks path, query and headers of `request`. Comma lists of enumerations become repeated parameters and instants get
/// their plus back, so that behind this layer there is one spelling.
///
/// # Errors
/// 404 when a path parameter cannot name anything, else 400 with everything that is wrong.
pub fn check(request: &mut Request, operation: &Operation, path: &[(String, String)]) -> Result<(), ApiError> {
    let parameters = |place| operation.parameters.iter().filter(move |parameter| parameter.place == place);
    for parameter in parameters(Place::Path) {
        let value = path.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.as_str());
        if value.is_none_or(|value| !parameter.validator.is_valid(&parameter.kind.read(value))) {
            return Err(ApiError::not_found("resource"));
        }
    }
    let mut problems = check_query(request, &parameters(Place::Query).collect::<Vec<_>>());
    if operation.open_query {
        problems.retain(|problem| problem.code != UNKNOWN);
    }
    for parameter in parameters(Place::Header) {
        let values: Vec<_> = request.headers().get_all(parameter.name.as_str()).iter().collect();
        let values = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        parameter.check(values, &report::child("/header", &parameter.name), &mut problems);
    }
    refuse(problems)
}

fn refuse(problems: Vec<FieldError>) -> Result<(), ApiError> {
    if problems.is_empty() {
        return Ok(());
    }
    if problems.iter().any(|problem| problem.code != UNKNOWN) {
        return Err(ApiError::validation(problems));
    }
    let names: Vec<_> = problems.iter().filter_map(|problem| problem.pointer.strip_prefix("/query/")).collect();
    let detail = format!("The query has parameters that do not exist here: {}.", names.join(", "));
    Err(ApiError::new(Code::UnknownParameter, detail).with_errors(problems))
}

const UNKNOWN: &str = "unknown_parameter";

fn check_query(request: &mut Request, parameters: &[&Parameter]) -> Vec<FieldError> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if normalise(&mut pairs, parameters) {
        set_query(request, &pairs);
    }
    let mut problems: Vec<FieldError> = Vec::new();
    for (name, _) in &pairs {
        let pointer = report::child("/query", name);
        let known = parameters.iter().any(|parameter| parameter.name == *name);
        if !known && problems.iter().all(|problem| problem.pointer != pointer) {
            problems.push(FieldError::new(pointer, UNKNOWN, "There is no such parameter."));
        }
    }
    for parameter in parameters {
        let values = pairs.iter().filter(|(name, _)| *name == parameter.name).map(|(_, value)| value.clone()).collect();
        parameter.check(values, &report::child("/query", &parameter.name), &mut problems);
    }
    problems
}

/// Gives each value the one spelling that handlers read; says whether that changed anything.
fn normalise(pairs: &mut Vec<(String, String)>, parameters: &[&Parameter]) -> bool {
    let mut changed = false;
    let mut normal = Vec::with_capacity(pairs.len());
    for (name, value) in pairs.drain(..) {
        match parameters.iter().find(|parameter| parameter.name == name) {
            Some(parameter) if parameter.commas && value.contains(',') => {
                changed = true;
                normal.extend(value.split(',').map(|value| (name.clone(), value.to_owned())));
            }
            // `2026-05-20T10:30:00+00:00` as it stands in our own answers, pasted into a query
            Some(parameter) if parameter.instant && value.contains(' ') => {
                changed = true;
                normal.push((name, value.replace(' ', "+")));
            }
            _ => normal.push((name, value)),
        }
    }
    *pairs = normal;
    changed
}

fn set_query(request: &mut Request, pairs: &[(String, String)]) {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let mut parts = request.uri().clone().into_parts();
    let path_and_query = format!("{}?{query}", request.uri().path());
    parts.path_and_query = path_and_query.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

impl Parameter {
    fn check(&self, values: Vec<String>, pointer: &str, problems: &mut Vec<FieldError>) {
        problems.extend(values.iter().flat_map(|value| report::with_nul(&Value::from(value.as_str()), pointer)));
        match values.as_slice() {
            [] if self.required => {
                problems.push(FieldError::new(pointer, "required", "This parameter is required."));
            }
            [] => {}
            values if self.array => {
                let value = values.iter().map(|value| self.kind.read(value)).collect();
                problems.extend(report::problems(&self.validator, &value, pointer));
            }
            [value] => problems.extend(report::problems(&self.validator, &self.kind.read(value), pointer)),
            _ => problems.push(FieldError::new(pointer, "repeated", "This parameter is given more than once.")),
        }
    }
}

impl Kind {
    /// The JSON value that `text` spells; what cannot be read stays text, which the schema then refuses.
    pub(super) fn read(self, text: &str) -> Value {
        let text_value = || Value::from(text);
        match self {
            Self::Text => text_value(),
            Self::Boolean => text.parse().map_or_else(|_| text_value(), Value::Bool),
            // `+1`, which Rust reads as a number and JSON does not, is refused
            Self::Integer | Self::Number if text.starts_with('+') => text_value(),
            Self::Integer => {
                let number = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
                number.unwrap_or_else(|_| text_value())
            }
            Self::Number => text.parse::<f64>().map_or_else(|_| text_value(), Value::from),
        }
    }
}

//! The operations of the served document, compiled once at start: what each takes and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use jsonschema::Validator;
use serde_json::Value;

use super::report::problems;
use super::schema::{Members, compile, resolve};
use super::secrets;
use crate::auth::Permission;
use crate::error::FieldError;
use crate::idempotency::KEY;
use crate::openapi::REQUIRED_PERMISSION;
use crate::streamed::Columns;

/// The methods that a path item can have, in the order in which `Allow` lists them.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Operations to which others write the query: a provider of single sign-on may add what it likes (RFC 6749, 4.1.2).
const OPEN_QUERY: &[&str] = &["ssoCallback"];

/// One operation of the document.
#[derive(Debug)]
pub struct Operation {
    /// Its `operationId`.
    pub id: String,
    /// Its path as documented, `/api/jobs/{id}`.
    pub pattern: String,
    /// Whether it demands credentials.
    pub secured: bool,
    /// What whoever calls it must be allowed to do.
    pub permission: Option<Permission>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Whether it takes an `Idempotency-Key`.
    pub(super) takes_key: bool,
    /// Whether parameters of the query that are not documented are ignored.
    pub(super) open_query: bool,
    /// Of a list: its rows as a table.
    pub(crate) rows: Option<Columns>,
    /// Empty unless answers are checked.
    pub(crate) answers: BTreeMap<u16, Media>,
    /// By status, the paths of the members that are shown once; an empty step stands for every item of a list.
    secrets: BTreeMap<u16, Vec<secrets::Place>>,
}

impl Operation {
    /// Where an answer of this status holds secrets.
    pub(crate) fn secrets(&self, status: u16) -> &[secrets::Place] {
        self.secrets.get(&status).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Media types, each with the schema of its content when that is JSON or a form.
pub(crate) type Media = BTreeMap<String, Option<Validator>>;

/// Where a parameter is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Query,
    Path,
    Header,
}

/// How the text of a parameter becomes the JSON value that its schema speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) required: bool,
    /// May be repeated.
    pub(super) array: bool,
    /// An instant, whose offset begins with a plus that a query reads as a space.
    pub(super) instant: bool,
    /// May also be given as a comma list: arrays of enumerations.
    pub(super) commas: bool,
    pub(super) kind: Kind,
    pub(super) validator: Validator,
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) required: bool,
    pub(super) media: Media,
    /// How the values of a form become JSON.
    pub(super) kinds: BTreeMap<String, Kind>,
}

/// All paths that the server knows. Nothing else reaches a handler.
#[derive(Debug, Default)]
pub struct Operations {
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    segments: Vec<Segment>,
    /// `None` for a page that is not an operation of the document.
    methods: BTreeMap<&'static str, Option<Arc<Operation>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
}

/// What a method and a path lead to.
#[derive(Debug)]
pub enum Match {
    Operation(Arc<Operation>, Vec<(String, String)>),
    Page,
    /// The methods that the path has, as `Allow` lists them.
    MethodNotAllowed(String),
    NotFound,
}

impl Operations {
    /// Compiles `document`; `pages` are further paths that answer to GET. What operations answer is compiled only with
    /// `answers`: it takes much memory, and only tests hold answers against it.
    ///
    /// # Errors
    /// When the document has a schema that cannot be compiled: it is broken, and the server must not start.
    pub fn compile(document: &Value, pages: &[&str], answers: bool) -> anyhow::Result<Self> {
        let mut routes = Vec::new();
        for (pattern, item) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
            let mut methods = BTreeMap::new();
            for method in METHODS {
                if let Some(operation) = item.get(method) {
                    let operation = compile_operation(document, pattern, operation, answers)
                        .with_context(|| format!("{method} {pattern} in the OpenAPI document"))?;
                    methods.insert(method, Some(Arc::new(operation)));
                }
            }
            routes.push(Route { segments: segments(pattern), methods });
        }
        routes.extend(pages.iter().map(|page| Route { segments: segments(page), methods: [("get", None)].into() }));
        Ok(Self { routes })
    }

    /// What is wrong with `body` as the JSON body of the operation of this id; `base` is the pointer to it.
    #[must_use]
    pub fn problems_of_body(&self, id: &str, body: &Value, base: &str) -> Vec<FieldError> {
        let operations = self.routes.iter().flat_map(|route| route.methods.values()).flatten();
        let media = operations.filter(|operation| operation.id == id).filter_map(|operation| operation.body.as_ref());
        let mut validators = media.flat_map(|body| &body.media).filter(|(name, _)| name.contains("json"));
        match validators.find_map(|(_, validator)| validator.as_ref()) {
            Some(validator) => problems(validator, body, base),
            None => vec![FieldError::new(base, "unsupported", "There is no such request.")],
        }
    }

    /// Finds what answers to `method` (HEAD is answered where GET is) on `path`.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Match {
        let asked: Vec<&str> = path.split('/').collect();
        let Some(route) = self.routes.iter().filter(|route| route.matches(&asked)).max_by_key(|route| route.literals())
        else {
            return Match::NotFound;
        };
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
        match route.methods.get(method.as_str()) {
            Some(Some(operation)) => Match::Operation(operation.clone(), route.parameters(&asked)),
            Some(None) => Match::Page,
            None => Match::MethodNotAllowed(route.allow()),
        }
    }
}

impl Route {
    fn matches(&self, asked: &[&str]) -> bool {
        self.segments.len() == asked.len()
            && self.segments.iter().zip(asked).all(|(segment, asked)| match segment {
                Segment::Literal(literal) => literal == asked,
                Segment::Parameter(_) => !asked.is_empty(),
            })
    }

    /// For each segment whether it is literal: compared in order, so that the first literal decides as in poem's router.
    fn literals(&self) -> Vec<bool> {
        self.segments.iter().map(|segment| matches!(segment, Segment::Literal(_))).collect()
    }

    fn parameters(&self, asked: &[&str]) -> Vec<(String, String)> {
        let pairs = self.segments.iter().zip(asked);
        pairs
            .filter_map(|(segment, asked)| match segment {
                Segment::Parameter(name) => Some((name.clone(), percent_decoded(asked))),
                Segment::Literal(_) => None,
            })
            .collect()
    }

    fn allow(&self) -> String {
        let mut allow = Vec::new();
        for method in METHODS.iter().filter(|method| self.methods.contains_key(**method)) {
            allow.push(method.to_ascii_uppercase());
            if *method == "get" {
                allow.push("HEAD".to_owned());
            }
        }
        allow.join(", ")
    }
}

/// A path segment as it was meant. `form_urlencoded` reads percent escapes; a plus is no space in a path.
fn percent_decoded(segment: &str) -> String {
    let pair = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
}

fn segments(pattern: &str) -> Vec<Segment> {
    let segment = |text: &str| match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(name) => Segment::Parameter(name.to_owned()),
        None => Segment::Literal(text.to_owned()),
    };
    pattern.split('/').map(segment).collect()
}

fn compile_operation(document: &Value, pattern: &str, operation: &Value, answers: bool) -> anyhow::Result<Operation> {
    let array = |name: &str| operation.get(name).and_then(Value::as_array).into_iter().flatten();
    let parameters = array("parameters").filter_map(|parameter| compile_parameter(document, parameter).transpose());
    let parameters: Vec<Parameter> = parameters.collect::<anyhow::Result<_>>()?;
    let takes_key = parameters.iter().any(|parameter| parameter.place == Place::Header && parameter.name == KEY);
    Ok(Operation {
        id: operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned(),
        pattern: pattern.to_owned(),
        // an empty alternative `{}` means that the credentials are optional
        secured: array("security").next().is_some()
            && array("security").all(|alternative| alternative.as_object().is_some_and(|schemes| !schemes.is_empty())),
        permission: operation.get(REQUIRED_PERMISSION).and_then(Value::as_str).and_then(Permission::parse),
        parameters,
        body: operation.get("requestBody").map(|body| compile_body(document, body)).transpose()?,
        takes_key,
        open_query: operation.get("operationId").and_then(Value::as_str).is_some_and(|id| OPEN_QUERY.contains(&id)),
        rows: Columns::of(document, operation),
        answers: if answers { compile_answers(document, operation)? } else { BTreeMap::new() },
        secrets: secrets::find(document, operation)?,
    })
}

fn compile_parameter(document: &Value, parameter: &Value) -> anyhow::Result<Option<Parameter>> {
    let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default();
    let place = match text("in") {
        "query" => Place::Query,
        "path" => Place::Path,
        "header" => Place::Header,
        _ => return Ok(None),
    };
    let schema = parameter.get("schema").ok_or_else(|| anyhow!("the parameter {} has no schema", text("name")))?;
    let resolved = resolve(document, schema);
    let array = resolved.get("type").and_then(Value::as_str) == Some("array");
    let item = if array { resolve(document, resolved.get("items").unwrap_or(&Value::Null)) } else { resolved };
    Ok(Some(Parameter {
        name: text("name").to_owned(),
        place,
        required: parameter.get("required") == Some(&Value::Bool(true)),
        array,
        instant: item.get("format").and_then(Value::as_str) == Some("date-time"),
        commas: array && item.get("enum").is_some(),
        kind: kind(item),
        validator: compile(document, schema, Members::AsDeclared)?,
    }))
}

fn kind(schema: &Value) -> Kind {
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Text,
    }
}

fn compile_body(document: &Value, body: &Value) -> anyhow::Result<Body> {
    let media = compile_media(document, body, Members::AsDeclared)?;
    let form = body.get("content").and_then(|content| content.get(super::FORM)).and_then(|media| media.get("schema"));
    let properties = form.and_then(|schema| resolve(document, schema).get("properties")).and_then(Value::as_object);
    let kinds = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), kind(resolve(document, schema))));
    Ok(Body { required: body.get("required") == Some(&Value::Bool(true)), media, kinds: kinds.collect() })
}

fn compile_answers(document: &Value, operation: &Value) -> anyhow::Result<BTreeMap<u16, Media>> {
    let responses = operation.get("responses").and_then(Value::as_object).into_iter().flatten();
    responses
        .map(|(status, response)| Ok((status.parse()?, compile_media(document, response, Members::Closed)?)))
        .collect()
}

fn compile_media(document: &Value, holder: &Value, members: Members) -> anyhow::Result<Media> {
    let content = holder.get("content").and_then(Value::as_object).into_iter().flatten();
    content
        .map(|(name, media)| {
            let checked = name.ends_with("json") || name == super::FORM;
            let schema = media.get("schema").filter(|_| checked);
            let validator = schema.map(|schema| compile(document, schema, members)).transpose()?;
            Ok((name.clone(), validator))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operations() -> Operations {
        let operation = |id: &str| json!({"operationId": id, "responses": {}});
        let document = json!({"paths": {
            "/api/jobs": {"get": operation("list"), "post": operation("start")},
            "/api/jobs/{id}": {"get": operation("get"), "delete": operation("delete")},
            "/api/jobs/latest": {"get": operation("latest")},
            "/api/{kind}/latest": {"get": operation("latestOf")},
        }});
        Operations::compile(&document, &["/docs"], true).unwrap()
    }

    fn found(method: &str, path: &str) -> String {
        match operations().find(method, path) {
            Match::Operation(operation, parameters) => {
                let values: Vec<_> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {}", operation.id, values.join(" ")).trim_end().to_owned()
            }
            Match::Page => "page".to_owned(),
            Match::MethodNotAllowed(allow) => format!("405 {allow}"),
            Match::NotFound => "404".to_owned(),
        }
    }

    #[test]
    fn literals_come_before_parameters_and_nothing_else_matches() {
        for (method, path, expected) in [
            ("GET", "/api/jobs", "list"),
            ("HEAD", "/api/jobs", "list"),
            ("GET", "/api/jobs/7", "get id=7"),
            ("GET", "/api/jobs/a%2Fb+c", "get id=a/b+c"),
            ("GET", "/api/jobs/latest", "latest"),
            ("GET", "/api/scans/latest", "latestOf kind=scans"),
            ("PUT", "/api/jobs", "405 GET, HEAD, POST"),
            ("OPTIONS", "/api/jobs/7", "405 GET, HEAD, DELETE"),
            ("GET", "/docs", "page"),
            ("POST", "/docs", "405 GET, HEAD"),
            ("GET", "/api/jobs/", "404"),
            ("GET", "/api/jobs/7/8", "404"),
            ("GET", "/api/Jobs", "404"),
            ("GET", "//api/jobs", "404"),
            ("GET", "/", "404"),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
    }
}

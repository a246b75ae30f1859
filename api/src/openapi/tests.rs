use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::answer::{Created, Found, NoContent};
use crate::error::ApiError;
use crate::idempotency::{Made, Once};
use crate::page::Page;
use crate::patch::Patch;
use crate::strict::{Members, Operations, compile};
use crate::timestamp::Timestamp;

#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename_all = "lowercase")]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct Thing {
    id: Uuid,
    colour: Option<Colour>,
    made_at: Timestamp,
    note: Option<String>,
    tags: std::collections::HashMap<String, String>,
}

#[derive(Debug, Object)]
struct NewThing {
    #[oai(validator(min_length = 1, max_length = 20))]
    name: String,
    colour: Option<Colour>,
    settings: Option<Settings>,
}

#[derive(Debug, Object)]
struct Settings {
    paths: Vec<String>,
}

#[derive(Debug, Object)]
struct ThingPatch {
    name: Option<String>,
    colour: Patch<Colour>,
    note: Patch<String>,
}

struct Api;

#[derive(poem_openapi::Tags)]
enum Tags {
    /// Things of the test.
    Things,
}

#[poem_openapi::OpenApi(tag = "Tags::Things")]
impl Api {
    /// List things
    #[oai(path = "/api/things", method = "get", operation_id = "listThings")]
    async fn list(
        &self,
        #[oai(name = "colour")] _colour: Query<Option<Vec<Colour>>>,
    ) -> Result<Json<Page<Thing>>, ApiError> {
        Err(ApiError::draining())
    }

    /// Make a thing
    #[oai(path = "/api/things", method = "post", operation_id = "createThing")]
    async fn create(&self, _once: Once, _body: Json<NewThing>) -> Result<Made<Created<Thing>>, ApiError> {
        Err(ApiError::draining())
    }

    /// Get a thing
    #[oai(path = "/api/things/:id", method = "get", operation_id = "getThing")]
    async fn get(&self, #[oai(name = "id")] _id: Path<Uuid>) -> Result<Found<Thing>, ApiError> {
        Err(ApiError::draining())
    }

    /// Change a thing
    #[oai(path = "/api/things/:id", method = "patch", operation_id = "updateThing")]
    async fn update(
        &self,
        #[oai(name = "id")] _id: Path<Uuid>,
        _body: Json<ThingPatch>,
    ) -> Result<Found<Thing>, ApiError> {
        Err(ApiError::draining())
    }

    /// Remove a thing
    #[oai(path = "/api/things/:id", method = "delete", operation_id = "deleteThing")]
    async fn delete(
        &self,
        #[oai(name = "id")] _id: Path<Uuid>,
        #[oai(name = "If-Match")] _version: Header<Option<String>>,
    ) -> Result<NoContent, ApiError> {
        Err(ApiError::draining())
    }
}

fn sample() -> Value {
    document::<Api>(Options { rate_limits: true })
}

fn at<'d>(document: &'d Value, pointer: &str) -> &'d Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {document:#}"))
}

#[test]
fn the_whole_document_is_as_it_was() {
    insta::assert_json_snapshot!(sample());
}

#[test]
fn nothing_is_wrong_with_it() {
    assert_eq!(problems::<Api>(&sample()), Vec::<String>::new());
}

#[test]
fn answers_are_nullable_and_complete_but_requests_are_neither() {
    let document = sample();
    let thing = at(&document, "/components/schemas/Thing");
    assert_eq!(at(thing, "/properties/note/nullable"), true);
    assert_eq!(at(thing, "/properties/colour/nullable"), true);
    assert_eq!(at(thing, "/required").as_array().unwrap().len(), 5);
    assert_eq!(thing.get("additionalProperties"), None, "answers may grow");
    let new = at(&document, "/components/schemas/NewThing");
    assert_eq!(at(new, "/additionalProperties"), false);
    assert_eq!(at(new, "/required"), &json!(["name"]));
    assert!(new.pointer("/properties/colour/nullable").is_none());
    assert_eq!(at(&document, "/components/schemas/Settings/additionalProperties"), false);
    let patch = at(&document, "/components/schemas/ThingPatch");
    assert_eq!(at(patch, "/properties/colour/nullable"), true);
    assert_eq!(at(patch, "/properties/note/nullable"), true);
    assert!(patch.pointer("/properties/name/nullable").is_none());
}

#[test]
fn refusals_follow_from_what_an_operation_takes() {
    let document = sample();
    let statuses = |method: &str, path: &str| -> Vec<u16> {
        let responses = document["paths"][path][method]["responses"].as_object().unwrap();
        responses.keys().map(|status| status.parse().unwrap()).collect()
    };
    assert_eq!(statuses("get", "/api/things"), [200, 400, 414, 429, 431, 500, 503]);
    assert_eq!(statuses("post", "/api/things"), [201, 400, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503]);
    assert_eq!(statuses("get", "/api/things/{id}"), [200, 304, 400, 404, 414, 429, 431, 500, 503]);
    assert_eq!(statuses("delete", "/api/things/{id}"), [204, 400, 404, 412, 414, 428, 429, 431, 500, 503]);
}

#[test]
fn every_body_has_an_example_that_its_schema_accepts() {
    let document = sample();
    let mut checked = 0;
    for (method, path, operation) in operations(&document) {
        let bodies =
            operation.get("requestBody").into_iter().chain(operation["responses"].as_object().unwrap().values());
        for media in bodies.filter_map(|body| body.get("content")?.as_object()).flat_map(|content| content.values()) {
            let validator = compile(&document, &media["schema"], Members::Closed).unwrap();
            let problems = crate::strict::problems(&validator, &media["example"], "");
            assert!(problems.is_empty(), "{method} {path}: {problems:?} in {:#}", media["example"]);
            checked += 1;
        }
    }
    assert!(checked > 20);
    assert!(Operations::compile(&document, &[], true).is_ok());
}

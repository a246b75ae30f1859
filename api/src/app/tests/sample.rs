//! An API of its own for the tests of the assembly.

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{Form, Json};
use poem_openapi::{ApiRequest, ApiResponse, Enum, Object};
use uuid::Uuid;

use crate::answer::NoContent;
use crate::context;
use crate::error::ApiError;
use crate::patch::Patch;
use crate::routes::Tag;
use crate::timestamp::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum Colour {
    Red,
    Green,
    Blue,
}

#[derive(Debug, Clone, Object)]
#[oai(rename_all = "camelCase")]
struct Thing {
    name: String,
    #[oai(validator(minimum(value = "0"), maximum(value = "9")))]
    size: Option<u8>,
    colour: Option<Colour>,
    due_at: Option<Timestamp>,
}

/// Without the database that a real creation needs.
#[derive(Debug, ApiResponse)]
enum NewThing {
    #[oai(status = 201)]
    Created(Json<Thing>, #[oai(header = "Location")] String),
}

#[derive(Debug, Object)]
struct ThingPatch {
    name: Option<String>,
    colour: Patch<Colour>,
}

#[derive(Debug, Object, serde::Deserialize)]
struct Login {
    username: String,
    #[oai(validator(min_length = 8))]
    password: String,
}

#[derive(Debug, ApiRequest)]
enum LoginRequest {
    Json(Json<Login>),
    Form(Form<Login>),
}

/// Operations that take and answer everything that the layers look at.
pub(super) struct TestApi;

#[poem_openapi::OpenApi(tag = "Tag::System")]
impl TestApi {
    /// Make a thing
    #[oai(path = "/api/things", method = "post", operation_id = "createThing")]
    async fn create(&self, body: Json<Thing>) -> Result<NewThing, ApiError> {
        Ok(NewThing::Created(body, "/api/things/1".to_owned()))
    }

    /// Echo the query
    #[oai(path = "/api/things", method = "get", operation_id = "listThings")]
    async fn list(
        &self,
        colour: Query<Option<Vec<Colour>>>,
        limit: Query<Option<u8>>,
        tag: Query<Option<Vec<String>>>,
        after: Query<Option<Timestamp>>,
        #[oai(name = "X-Count")] count: Header<Option<i32>>,
    ) -> Result<Json<Vec<String>>, ApiError> {
        let colours = colour.0.unwrap_or_default().into_iter().map(|colour| format!("{colour:?}"));
        let tags = tag.0.unwrap_or_default();
        let numbers = [limit.0.map(i32::from), count.0].into_iter().flatten().map(|number| number.to_string());
        let after = after.0.map(|after| after.to_string());
        Ok(Json(colours.chain(tags).chain(numbers).chain(after).collect()))
    }

    /// Get a thing
    #[oai(path = "/api/things/:id", method = "get", operation_id = "getThing")]
    async fn get(&self, id: Path<Uuid>) -> Result<Json<Thing>, ApiError> {
        Ok(Json(Thing { name: id.0.to_string(), size: None, colour: None, due_at: None }))
    }

    /// Change a thing
    #[oai(path = "/api/things/:id", method = "patch", operation_id = "updateThing")]
    async fn update(
        &self,
        #[oai(name = "id")] _id: Path<Uuid>,
        body: Json<ThingPatch>,
    ) -> Result<Json<String>, ApiError> {
        Ok(Json(format!("{:?} {:?}", body.0.name, body.0.colour)))
    }

    /// Log in
    #[oai(path = "/api/login", method = "post", operation_id = "login")]
    async fn login(&self, body: LoginRequest) -> Result<NoContent, ApiError> {
        let (LoginRequest::Json(Json(login)) | LoginRequest::Form(Form(login))) = body;
        assert!(!login.username.is_empty() && login.password.len() >= 8);
        Ok(NoContent::NoContent)
    }

    /// Panic
    #[oai(path = "/api/panic", method = "get", operation_id = "panic")]
    async fn panic(&self) -> Result<NoContent, ApiError> {
        panic!("hunter2")
    }

    /// Answer what is not documented
    #[oai(path = "/api/undocumented", method = "get", operation_id = "undocumented")]
    async fn undocumented(&self) -> Result<NoContent, ApiError> {
        Err(ApiError::conflict("an unlisted 409"))
    }

    /// Tell the request's id
    #[oai(path = "/api/request-id", method = "get", operation_id = "tellRequestId")]
    async fn request_id(&self) -> Result<Json<String>, ApiError> {
        Ok(Json(context::request_id()))
    }
}

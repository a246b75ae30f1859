//! The gate, on an operation of its own.

use super::{LicenceGate, Licensed, tier};
use crate::{
    answer::NoContent,
    app::{self, Draining},
    error::ApiError,
    openapi,
    page::CursorKey,
    routes::Tag,
};
use keywright_jobs::{
    licence::Licence,
    setup::{clock::Clock, config::LicenceKey, database::Database},
};
use poem::{Endpoint, Request};
use poem_openapi::OpenApi;
use serde_json::{Value, json};
use std::sync::Arc;

struct ProbeApi;

#[OpenApi(tag = "Tag::System")]
impl ProbeApi {
    /// Do what only some may
    #[oai(path = "/api/probe", method = "post", operation_id = "probe")]
    async fn probe(&self, _licensed: Licensed<tier::Pro>) -> Result<NoContent, ApiError> {
        Ok(NoContent::NoContent)
    }
}

async fn ask(key: Option<LicenceKey>) -> (u16, Value) {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(&format!("sqlite://{}/k.db", folder.path().display()), 1).await.unwrap();
    db.migrate().await.unwrap();
    let licence = Licence::open(key, None, db, Clock::system()).await.unwrap();
    let options = app::Options {
        cursor_key: CursorKey::new(b"test"),
        fingerprint_key: crate::idempotency::FingerprintKey::new(b"test"),
        request_ids: Arc::new(|| "made".to_owned()),
        gates: vec![Arc::new(LicenceGate(Arc::new(licence)))],
        draining: Draining::default(),
        document: openapi::Options::default(),
        check_answers: false,
    };
    let app = app::build(ProbeApi, options).unwrap();
    let request = Request::builder().method(poem::http::Method::POST).uri_str("/api/probe").finish();
    let mut response = app.get_response(request).await;
    let body = response.take_body().into_string().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_tier_that_is_not_in_force_is_refused_by_name() {
    assert_eq!(ask(None).await, (204, Value::Null));
    let key = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=".parse().unwrap();
    let (status, problem) = ask(Some(key)).await;
    assert_eq!((status, &problem["code"], &problem["requiredTier"]), (403, &json!("tier_required"), &json!("PRO")));
}

#[test]
fn the_document_names_the_tier_and_no_way_to_authenticate_of_that_name() {
    let document = openapi::document::<ProbeApi>(openapi::Options::default());
    let operation = &document["paths"]["/api/probe"]["post"];
    assert_eq!(operation["x-required-tier"], "PRO");
    assert_eq!(operation["security"], Value::Null);
    assert!(operation["responses"]["403"].is_object());
    assert!(!document.to_string().contains("tier:"), "{document}");
}

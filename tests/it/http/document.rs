//! The document is the one that is checked in, and the pages that show it need nothing else.

use keywright_tests::{database::TestDatabase, http::Api, on_both_databases};
use serde_json::Value;
use std::collections::BTreeSet;

on_both_databases!(
    the_served_document_is_the_one_in_docs,
    the_pages_load_nothing_from_elsewhere,
    every_operation_is_described
);

async fn the_served_document_is_the_one_in_docs(database: TestDatabase) {
    let api = Api::on(database).await;
    let served = api.nobody().get("/openapi.json").await;
    assert_eq!(served.header("content-type"), Some("application/json"));
    let (served, file) = (served.ok(200), concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json"));
    if keywright_jobs::setup::config::variable("KWTEST_WRITE_DOCS").is_some() {
        std::fs::write(file, serde_json::to_string_pretty(&served).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(served == kept, "docs/openapi.json is not what is served: run ./just openapi");
}

async fn the_pages_load_nothing_from_elsewhere(database: TestDatabase) {
    let api = Api::on(database).await;
    for path in ["/docs", "/redoc", "/docs/errors"] {
        let page = api.nobody().get(path).await;
        let policy = page.header("content-security-policy").unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';"), "{path}: {policy}");
        let sources: Vec<&str> =
            policy.split([' ', ';']).filter(|word| word.contains("://") || word.contains('*')).collect();
        assert!(sources.is_empty() && !policy.contains("'unsafe-eval'"), "{path}: {policy}");
        let scripts = policy.split(';').find(|part| part.trim().starts_with("script-src")).unwrap();
        assert!(!scripts.contains("unsafe") && !scripts.contains("self"), "{path}: {scripts}");
        assert_eq!((page.status, page.header("x-content-type-options")), (200, Some("nosniff")), "{path}");
        // what a browser fetches by itself while it reads the page
        for (element, attribute) in [("<script", "src="), ("<link", "href="), ("<img", "src="), ("<iframe", "src=")] {
            for tag in page.text.split(element).skip(1).filter_map(|rest| rest.split('>').next()) {
                assert!(!tag.contains(&format!("{attribute}\"http")), "{path}: {element}{tag:.200}");
            }
        }
        assert!(!page.text.contains("@import"), "{path}");
    }
    let errors = api.nobody().get("/docs/errors").await.text;
    assert!(errors.contains("id=\"database_unavailable\"") && errors.contains("id=\"job_done\""));
}

async fn every_operation_is_described(database: TestDatabase) {
    let api = Api::on(database).await;
    let document = api.nobody().get("/openapi.json").await.ok(200);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let text = |member: &str| operation[member].as_str().unwrap_or_default().to_owned();
            assert!(ids.insert(text("operationId")) && !text("operationId").is_empty(), "{method} {path}");
            assert!(!text("summary").is_empty(), "{method} {path}");
            let statuses: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
            assert!(
                statuses.iter().any(|status| status.starts_with('2') || *status == "302"),
                "{method} {path}: {statuses:?}"
            );
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let json = answer["content"].as_object().into_iter().flatten();
                for (media_type, content) in json {
                    let problem = status.as_str() >= "400";
                    // people come to these with a browser, which may ask for a page instead
                    let page = path.starts_with("/api/auth/sso/") && media_type == "text/html";
                    assert!(page || (media_type == "application/problem+json") == problem, "{method} {path} {status}");
                    assert!(content["schema"].is_object(), "{method} {path} {status}");
                }
            }
        }
    }
}

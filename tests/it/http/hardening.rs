//! What keeps the facade up against clients that mean harm.

use keywright_api::{cors::Cors, service::Surroundings};
use keywright_tests::{
    database::TestDatabase,
    http::{Api, LOOPBACK},
    on_both_databases,
};
use reqwest::Method;

on_both_databases!(other_origins_read_nothing_unless_they_are_named,);

async fn other_origins_read_nothing_unless_they_are_named(database: TestDatabase) {
    let cors = Cors(vec!["https://portal.example.com".to_owned()]);
    let api = Api::surrounded(database, LOOPBACK, Surroundings { cors, ..Surroundings::default() }).await;
    let closed = api.neighbour().await;
    let ask = |origin: &str| api.viewer().with("Origin", origin);
    let preflight = |origin: &str| ask(origin).with("Access-Control-Request-Method", "POST");
    let answer = preflight("https://portal.example.com").send(Method::OPTIONS, "/api/jobs", None).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://portal.example.com"));
    assert!(answer.header("access-control-allow-headers").is_some_and(|names| names.contains("Authorization")));
    let read = ask("https://portal.example.com").get("/api/jobs").await;
    assert_eq!(read.header("access-control-allow-origin"), Some("https://portal.example.com"));
    for answer in [&answer, &read] {
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    // a page must be able to read why it was refused
    let refused = ask("https://portal.example.com").get("/api/nothing").await;
    assert!(refused.header("access-control-allow-origin").is_some());
    for origin in ["https://portal.example.com.evil.example", "https://PORTAL.example.com", "null", "*", ""] {
        preflight(origin).send(Method::OPTIONS, "/api/jobs", None).await.refused(405, "method_not_allowed");
        let read = ask(origin).get("/api/jobs").await;
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None), "{origin}");
    }
    let closed = ask("https://portal.example.com").at(closed.address).get("/api/jobs").await;
    assert_eq!((closed.header("access-control-allow-origin"), closed.header("vary")), (None, None));
}

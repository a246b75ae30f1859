//! Single sign-on, at a provider that others wrote and at one that does what it should not.

mod people;
mod provider;
mod way;

use keywright_api::service::Surroundings;
use keywright_entities::audit_outbox;
use keywright_tests::{
    database::TestDatabase,
    http::{Answer, Api, LOOPBACK},
    oidc::{self, Provider},
};
use sea_orm::{EntityTrait, QueryOrder};

const LOGIN: &str = "/api/auth/sso/login";
const CALLBACK: &str = "/api/auth/sso/callback";

/// What the operator says of this provider, with further settings.
fn at(issuer: &str, more: &[(&str, &str)]) -> Surroundings {
    Surroundings { sso: Some(oidc::registration(issuer, more)), ..Surroundings::default() }
}

async fn on(database: TestDatabase, provider: &Provider, more: &[(&str, &str)]) -> Api {
    Api::surrounded(database, LOOPBACK, at(provider.url(), more)).await
}

async fn events(api: &Api) -> Vec<audit_outbox::Model> {
    let events = audit_outbox::Entity::find().order_by_asc(audit_outbox::Column::Id);
    events.all(api.app.database().reader()).await.unwrap()
}

/// Somebody came in: a page that moves on to `next`, and a session in cookies.
#[track_caller]
fn came_in(answer: &Answer, next: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        answer.text.contains(&format!("<meta http-equiv=\"refresh\" content=\"0; url={next}\">")),
        "{}",
        answer.text
    );
    let cookies: Vec<&str> = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    let of = |name: &str| cookies.iter().find(|cookie| cookie.starts_with(name)).copied().unwrap_or_default();
    for name in ["keywright=ey", "keywright-refresh=kwr_"] {
        assert!(of(name).contains("; HttpOnly; SameSite=Strict; Path=/; Max-Age="), "{cookies:?}");
    }
    assert!(of("keywright-sso-").ends_with("HttpOnly; SameSite=Lax; Path=/; Max-Age=0"), "{cookies:?}");
}

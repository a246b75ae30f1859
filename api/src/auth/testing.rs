//! A server of identity alone, on a database of its own, for the tests beside the code.

use super::{
    Caller, Identity, IdentityGate, Settings, bootstrap, denials::Audited, passwords::Passwords, perm,
    signing_keys::SigningKeys,
};
use crate::{
    answer::NoContent,
    app,
    error::ApiError,
    openapi,
    page::CursorKey,
    routes::{Tag, auth::AuthApi, tokens::TokensApi},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use keywright_entities::{audit_outbox, clock, types::Role, user_account};
use keywright_jobs::setup::{clock::Clock, config::MasterKeySource, database::Database, ids, sealing::Sealing};
use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response,
    endpoint::BoxEndpoint,
    http::{HeaderMap, Method, StatusCode},
};
use poem_openapi::OpenApi;
use sea_orm::{ActiveModelTrait, EntityTrait, QueryOrder, Set};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use uuid::Uuid;

pub const ADMIN_PASSWORD: &str = "correct-horse-battery";

/// Two operations that do nothing, to try the gate with.
struct ProbeApi;

#[OpenApi(tag = "Tag::System")]
impl ProbeApi {
    /// Start something
    #[oai(path = "/api/probe", method = "post", operation_id = "probeStart")]
    async fn start(&self, _caller: Caller<perm::JobsStart>) -> Result<NoContent, ApiError> {
        Ok(NoContent::NoContent)
    }

    /// Read the audit log
    #[oai(path = "/api/probe", method = "get", operation_id = "probeAudit")]
    async fn audit(&self, _caller: Caller<perm::AuditRead>) -> Result<NoContent, ApiError> {
        Ok(NoContent::NoContent)
    }
}

pub struct Rig {
    pub db: Database,
    pub identity: Arc<Identity>,
    offset: Arc<AtomicI64>,
    app: BoxEndpoint<'static, Response>,
    _folder: tempfile::TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn text(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_else(|| panic!("no {member} in {}", self.body))
    }

    pub fn cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }
}

pub async fn database(folder: &tempfile::TempDir) -> Database {
    let db = Database::open(&format!("sqlite://{}/keywright.db", folder.path().display()), 4).await.unwrap();
    db.migrate().await.unwrap();
    db
}

pub async fn sealing(db: &Database) -> Sealing {
    Sealing::start(db, &MasterKeySource::Given(STANDARD.encode([7; 32]).into())).await.unwrap()
}

pub async fn signing_keys() -> SigningKeys {
    let folder = tempfile::tempdir().unwrap();
    let db = database(&folder).await;
    SigningKeys::load(&db, &sealing(&db).await).await.unwrap()
}

impl Rig {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let offset = Arc::new(AtomicI64::new(0));
        let clock = {
            let (offset, system) = (Arc::clone(&offset), Clock::system());
            Clock::from_fn(move || system.now() + chrono::TimeDelta::seconds(offset.load(Ordering::SeqCst)))
        };
        let identity = Identity::start(db.clone(), &sealing(&db).await, clock, Settings::default()).await.unwrap();
        bootstrap::first_admin(&db, &identity.passwords, Some(&ADMIN_PASSWORD.into())).await.unwrap();
        let options = app::Options {
            cursor_key: CursorKey::new(b"test"),
            fingerprint_key: crate::idempotency::FingerprintKey::new(b"test"),
            request_ids: Arc::new(|| ids::new().to_string()),
            gates: vec![Arc::new(IdentityGate(Arc::clone(&identity)))],
            draining: app::Draining::default(),
            document: openapi::Options::default(),
            check_answers: true,
        };
        let api = (AuthApi::new(Arc::clone(&identity)), TokensApi::new(Arc::clone(&identity)), ProbeApi);
        let app = Audited::new(Arc::clone(&identity.denials), app::build(api, options).unwrap()).boxed();
        Self { db, identity, offset, app, _folder: folder }
    }

    /// Lets time pass for tokens. The database's clock stays.
    pub fn pass(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::SeqCst);
    }

    pub async fn send(&self, request: Request) -> Answer {
        let response = self.app.call(request).await.unwrap().into_response();
        let (parts, body) = response.into_parts();
        let bytes = body.into_vec().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let builder =
            Request::builder().method(method).uri_str(path).header("authorization", format!("Bearer {token}"));
        self.send(match body {
            Some(body) => builder.content_type("application/json").body(body.to_string()),
            None => builder.finish(),
        })
        .await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(Method::POST).uri_str(path).content_type("application/json");
        self.send(request.body(body.to_string())).await
    }

    pub async fn login(&self, name: &str, password: &str) -> Answer {
        self.post("/api/auth/login", json!({"username": name, "password": password})).await
    }

    /// The access token of a new session.
    pub async fn access(&self, name: &str) -> String {
        self.login(name, ADMIN_PASSWORD).await.text("access_token").to_owned()
    }

    /// A user with the same password as the administrator.
    pub async fn add_user(&self, name: &str, role: Role) -> Uuid {
        let id = ids::new();
        let write = self.db.begin().await.unwrap();
        let now = clock::micros(clock::now(&*write).await.unwrap());
        let row = user_account::ActiveModel {
            id: Set(id),
            name: Set(name.to_owned()),
            name_key: Set(user_account::name_key(name)),
            password_hash: Set(Some(self.identity.passwords.hash(ADMIN_PASSWORD.into()).await.unwrap())),
            password_generated: Set(false),
            role: Set(role),
            disabled: Set(false),
            subscriptions: Set(None),
            sso_issuer: Set(None),
            sso_subject: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
            version: Set(1),
        };
        row.insert(&*write).await.unwrap();
        write.commit().await.unwrap();
        id
    }

    pub async fn change_user(&self, id: Uuid, change: impl FnOnce(&mut user_account::ActiveModel)) {
        let mut row = user_account::by_id(self.db.reader(), id).await.unwrap().unwrap().into();
        change(&mut row);
        let write = self.db.begin().await.unwrap();
        row.update(&*write).await.unwrap();
        write.commit().await.unwrap();
    }

    /// The types of the audit events so far, in order, without denials, which are counted.
    pub async fn events(&self) -> Vec<String> {
        let events = self.audit().await.into_iter().map(|event| event.event_type);
        events.filter(|event| event != "access.denied").collect()
    }

    pub async fn audit(&self) -> Vec<audit_outbox::Model> {
        self.identity.denials.write(true).await.unwrap();
        audit_outbox::Entity::find().order_by_asc(audit_outbox::Column::Id).all(self.db.reader()).await.unwrap()
    }

    pub fn passwords(&self) -> &Passwords {
        &self.identity.passwords
    }
}

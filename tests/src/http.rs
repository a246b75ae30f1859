//! The facade over the in-memory cloud, served in this process as `keywright-api` serves it, and its clients.

mod server;
mod statements;

use crate::{
    app::{TestApp, eventually},
    database::TestDatabase,
    licence::Terms,
};
use chrono::{DateTime, TimeDelta, Utc};
use keywright_api::{routes::jobs::events::Pace, service::Surroundings};
use keywright_jobs::{licence::Licence, setup::clock::Clock};
use reqwest::{Method, RequestBuilder, header::HeaderMap, redirect::Policy};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use server::evidence;
pub use server::{ORGANISATION, Server};
pub use statements::Statements;

pub const ADMIN_PASSWORD: &str = "correct-horse-battery";
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Shift = Arc<Mutex<TimeDelta>>;

/// Keywright behind a port of its own. Its drop stops everything.
pub struct Api {
    pub app: TestApp,
    pub address: SocketAddr,
    shift: Shift,
    client: reqwest::Client,
    tokens: HashMap<&'static str, String>,
    /// What the facade asks of its database.
    pub statements: Arc<Statements>,
    server: Server,
    terms: Option<Terms>,
}

impl Api {
    pub async fn on(database: TestDatabase) -> Self {
        Self::believing(database, LOOPBACK).await
    }

    /// One with a licence.
    pub async fn licensed(database: TestDatabase, terms: Terms) -> Self {
        Self::made(database, LOOPBACK, Surroundings::default(), Pace::default(), Some(terms)).await
    }

    /// One that believes to listen here: what is open to its own machine depends on it.
    pub async fn believing(database: TestDatabase, listen: IpAddr) -> Self {
        Self::made(database, listen, Surroundings::default(), Pace::default(), None).await
    }

    /// One whose streams have a pace of their own.
    pub async fn paced(database: TestDatabase, pace: Pace) -> Self {
        Self::made(database, LOOPBACK, Surroundings::default(), pace, None).await
    }

    /// One whose operator has set limits and the like, which are off in the others.
    pub async fn surrounded(database: TestDatabase, listen: IpAddr, edge: Surroundings) -> Self {
        Self::made(database, listen, edge, Pace::default(), None).await
    }

    /// The same with a licence.
    pub async fn surrounded_and_licensed(database: TestDatabase, edge: Surroundings, terms: Terms) -> Self {
        Self::made(database, LOOPBACK, edge, Pace::default(), Some(terms)).await
    }

    async fn made(
        database: TestDatabase,
        listen: IpAddr,
        edge: Surroundings,
        pace: Pace,
        terms: Option<Terms>,
    ) -> Self {
        let app = TestApp::on(database);
        let shift = Arc::new(Mutex::new(TimeDelta::zero()));
        let statements = Arc::<Statements>::default();
        let database = statements.of(app.another().await);
        let server = Server::start(database, listen, edge, &shift, pace, terms.clone(), evidence(&app)).await;
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
        let mut api =
            Self { app, address: server.address, shift, client, tokens: HashMap::new(), statements, server, terms };
        api.make_tokens().await;
        api
    }

    /// Another facade on the same database, as another process serves it. Clients turn to it with [`Client::at`].
    pub async fn neighbour(&self) -> Server {
        self.surrounded_neighbour(Surroundings::default()).await
    }

    pub async fn surrounded_neighbour(&self, edge: Surroundings) -> Server {
        let (database, terms) = (self.app.another().await, self.terms.clone());
        Server::start(database, LOOPBACK, edge, &self.shift, Pace::default(), terms, evidence(&self.app)).await
    }

    /// This facade's licence.
    pub fn licence(&self) -> &Licence {
        &self.server.licence
    }

    /// Begins to stop, as SIGTERM makes a process do.
    pub fn stop(&self) {
        self.server.stop.cancel();
    }

    async fn make_tokens(&mut self) {
        let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
        let session = self.nobody().post("/api/auth/login", login).await.ok(200);
        let access = session["access_token"].as_str().expect("an access token").to_owned();
        for role in ["viewer", "auditor", "operator", "admin"] {
            let body = json!({"name": role, "role": role});
            let made = self.bearing(&access).post("/api/tokens", body).await.ok(201);
            self.tokens.insert(role, made["token"].as_str().expect("a token").to_owned());
        }
        self.tokens.insert("session", access);
    }

    pub fn admin(&self) -> Client<'_> {
        self.role("admin")
    }

    pub fn operator(&self) -> Client<'_> {
        self.role("operator")
    }

    pub fn viewer(&self) -> Client<'_> {
        self.role("viewer")
    }

    /// The administrator, logged in.
    pub fn session(&self) -> Client<'_> {
        self.role("session")
    }

    pub fn role(&self, role: &str) -> Client<'_> {
        self.bearing(&self.tokens[role])
    }

    pub fn nobody(&self) -> Client<'_> {
        Client { api: self, address: self.address, headers: Vec::new() }
    }

    pub fn bearing(&self, token: &str) -> Client<'_> {
        self.nobody().with("Authorization", format!("Bearer {token}"))
    }

    /// What the domain's clock shows. The database keeps its own.
    pub fn now(&self) -> DateTime<Utc> {
        shifted(&self.shift).now()
    }

    /// Lets time pass for thresholds and for the lifetime of tokens.
    pub fn pass(&self, time: TimeDelta) {
        *self.shift.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    /// Adds a subscription to this account of the cloud.
    pub async fn subscribe(&self, account: &str) -> String {
        self.app.cloud.account(account);
        let body = json!({"provider": "aws", "externalId": account, "name": account});
        self.admin().post("/api/subscriptions", body).await.ok(201).id()
    }

    /// Scans with this body and waits for the end. There must be a worker.
    pub async fn scan(&self, body: Value) -> Value {
        let job = self.operator().post(SCAN, body).await.under_way();
        self.ended(&job.id()).await
    }

    /// The job once it is done.
    pub async fn ended(&self, id: &str) -> Value {
        let job = self.viewer().get(&format!("/api/jobs/{id}?wait=60")).await.ok(200);
        assert_eq!(job["done"], true, "the job has not ended: {job}");
        job
    }

    /// Returns when the worker that holds the job's first part has heard what people want of it: leases are renewed while a call
    /// is under way.
    pub async fn heard(&self, id: &str) {
        let beat = async || {
            let parts = self.viewer().get(&format!("/api/jobs?parentId={id}")).await.ok(200);
            parts["data"][0]["heartbeatAt"].as_str().map(str::to_owned)
        };
        for _ in 0..2 {
            let before = beat().await;
            eventually("the lease is renewed", async || (beat().await != before).then_some(())).await;
        }
    }

    /// Every row of a list, walked by cursor in pages of `limit`. `path` has a query.
    pub async fn walk(&self, path: &str, limit: usize) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.viewer().get(&format!("{path}&limit={limit}{cursor}")).await.ok(200);
            let data = page["data"].as_array().expect("a list").clone();
            let next = page["meta"]["nextCursor"].as_str().map(|next| format!("&cursor={next}"));
            assert_eq!(page["meta"]["hasMore"], next.is_some(), "{page}");
            assert!(data.len() == limit || next.is_none() && data.len() < limit, "a page is full but for the last");
            rows.extend(data);
            assert!(rows.len() < 10_000, "{path} never ends");
            match next {
                Some(next) => cursor = next,
                None => return rows,
            }
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.stop.cancel();
        self.app.stop.cancel();
    }
}

fn shifted(by: &Shift) -> Clock {
    let (by, system) = (Arc::clone(by), Clock::system());
    Clock::from_fn(move || system.now() + *by.lock().unwrap_or_else(PoisonError::into_inner))
}

pub const SCAN: &str = "/api/assets/discovery/scan";
pub const SCANS: &str = "/api/assets/discovery/scans";
pub const ASSETS: &str = "/api/assets/discovery/assets";

/// Somebody with certain credentials and headers.
#[derive(Clone)]
pub struct Client<'a> {
    api: &'a Api,
    address: SocketAddr,
    headers: Vec<(&'static str, String)>,
}

impl Client<'_> {
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Turns to this facade.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.json(Method::POST, path, &body).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.json(Method::PATCH, path, &body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, Some(("application/json", body.to_string().into_bytes()))).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.api.client.request(method, format!("http://{}{path}", self.address));
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }

    /// Asks, and reads nothing of the body yet.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// Sends anything at all; `body` has its media type, which is not sent when empty.
    pub async fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        let what = format!("{method} {path}");
        let mut request = self.request(method, path);
        if let Some((media_type, body)) = body {
            request = if media_type.is_empty() { request } else { request.header("Content-Type", media_type) };
            request = request.body(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if headers.get("content-type").is_some_and(|value| value == "text/event-stream") {
            // a stream has no end; see `follow`
            return Answer { what, status, headers, text: String::new() };
        }
        let text = response.text().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        Answer { what, status, headers, text }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    what: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in ASCII"))
    }

    /// The JSON body; `null` when it is empty.
    pub fn body(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}: {}", self.what, self.text))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text);
        self.body()
    }

    /// The job of a 202.
    #[track_caller]
    pub fn under_way(self) -> Value {
        let location = self.header("location").map(str::to_owned);
        let job = self.ok(202);
        assert_eq!(location, Some(format!("/api/jobs/{}", job.id())));
        job
    }

    /// A refusal in the one shape (RFC 9457), all its members right.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        let problem = self.body();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{}: {problem}", self.what);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.what);
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("/docs/errors#{code}"));
        assert_eq!(problem["error"], problem["title"]);
        assert_eq!(problem["requestId"].as_str(), self.header("x-request-id"), "{problem}");
        let path = self.what.split_once(' ').map_or("", |(_, path)| path.split('?').next().unwrap_or(path));
        assert_eq!(problem["instance"], path);
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member} in {problem}");
        }
        if status == 401 {
            assert!(self.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")), "{}", self.what);
        }
        if status == 403 && code == "permission_denied" {
            assert!(problem["requiredPermission"].is_string(), "{problem}");
        }
        if status == 503 || status == 429 {
            let seconds = self.header("retry-after").and_then(|value| value.parse::<u32>().ok());
            assert!(seconds.is_some(), "{} has no Retry-After in whole seconds", self.what);
        }
        problem
    }

    /// The pointers of a 400.
    #[track_caller]
    pub fn pointers(self, code: &str) -> Vec<String> {
        let problem = self.refused(400, code);
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}")).iter();
        let pointers = errors.map(|error| {
            assert!(error["code"].is_string() && error["message"].is_string(), "{problem}");
            error["pointer"].as_str().expect("a pointer").to_owned()
        });
        pointers.collect()
    }
}

/// What every object has.
pub trait Identified {
    fn id(&self) -> String;
}

impl Identified for Value {
    #[track_caller]
    fn id(&self) -> String {
        self["id"].as_str().unwrap_or_else(|| panic!("no id in {self}")).to_owned()
    }
}

/// These members of each row of a list, as text.
pub fn column(rows: &[Value], member: &str) -> Vec<String> {
    rows.iter().map(|row| row[member].as_str().map_or_else(|| row[member].to_string(), str::to_owned)).collect()
}

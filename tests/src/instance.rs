//! A whole instance as an operator runs it: the API and a worker, two processes on one database, used over HTTP.
#![allow(clippy::indexing_slicing, reason = "what is missing in JSON is null, which the assertions tell")]

use crate::{
    database::TestDatabase,
    process::Process,
    rig::{ACCESS_KEY_ID, SECRET_ACCESS_KEY},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD: &str = "correct-horse-battery";
/// Base64 of 32 bytes: the key of every instance in the tests; on PostgreSQL one starts with none of its own.
pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What the API logs when it can be used.
pub const READY: &str = "keywright-api ready";
/// The longest wait that the API grants.
const WAIT_SECONDS: u64 = 60;
/// Longer than any wait that we ask for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// A running API with its worker, and an administrator's session. Dropping it kills both.
pub struct Instance {
    pub api: Process,
    pub worker: Process,
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Instance {
    /// Starts both on a migrated database. `worker` is the worker's environment beside the database.
    pub async fn start(database: &TestDatabase, worker: &[(&str, &str)]) -> Self {
        Self::start_with(database, &[], worker).await
    }

    /// The same with further settings of both, which win over the usual ones.
    pub async fn start_with(database: &TestDatabase, both: &[(&str, &str)], worker: &[(&str, &str)]) -> Self {
        let shared = [&environment(database)[..], both].concat();
        let api = Process::start("keywright-api", &shared);
        let worker = Process::start("keywright-worker", &[&shared, worker].concat());
        let (api, url) = ready(api).await;
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().expect("an HTTP client");
        let mut instance = Self { api, worker, url, token: String::new(), http };
        instance.log_in().await;
        instance
    }

    /// One more API process on the same database, and its address.
    pub async fn another_api(database: &TestDatabase) -> (Process, String) {
        Self::another_api_with(database, &[]).await
    }

    /// The same with more in its environment.
    pub async fn another_api_with(database: &TestDatabase, extra: &[(&str, &str)]) -> (Process, String) {
        ready(Process::start("keywright-api", &[&environment(database), extra].concat())).await
    }

    /// One more worker on the same database, with this beside the database in its environment.
    pub async fn another_worker(database: &TestDatabase, worker: &[(&str, &str)]) -> Process {
        let mut process = Process::start("keywright-worker", &[&environment(database), worker].concat());
        process.logged("worker ready").await;
        process
    }

    /// Where the API is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's access token.
    pub fn token(&self) -> &str {
        &self.token
    }

    async fn log_in(&mut self) {
        let body = json!({"username": "admin", "password": PASSWORD});
        let (status, session) = self.post("/api/auth/login", &body).await;
        assert_eq!(status, StatusCode::OK, "{session}");
        session["access_token"].as_str().expect("a token").clone_into(&mut self.token);
    }

    /// What `path` answers; it must be a success.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("the API answers");
        let status = answer.status();
        (status, answer.json().await.expect("the API answers in JSON"))
    }

    /// Every row of a list, page by page along the cursors. `path` holds a query already.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut page) = (Vec::new(), self.get(path).await);
        loop {
            rows.extend(page["data"].as_array().expect("a list").iter().cloned());
            assert_eq!(page["meta"]["hasMore"], page["meta"]["nextCursor"].is_string(), "{}", page["meta"]);
            let Some(cursor) = page["meta"]["nextCursor"].as_str() else { return rows };
            page = self.get(&format!("{path}&cursor={cursor}")).await;
        }
    }

    /// Adds a subscription and returns its id.
    pub async fn subscribe(&self, subscription: &Value) -> String {
        let (status, made) = self.post("/api/subscriptions", subscription).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Scans a subscription and returns the job once it has ended.
    pub async fn scan(&self, subscription: &str) -> Value {
        let body = json!({"subscriptions": [subscription]});
        let (status, mut job) = self.post("/api/assets/discovery/scan", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{job}");
        let path = format!("/api/jobs/{}?wait={WAIT_SECONDS}", job["id"].as_str().expect("an id"));
        while job["done"] != true {
            job = self.get(&path).await;
        }
        job
    }

    /// The scopes of a job.
    pub async fn scopes(&self, job: &Value) -> Vec<Value> {
        self.list(&format!("/api/jobs/{}/scopes?limit=500", job["id"].as_str().expect("an id"))).await
    }
}

/// What all processes of an instance share.
fn environment(database: &TestDatabase) -> [(&str, &str); 7] {
    [
        ("DATABASE_URL", database.url()),
        ("KEYWRIGHT_MASTER_KEY", MASTER_KEY),
        ("KEYWRIGHT_LOG_FORMAT", "json"),
        ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
        ("KEYWRIGHT_ADMIN_PASSWORD", PASSWORD),
        ("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "0"),
        ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", "0"),
    ]
}

async fn ready(mut api: Process) -> (Process, String) {
    api.logged(READY).await;
    let url = format!("http://{}", address(&api.log()).expect("the API logs its address"));
    (api, url)
}

/// What lets a worker reach an emulator, and nothing else, as if it were AWS.
pub fn aws_environment(endpoint: &str) -> [(&str, &str); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// What the API is bound to, as its log tells.
fn address(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ready = lines.filter(|line| line["message"] == READY);
    ready.next()?["address"].as_str().map(str::to_owned)
}

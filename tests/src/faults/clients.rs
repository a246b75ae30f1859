//! Clients of the API, who remember what they were answered.

use crate::{instance::MASTER_KEY, process::Process};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

const SCAN: &str = "/api/assets/discovery/scan";
const PASSWORD: &str = "correct-horse-battery";
const READY: &str = "keywright-api ready";
/// Longer than any answer takes, save that of an API which is frozen.
const ANSWERS_WITHIN: Duration = Duration::from_secs(40);

/// What a client was told of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// 2xx with this job.
    Accepted(Uuid),
    Refused(u16),
    /// No answer came: what was asked for was done, or not.
    Lost,
}

#[derive(Clone, Debug)]
pub struct Answered {
    pub request_id: String,
    pub said: Said,
}

/// What all clients of a trial were answered.
#[derive(Clone, Default)]
pub struct Answers {
    answers: Arc<Mutex<Vec<Answered>>>,
    count: Arc<AtomicUsize>,
}

impl Answers {
    pub fn all(&self) -> Vec<Answered> {
        self.lock().clone()
    }

    /// A job that was made without the API.
    pub fn made(&self, job: Uuid) {
        self.lock().push(Answered { request_id: String::new(), said: Said::Accepted(job) });
    }

    /// A request is lost until its answer is here: whoever asks may be gone before.
    fn begin(&self) -> (usize, String) {
        let request_id = format!("client-{}", self.count.fetch_add(1, Ordering::SeqCst));
        let mut answers = self.lock();
        answers.push(Answered { request_id: request_id.clone(), said: Said::Lost });
        (answers.len() - 1, request_id)
    }

    fn end(&self, place: usize, said: Said) {
        self.lock()[place].said = said;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answered>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An API process and somebody who is signed in to it.
pub struct Facade {
    pub process: Process,
    client: Client,
}

impl Facade {
    /// Starts it on a migrated database; `extra` is more of its environment.
    pub async fn start(database: &str, extra: &[(&str, &str)], answers: Answers) -> Self {
        let environment = [
            ("DATABASE_URL", database),
            ("KEYWRIGHT_MASTER_KEY", MASTER_KEY),
            ("KEYWRIGHT_LOG_FORMAT", "json"),
            ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
            ("KEYWRIGHT_ADMIN_PASSWORD", PASSWORD),
            ("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "0"),
            ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", "0"),
            ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "0"),
        ];
        let mut process = Process::start("keywright-api", &[&environment, extra].concat());
        process.logged(READY).await;
        let url = format!("http://{}", address(&process.log()).expect("the API logs its address"));
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().expect("an HTTP client");
        let mut client = Client { url, token: String::new(), http, answers };
        client.sign_in().await;
        Self { process, client }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.client.url
    }

    /// Somebody who signed in at another process on the same database.
    pub fn client_of(&self, other: &Self) -> Client {
        Client { token: other.client.token.clone(), ..self.client.clone() }
    }
}

/// Asks for scans.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: String,
    http: reqwest::Client,
    answers: Answers,
}

impl Client {
    /// Tokens are short-lived: a long run signs in again.
    pub async fn sign_in(&mut self) {
        let body = json!({"username": "admin", "password": PASSWORD});
        let answer = self.http.post(format!("{}/api/auth/login", self.url)).json(&body).send().await;
        let session: Value = answer.expect("the API answers").json().await.expect("a session");
        session["access_token"].as_str().expect("a token").clone_into(&mut self.token);
    }

    /// Asks for a scan; `prefer` is the header of that name.
    pub async fn scan(&self, subscription: Uuid, on_conflict: &str, prefer: Option<&str>) -> Said {
        self.ask(subscription, on_conflict, prefer.map(|prefer| ("Prefer", prefer))).await
    }

    /// Asks for a scan of its own, under an idempotency key.
    pub async fn scan_once(&self, subscription: Uuid, key: &str) -> Said {
        self.ask(subscription, "queue", Some(("Idempotency-Key", key))).await
    }

    async fn ask(&self, subscription: Uuid, on_conflict: &str, header: Option<(&'static str, &str)>) -> Said {
        let (place, request_id) = self.answers.begin();
        let body = json!({"subscriptions": [subscription], "onConflict": on_conflict});
        let mut request = self.http.post(format!("{}{SCAN}", self.url)).bearer_auth(&self.token).json(&body);
        request = request.header("X-Request-Id", request_id);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let said = told(request).await;
        self.answers.end(place, said);
        said
    }

    /// Pauses or resumes a job, and tells the status.
    pub async fn steer(&self, job: Uuid, how: &str) -> Option<StatusCode> {
        let request = self.http.post(format!("{}/api/jobs/{job}/{how}", self.url)).bearer_auth(&self.token);
        request.send().await.ok().map(|answer| answer.status())
    }

    /// The status of a GET; `None` when no answer comes.
    pub async fn status(&self, path: &str) -> Option<StatusCode> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.send().await.ok().map(|answer| answer.status())
    }
}

async fn told(request: reqwest::RequestBuilder) -> Said {
    let Ok(answer) = request.send().await else { return Said::Lost };
    let status = answer.status();
    if !status.is_success() {
        return Said::Refused(status.as_u16());
    }
    // an answer that breaks off is none
    let Ok(job) = answer.json::<Value>().await else { return Said::Lost };
    Said::Accepted(job["id"].as_str().and_then(|id| id.parse().ok()).expect("a job has an id"))
}

/// What the API is bound to, as its log tells.
fn address(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ready = lines.filter(|line| line["message"] == READY);
    ready.next()?["address"].as_str().map(str::to_owned)
}

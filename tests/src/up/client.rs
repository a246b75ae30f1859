//! The API as a client sees it: a token, paths, JSON.

use super::target::Target;
use anyhow::{Context, Result, bail};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{fmt, time::Duration};

/// How often a starting API is asked whether it is ready.
const READY_LOOK: Duration = Duration::from_millis(50);
/// Longer than any wait that we ask for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client of one instance.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<SecretString>,
}

/// What we read of a job.
#[derive(Debug, Deserialize)]
pub struct Job {
    pub id: String,
    pub state: String,
    pub done: bool,
    pub counts: Counts,
    pub error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
pub struct Counts {
    pub found: u64,
    pub warnings: u64,
}

#[derive(Debug, Deserialize)]
pub struct Failure {
    pub code: String,
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

#[derive(Deserialize)]
struct Scope {
    reason: Option<Failure>,
}

/// What we read of an asset.
#[derive(Debug, Deserialize)]
pub struct Asset {
    pub name: String,
    pub status: String,
    pub attributes: Map<String, Value>,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    meta: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    id: String,
    external_id: String,
}

/// A refusal (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
}

impl Client {
    /// A client without credentials.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(url: &str) -> Result<Self> {
        // what is on this machine is not reached by a proxy
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { http, url: url.to_owned(), token: None })
    }

    /// The same client with this token.
    #[must_use]
    pub fn with(&self, token: SecretString) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// Comes when the API is ready.
    pub async fn ready(&self) {
        loop {
            let answer = self.http.get(format!("{}/ready", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(READY_LOOK).await;
        }
    }

    /// Whether the API takes the token.
    ///
    /// # Errors
    /// For answers other than yes and 401.
    pub async fn is_known(&self) -> Result<bool> {
        let answer = self.request(Method::GET, "/api/auth/me").send().await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Ok(false);
        }
        read::<Value>(answer).await.map(|_| true)
    }

    /// The id of the `local` subscription with this external id.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn subscription(&self, external_id: &str) -> Result<Option<String>> {
        let mut found = None;
        self.each("/api/subscriptions?provider=local&limit=500", |one: Subscription| {
            if one.external_id == external_id {
                found = Some(one.id);
            }
        })
        .await?;
        Ok(found)
    }

    /// Adds a `local` subscription and returns its id.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn add_subscription(&self, target: &Target) -> Result<String> {
        let body = json!({
            "provider": "local",
            "externalId": target.external_id,
            "name": target.name,
            "settings": {"local": {"paths": [target.path]}},
        });
        let added: Subscription = self.send(self.request(Method::POST, "/api/subscriptions").json(&body)).await?;
        Ok(added.id)
    }

    /// Starts a scan of one subscription, or joins the one that an earlier run left under way.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn start_scan(&self, subscription: &str) -> Result<Job> {
        let request = self.request(Method::POST, "/api/assets/discovery/scan").header("Prefer", "wait=60");
        self.send(request.json(&json!({"subscriptions": [subscription]}))).await
    }

    /// The job once it is done, or as it stands after a minute.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn wait(&self, job: &str) -> Result<Job> {
        self.send(self.request(Method::GET, &format!("/api/jobs/{job}?wait=60"))).await
    }

    /// Why a job failed: its own reason, and those of its scopes.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn reasons(&self, job: &Job) -> Result<String> {
        let mut reasons: Vec<String> = job.error.iter().map(Failure::to_string).collect();
        self.each(&format!("/api/jobs/{}/scopes?limit=500", job.id), |scope: Scope| {
            reasons.extend(scope.reason.map(|reason| reason.to_string()));
        })
        .await?;
        reasons.dedup();
        Ok(reasons.join("; "))
    }

    /// Pages through what a subscription holds.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn each_asset(&self, subscription: &str, take: impl FnMut(Asset)) -> Result<()> {
        self.each(&format!("/api/assets/discovery/assets?subscription={subscription}&limit=500"), take).await
    }

    async fn each<T: DeserializeOwned>(&self, list: &str, mut take: impl FnMut(T)) -> Result<()> {
        let mut path = list.to_owned();
        loop {
            let page: Page<T> = self.send(self.request(Method::GET, &path)).await?;
            page.data.into_iter().for_each(&mut take);
            match page.meta.next_cursor {
                Some(cursor) => path = format!("{list}&cursor={cursor}"),
                None => return Ok(()),
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        read(request.send().await?).await
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T> {
    let (status, path) = (answer.status(), answer.url().path().to_owned());
    if status.is_success() {
        return answer.json().await.with_context(|| format!("{path} answered something unexpected"));
    }
    match answer.json::<Problem>().await {
        Ok(Problem { code, detail }) => bail!("{path}: {status} {code}: {}", detail.unwrap_or_default()),
        Err(_) => bail!("{path}: {status}"),
    }
}

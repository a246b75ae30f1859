//! The double of Google Cloud (`tests/rig/gcp_double.py`), and Google's own client, which drives it.

use super::{Rig, Server};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};
use tempfile::TempDir;

/// The project that is filled.
pub const PROJECT: &str = "acme-prod";

/// A running double; dropping it kills its process.
pub struct GcpDouble {
    server: Server,
    journal: PathBuf,
    _directory: TempDir,
}

/// A call that the double answered.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GcpCall {
    /// As the discovery documents name it, e.g. `secretmanager.projects.secrets.list`; `None` for a path that they do not know.
    pub method: Option<String>,
    pub path: String,
    pub status: u16,
    /// Answered by a rule.
    pub injected: bool,
    /// The service account that signed the token, or the token.
    pub identity: Option<String>,
    /// What the discovery documents do not allow in the request or in the answer.
    pub violation: Option<String>,
}

/// What Google's client lists.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GcpListing {
    /// By resource name.
    pub secrets: BTreeMap<String, GcpSecret>,
    /// Types by resource name.
    pub keys: BTreeMap<String, String>,
    pub projects: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GcpSecret {
    /// States by number.
    pub versions: BTreeMap<String, String>,
    /// When the newest was made.
    pub created: Option<String>,
}

/// A call that reads the value of a secret or a private key, or signs in another's name.
pub fn reads_google_value(call: &GcpCall) -> bool {
    const READING: &[&str] = &[".access", ".keys.create", ".keys.upload", ".signBlob", ".signJwt", ".generateIdToken"];
    call.method.as_ref().is_some_and(|method| READING.iter().any(|reading| method.ends_with(reading)))
}

impl Rig {
    /// Secret Manager, IAM's service accounts and keys, Resource Manager's search and impersonation, with the project
    /// [`PROJECT`] and two more.
    pub async fn google(&self) -> Result<GcpDouble> {
        let directory = TempDir::new()?;
        let journal = directory.path().join("journal.ndjson");
        let path = journal.to_str().context("the temporary directory has no plain name")?;
        let server = self.serve("gcp_double", |port| self.script("gcp_double.py", &[&port.to_string(), path])).await?;
        let double = GcpDouble { server, journal, _directory: directory };
        double.control("_projects", &json!([PROJECT, "acme-test", "acme-dev"])).await?;
        Ok(double)
    }

    /// Fills a server through Google's client, and lists what there is then.
    pub async fn seed_google(&self, url: &str, secrets: u32, accounts: u32) -> Result<GcpListing> {
        self.run("gcp_client.py", &[url, PROJECT, "seed", &secrets.to_string(), &accounts.to_string()]).await
    }

    /// Reads one secret's newest value through Google's client, as no part of Keywright's inventory may.
    pub async fn read_google_value(&self, url: &str, secret: &str) -> Result<Value> {
        self.run("gcp_client.py", &[url, PROJECT, "read", secret]).await
    }

    /// Secret Manager by others, which lists everything in one page and keeps labels and replication alone.
    pub async fn drongo(&self) -> Result<Server> {
        self.serve("drongo", |port| {
            let mut command = tokio::process::Command::new(self.venv.join("bin/drongo"));
            command.args(["server", "--host", "127.0.0.1", "--port", &port.to_string()]);
            command
        })
        .await
    }
}

impl GcpDouble {
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Every call so far, in the order in which they were answered.
    ///
    /// # Errors
    /// When one of them, or its answer, was something that Google's documents do not allow.
    pub fn calls(&self) -> Result<Vec<GcpCall>> {
        let calls = self.journal()?;
        let violated = calls.iter().find(|call| call.violation.is_some());
        ensure!(violated.is_none(), "against the discovery documents: {violated:?}");
        Ok(calls)
    }

    /// The same with those.
    pub fn journal(&self) -> Result<Vec<GcpCall>> {
        let lines = std::fs::read_to_string(&self.journal)?;
        lines.lines().map(|line| serde_json::from_str(line).context("the journal is broken")).collect()
    }

    /// Gives at most so many of anything at once.
    pub async fn pages_of(&self, largest: u32) -> Result<()> {
        self.control("_pages", &json!({"largest": largest})).await
    }

    /// Lets all page tokens given so far expire.
    pub async fn expire_tokens(&self) -> Result<()> {
        self.control("_tokens", &json!({})).await
    }

    /// From now on everybody has these permissions alone.
    pub async fn role(&self, permissions: &[&str]) -> Result<()> {
        self.control("_role", &json!(permissions)).await
    }

    /// Replaces the rules by which calls are answered; `tests/rig/gcp_double.py` says what a rule may hold.
    pub async fn rules(&self, rules: Value) -> Result<()> {
        self.control("_rules", &rules).await
    }

    async fn control(&self, path: &str, value: &Value) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        client.put(format!("{}/{path}", self.url())).json(value).send().await?.error_for_status()?;
        Ok(())
    }
}
